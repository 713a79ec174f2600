//! Virtio console device: ports that carry bytes both ways (VirtIO 1.3 §5.3).
//!
//! Two queues a port, and two for control messages where the device may have several ports. Files: `port` (bytes through
//! two queues), `control` (what device and driver tell each other of ports). Neighbours: `device`, `class::ByteStream`
//! (what callers see).
#![forbid(unsafe_code)]

mod control;
mod port;

use alloc::{boxed::Box, string::String, vec::Vec};
use core::task::{Poll, Waker};

use self::{
    control::{Control, Event, Message},
    port::Port,
};
use super::{
    Fault, Features, Init,
    device::Device,
    queue::Counts,
    transport::{Interrupt, Transport},
};
use crate::{
    class,
    error::Error,
    hal::{Hal, Lock},
};

/// Feature bits (§5.3.3).
mod feature {
    pub(super) const SIZE: u64 = 1 << 0;
    pub(super) const MULTIPORT: u64 = 1 << 1;
    pub(super) const EMERG_WRITE: u64 = 1 << 2;
    pub(super) const ALL: u64 = SIZE | MULTIPORT | EMERG_WRITE;
}

/// Fields of the configuration by offset (§5.3.4).
mod config {
    pub(super) const COLS: usize = 0;
    pub(super) const ROWS: usize = 2;
    pub(super) const MAX_NR_PORTS: usize = 4;
    pub(super) const EMERG_WR: usize = 8;
}

/// Ports that get queues; a device that has more is told that those beyond are not ready.
pub const MAX_PORTS: u16 = 8;

/// Times that one interrupt looks for further messages while the device sends them as fast as they are read.
const ROUNDS: u32 = 64;

/// Characters that a console shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// In a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

/// What a port is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortInfo {
    /// Its number.
    pub id: u16,
    /// The name that the host gave it; empty if none.
    pub name: String,
    /// It is for people: a console, not a channel for programs.
    pub is_console: bool,
    /// Somebody on the host is there.
    pub host_is_open: bool,
    /// What it shows, if the device says so.
    pub size: Option<Size>,
}

/// A console device behind a virtio transport. One task or handler at a time: [`Shared`](crate::class::Shared) puts a lock around.
pub struct Console {
    device: Device,
    ports: Vec<Port>,
    control: Option<Control>,
}

impl Console {
    /// Brings the device up (§3.1.1, §5.3.5) and asks it for its ports.
    ///
    /// # Errors
    /// The device does not come up, or describes itself as what cannot be.
    pub fn probe(transport: Box<dyn Transport>, hal: &dyn Hal) -> Result<Self, Error> {
        let mut init = Init::begin(transport, Features::from_bits_retain(feature::ALL))?;
        match queues(&mut init, hal) {
            Ok((ports, control)) => {
                let mut console = Self { device: Device::run(init), ports, control };
                console.begin();
                Ok(console)
            }
            Err(error) => Err(init.abandon(error)),
        }
    }

    /// Gives the device room to say something, and tells it that it may.
    fn begin(&mut self) {
        let Self { device, ports, control } = self;
        ports.iter_mut().for_each(|port| port.begin(device));
        match control {
            Some(control) => control.begin(device),
            // Without control messages the one port is a console, and open (§5.3.5).
            None => ports.iter_mut().for_each(|port| {
                (port.is_there, port.info.is_console, port.info.host_is_open) = (true, true, true);
            }),
        }
        self.read_size();
    }

    /// What was negotiated.
    pub fn features(&self) -> Features {
        self.device.features()
    }

    /// Why the device is not used any more, if it is not.
    pub fn fault(&self) -> Option<Error> {
        self.device.fault()
    }

    /// What all queues have done so far.
    pub fn counts(&self) -> Counts {
        let control = self.control.iter().map(Control::counts);
        self.ports.iter().map(Port::counts).chain(control).fold(Counts::default(), |sum, counts| sum + counts)
    }

    /// The ports that are there.
    pub fn ports(&self) -> impl Iterator<Item = &PortInfo> {
        self.ports.iter().filter(|port| port.is_there).map(|port| &port.info)
    }

    /// To be called when the device has interrupted for everything.
    pub fn interrupt(&mut self) {
        match self.device.take_interrupt() {
            Ok(cause) => {
                if cause.contains(Interrupt::CONFIG) && self.device.fault().is_none() {
                    self.read_size();
                }
                self.queue_interrupt();
            }
            Err(fault) => self.fail(fault),
        }
    }

    /// To be called when the device has interrupted for its queues alone, or may have used a buffer.
    pub fn queue_interrupt(&mut self) {
        if self.device.fault().is_none()
            && let Err(fault) = self.collect()
        {
            self.fail(fault);
        }
    }

    fn collect(&mut self) -> Result<(), Fault> {
        let Self { device, ports, control } = self;
        ports.iter_mut().try_for_each(Port::collect)?;
        let Some(control) = control else { return Ok(()) };
        // So many rounds at a time: a device cannot keep the handler for ever.
        for _ in 0..ROUNDS {
            while let Some(message) = control.take()? {
                message.into_iter().for_each(|message| follow(message, device, ports, control));
            }
            if !control.again(device)? {
                break;
            }
        }
        Ok(())
    }

    fn fail(&mut self, fault: Fault) {
        let is_reset = self.device.fail(fault);
        if !is_reset {
            self.keep_for_ever();
        }
        self.ports.iter_mut().for_each(Port::wake);
    }

    fn keep_for_ever(&mut self) {
        self.ports.iter_mut().for_each(Port::keep_for_ever);
        self.control.iter_mut().for_each(Control::keep_for_ever);
    }

    /// The size in the configuration is that of port 0 (§5.3.4).
    fn read_size(&mut self) {
        if self.features().bits() & feature::SIZE == 0 {
            return;
        }
        let read = |transport: &dyn Transport| {
            Ok(transport.config_u16(config::COLS).zip(transport.config_u16(config::ROWS)))
        };
        if let (Ok(Some((columns, rows))), Some(port)) =
            (self.device.read_config(read), self.ports.first_mut())
        {
            port.info.size = Some(Size { columns, rows });
        }
    }

    fn port(&mut self, id: u16) -> Option<(&mut Device, &mut Port)> {
        let port = self.ports.get_mut(usize::from(id)).filter(|port| port.is_there)?;
        Some((&mut self.device, port))
    }

    /// Tells the host that somebody here reads and writes port `id`, or does no more (§5.3.6.2).
    pub fn set_open(&mut self, id: u16, is_open: bool) {
        if let Some(control) = &mut self.control {
            control.send(
                &mut self.device,
                Message { id: id.into(), event: Event::PortOpen, value: is_open.into() },
            );
        }
    }

    /// Takes bytes that port `id` has received; if there are none, calls `waker` when there may be.
    pub fn poll_read(&mut self, id: u16, bytes: &mut [u8], waker: &Waker) -> Poll<Result<usize, Error>> {
        if let Some(error) = self.device.fault() {
            return Poll::Ready(Err(error));
        }
        match self.port(id) {
            Some((device, port)) => port.poll_read(device, bytes, waker).map(Ok),
            None => Poll::Ready(Err(Error::Request("there is no such port"))),
        }
    }

    /// Sends bytes to port `id`, as many as there is room for; if there is none, calls `waker` when there may be.
    pub fn poll_write(&mut self, id: u16, bytes: &[u8], waker: &Waker) -> Poll<Result<usize, Error>> {
        // What the device has used meanwhile makes room, interrupt or not.
        self.queue_interrupt();
        if let Some(error) = self.device.fault() {
            return Poll::Ready(Err(error));
        }
        match self.port(id) {
            Some((device, port)) => port.poll_write(device, bytes, waker).map(Ok),
            None => Poll::Ready(Err(Error::Request("there is no such port"))),
        }
    }

    /// Whether the device has read everything that was sent to port `id`, or never will.
    pub fn is_drained(&mut self, id: u16) -> bool {
        self.queue_interrupt();
        self.device.fault().is_some() || self.port(id).is_none_or(|(_, port)| port.is_drained())
    }

    /// Shows one character at once, without a queue, where the device can (§5.3.4): for a guest that is dying.
    pub fn emergency_write(&mut self, byte: u8) {
        if self.features().bits() & feature::EMERG_WRITE != 0 {
            self.device.write_config(config::EMERG_WR, byte.into());
        }
    }
}

/// The queues of the ports that are driven, and of control messages.
fn queues(init: &mut Init, hal: &dyn Hal) -> Result<(Vec<Port>, Option<Control>), Error> {
    let is_multiport = init.features().bits() & feature::MULTIPORT != 0;
    let most = match init.transport().config_u32(config::MAX_NR_PORTS) {
        Some(most) if is_multiport => most.clamp(1, MAX_PORTS.into()) as u16,
        _ => 1,
    };
    let ports: Result<Vec<Port>, Error> = (0..most).map(|id| Port::new(init, hal, id)).collect();
    let control = is_multiport.then(|| Control::new(init, hal)).transpose()?;
    Ok((ports?, control))
}

/// Does what the device tells of its ports (§5.3.6.2).
fn follow(message: Message, device: &mut Device, ports: &mut [Port], control: &mut Control) {
    let id = message.id;
    let Some(port) = ports.get_mut(id as usize) else {
        if message.event == Event::DeviceAdd {
            log::warn!("virtio-console: port {id} is left out: {MAX_PORTS} are driven");
            control.send(device, Message { id, event: Event::PortReady, value: 0 });
        }
        return;
    };
    match message.event {
        Event::DeviceAdd => {
            port.is_there = true;
            control.send(device, Message { id, event: Event::PortReady, value: 1 });
        }
        Event::DeviceRemove => port.is_there = false,
        Event::ConsolePort => {
            port.info.is_console = true;
            control.send(device, Message { id, event: Event::PortOpen, value: 1 });
        }
        Event::Resize(size) => port.info.size = Some(size),
        Event::PortOpen => port.info.host_is_open = message.value != 0,
        Event::PortName(ref name) => port.info.name.clone_from(name),
        Event::DeviceReady | Event::PortReady => {}
    }
    port.wake();
}

impl Drop for Console {
    /// The memory that the device was told of goes, so the device must not use it any more.
    fn drop(&mut self) {
        if !self.device.stop() {
            self.keep_for_ever();
        }
    }
}

/// One port of a [`Shared`](class::Shared) device.
pub struct Stream<L> {
    /// The device.
    pub device: alloc::sync::Arc<class::Shared<L>>,
    /// The port's number.
    pub id: u16,
}

impl<L: Lock<Value = Console>> class::ByteStream for Stream<L> {
    fn poll_read(&self, bytes: &mut [u8], waker: &Waker) -> Poll<Result<usize, Error>> {
        self.device.0.with(|console| console.poll_read(self.id, bytes, waker))
    }

    fn poll_write(&self, bytes: &[u8], waker: &Waker) -> Poll<Result<usize, Error>> {
        self.device.0.with(|console| console.poll_write(self.id, bytes, waker))
    }
}
