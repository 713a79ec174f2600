//! The disks that were found.
#![forbid(unsafe_code)]

use alloc::{boxed::Box, string::String, sync::Arc, vec::Vec};
use core::{
    ops::Deref,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use drivers::{
    class::{BlockDevice, SECTOR_BYTES},
    virtio::{
        DeviceId,
        block::{Block, Cpus, Shared},
        transport::Transport,
    },
    xen::block as xen,
};

use super::{
    Counts, Failure, failure,
    virtio::{self, rings},
    wiring::{Cause, Connect},
};
use crate::{
    cpu::{self, percpu},
    platform::Platform,
    sync::{IrqMutex, OnceCell},
};

static DISKS: IrqMutex<Vec<Disk>> = IrqMutex::new(Vec::new());

/// A disk; dereferences to what can be asked of it. Copies are the same disk.
#[derive(Clone)]
pub struct Disk {
    name: Arc<str>,
    device: Device,
    interrupts: Arc<AtomicU64>,
}

/// What drives it.
#[derive(Clone)]
enum Device {
    Virtio(Arc<Shared<IrqMutex<Block>>>),
    Xen(Arc<xen::Shared<IrqMutex<xen::Block>>>),
}

impl Disk {
    /// Where it was found, such as `virtio-blk 00:03.0`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What was sent to and fro so far.
    pub fn counts(&self) -> Counts {
        match &self.device {
            Device::Virtio(device) => {
                let counts = device.0.lock().counts();
                let interrupts = self.interrupts.load(Relaxed);
                Counts { requests: counts.buffers, notifications: counts.notifications, interrupts }
            }
            Device::Xen(device) => {
                let xen::Counts { requests, notifications, interrupts } = device.0.lock().counts();
                Counts { requests, notifications, interrupts }
            }
        }
    }

    /// A disk that another domain serves; the driver counts its interrupts itself.
    pub(crate) fn of_xen(name: &str, device: Arc<xen::Shared<IrqMutex<xen::Block>>>) -> Self {
        Self { name: name.into(), device: Device::Xen(device), interrupts: Arc::default() }
    }

    /// Takes back every request that the disk has not answered: each ends with [`drivers::Error::Cancelled`], and its buffer.
    ///
    /// # Errors
    /// The device cannot do that, as most cannot.
    pub fn cancel(&self) -> Result<(), drivers::Error> {
        match &self.device {
            Device::Virtio(device) => device.0.lock().cancel(&Platform),
            Device::Xen(_) => Err(drivers::Error::Request("the device cannot take requests back")),
        }
    }

    /// Called by the interrupt handler.
    fn interrupt(&self, cause: Cause) {
        self.interrupts.fetch_add(1, Relaxed);
        let Device::Virtio(device) = &self.device else { return };
        let mut block = device.0.lock();
        match cause {
            Cause::Any => block.interrupt(),
            Cause::Queues { first, step } => block.queue_interrupt(first, step),
        }
    }

    pub(crate) fn register(self) {
        DISKS.lock().push(self);
    }
}

impl Deref for Disk {
    type Target = dyn BlockDevice;

    fn deref(&self) -> &Self::Target {
        match &self.device {
            Device::Virtio(device) => &**device,
            Device::Xen(device) => &**device,
        }
    }
}

/// The disks, in the order in which they were found. The first call looks for them.
pub fn disks() -> Vec<Disk> {
    static TAKEN: OnceCell<()> = OnceCell::uninit();
    TAKEN.init_once(|| virtio::take(DeviceId::BLOCK, cpus().count, bring_up));
    crate::xen::bus::probe();
    DISKS.lock().clone()
}

/// Takes a disk that is gone from the list; who has it still fails with all it asks.
pub(crate) fn remove(name: &str) {
    DISKS.lock().retain(|disk| disk.name() != name);
}

fn cpus() -> Cpus {
    Cpus { count: percpu::all().count() as u16, current: || cpu::current().id() as u16 }
}

fn bring_up(transport: Box<dyn Transport>, name: String, connect: Connect) -> Result<(), Failure> {
    let block = Block::probe(transport, &Platform, cpus()).map_err(failure)?;
    let (info, features, queues) = (block.info(), block.features(), block.queues());
    let device = Device::Virtio(Arc::new(Shared(IrqMutex::new(block))));
    let disk = Disk { name: name.into(), device, interrupts: Arc::default() };
    let handler = disk.clone();
    connect.to("virtio-blk", Box::new(move |cause| handler.interrupt(cause))).map_err(failure)?;
    log::info!(
        "{}: {} KiB, blocks of {} bytes, {queues} queue{}, {}{}",
        disk.name(),
        info.sectors / (1024 / SECTOR_BYTES as u64),
        info.block_bytes,
        if queues == 1 { "" } else { "s" },
        if info.read_only { "read-only" } else { "read-write" },
        rings(features)
    );
    disk.register();
    Ok(())
}
