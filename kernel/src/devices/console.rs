//! Virtio consoles: ports for apps, and consoles of the kernel beside the serial line and the screen.
//!
//! A guest that wants one says so by [`attach`] or by asking for a port: others do not carry the driver.
//! Neighbours: `drivers::virtio::console` (the device), `console` (where the kernel's text goes).
#![forbid(unsafe_code)]

use alloc::{boxed::Box, string::String, sync::Arc, vec::Vec};
use core::{
    ops::Deref,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    task::{Poll, Waker},
    time::Duration,
};

use drivers::{
    class::{self, ByteStream, Shared},
    virtio::{
        DeviceId,
        console::{Console, PortInfo, Stream},
        transport::Transport,
    },
};

use super::{
    Counts, Failure, failure,
    virtio::{self, rings},
    wiring::{Cause, Connect, Messages},
};
use crate::{
    console::{self, Kind},
    platform::Platform,
    sync::{IrqMutex, OnceCell},
    task,
};

/// How long a device may take to tell of its ports, and how often it is asked.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(1);

static DEVICES: IrqMutex<Vec<Arc<Device>>> = IrqMutex::new(Vec::new());

struct Device {
    name: String,
    shared: Arc<Shared<IrqMutex<Console>>>,
    /// A port of it is a console of the kernel.
    is_attached: AtomicBool,
    interrupts: AtomicU64,
}

impl Device {
    /// Called by the interrupt handler.
    fn interrupt(&self, cause: Cause) {
        self.interrupts.fetch_add(1, Relaxed);
        {
            let mut console = self.shared.0.lock();
            match cause {
                Cause::Any => console.interrupt(),
                Cause::Queues { .. } => console.queue_interrupt(),
            }
        }
        if self.is_attached.load(Relaxed) {
            console::on_receive();
        }
    }
}

/// A port; dereferences to its bytes. Copies are the same port.
#[derive(Clone)]
pub struct Port {
    device: Arc<Device>,
    stream: Arc<Stream<IrqMutex<Console>>>,
}

impl Port {
    fn new(device: &Arc<Device>, id: u16) -> Self {
        let stream = Arc::new(Stream { device: device.shared.clone(), id });
        Self { device: device.clone(), stream }
    }

    /// Where its device was found, such as `virtio-console 00:03.0`.
    pub fn device_name(&self) -> &str {
        &self.device.name
    }

    /// What it is like now; `None` if the host has taken it away.
    pub fn info(&self) -> Option<PortInfo> {
        self.stream.device.0.lock().ports().find(|port| port.id == self.stream.id).cloned()
    }

    /// What its device, with all its ports, has sent to and fro so far.
    pub fn counts(&self) -> Counts {
        let counts = self.stream.device.0.lock().counts();
        let interrupts = self.device.interrupts.load(Relaxed);
        Counts { requests: counts.buffers, notifications: counts.notifications, interrupts }
    }

    /// Tells the host that somebody here reads and writes it, or does no more.
    pub fn set_open(&self, is_open: bool) {
        self.stream.device.0.lock().set_open(self.stream.id, is_open);
    }
}

impl Deref for Port {
    type Target = dyn ByteStream;

    fn deref(&self) -> &Self::Target {
        &*self.stream
    }
}

/// The ports that the devices have told of so far. The first call looks for the devices.
pub fn ports() -> Vec<Port> {
    let devices = devices();
    let ports = devices.iter().flat_map(|device| {
        let ids: Vec<u16> = device.shared.0.lock().ports().map(|port| port.id).collect();
        ids.into_iter().map(move |id| Port::new(device, id))
    });
    ports.collect()
}

/// The port that the host calls `name`, opened; `None` if no device tells of one in two seconds.
pub async fn open(name: &str) -> Option<Port> {
    if devices().is_empty() {
        return None;
    }
    let find = async {
        loop {
            let has_name = |port: &Port| port.info().is_some_and(|info| info.name == name);
            if let Some(port) = ports().into_iter().find(has_name) {
                return port;
            }
            task::sleep(LOOK).await;
        }
    };
    let port = task::timeout(PATIENCE, find).await.ok()?;
    port.set_open(true);
    Some(port)
}

/// Makes the first console port that a device has a console of the kernel, unless the command line does not want it; false if
/// there is none.
pub async fn attach() -> bool {
    if !console::is_chosen(Kind::Hypervisor) || devices().is_empty() {
        return false;
    }
    let find = async {
        loop {
            let is_console = |port: &Port| port.info().is_some_and(|info| info.is_console);
            if let Some(port) = ports().into_iter().find(is_console) {
                return port;
            }
            task::sleep(LOOK).await;
        }
    };
    let Ok(port) = task::timeout(PATIENCE, find).await else { return false };
    let size = port.info().and_then(|info| info.size);
    let size = size.map(|size| alloc::format!(", {} x {} characters", size.columns, size.rows));
    let name = port.device_name();
    log::info!("hvc: port {} of {name}, in and out{}", port.stream.id, size.unwrap_or_default());
    if !port.device.is_attached.swap(true, Relaxed) {
        console::register(Box::new(Hvc(port)), Kind::Hypervisor);
        console::on_receive();
    }
    true
}

fn devices() -> Vec<Arc<Device>> {
    static TAKEN: OnceCell<()> = OnceCell::uninit();
    TAKEN.init_once(|| virtio::take(DeviceId::CONSOLE, Messages::ONE, bring_up));
    DEVICES.lock().clone()
}

fn bring_up(transport: Box<dyn Transport>, name: String, connect: Connect) -> Result<(), Failure> {
    let driver = Console::probe(transport, &Platform).map_err(failure)?;
    let features = driver.features();
    let shared = Arc::new(Shared(IrqMutex::new(driver)));
    let device =
        Arc::new(Device { name, shared, is_attached: AtomicBool::new(false), interrupts: AtomicU64::new(0) });
    let handler = device.clone();
    connect.to("virtio-console", Box::new(move |cause| handler.interrupt(cause))).map_err(failure)?;
    log::info!("{}: console{}", device.name, rings(features));
    DEVICES.lock().push(device);
    Ok(())
}

/// Tries to get the device's lock, and to find room in its queue, that a write makes before it drops text: who holds the lock
/// may be the one who writes, in a message about the device.
const TRIES: u32 = 1_000_000;

/// A port as a console of the kernel.
struct Hvc(Port);

impl Hvc {
    fn with<R>(&self, act: impl FnOnce(&mut Console) -> R) -> Option<R> {
        let lock = &self.0.stream.device.0;
        let mut guard = (0..TRIES).find_map(|_| {
            core::hint::spin_loop();
            lock.try_lock()
        })?;
        Some(act(&mut guard))
    }

    fn send(&self, mut bytes: &[u8]) {
        let id = self.0.stream.id;
        self.with(|console| {
            for _ in 0..TRIES {
                match console.poll_write(id, bytes, Waker::noop()) {
                    Poll::Ready(Ok(count)) => bytes = &bytes[count..],
                    Poll::Ready(Err(_)) => return,
                    Poll::Pending => core::hint::spin_loop(),
                }
                if bytes.is_empty() {
                    return;
                }
            }
            bytes.iter().for_each(|&byte| console.emergency_write(byte));
        });
    }
}

impl class::Console for Hvc {
    fn name(&self) -> &'static str {
        "hvc"
    }

    fn write(&mut self, bytes: &[u8]) {
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            match line.strip_suffix(b"\n") {
                Some(text) => {
                    self.send(text);
                    self.send(b"\r\n");
                }
                None => self.send(line),
            }
        }
    }

    fn flush(&mut self) {
        let id = self.0.stream.id;
        let is_drained = || self.with(|console| console.is_drained(id)).unwrap_or(true);
        for _ in 0..TRIES {
            if is_drained() {
                return;
            }
            core::hint::spin_loop();
        }
    }

    fn read(&mut self) -> Option<u8> {
        let (mut byte, id) = ([0], self.0.stream.id);
        match self.with(|console| console.poll_read(id, &mut byte, Waker::noop()))? {
            Poll::Ready(Ok(1..)) => Some(byte[0]),
            _ => None,
        }
    }
}
