//! The disks that were found.
#![forbid(unsafe_code)]

use alloc::{string::String, sync::Arc, vec::Vec};
use core::{
    ops::Deref,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use drivers::{
    class::BlockDevice,
    virtio::block::{Block, Shared},
    xen::block as xen,
};

use crate::sync::IrqMutex;

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

/// What was sent to and fro so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that the device took.
    pub requests: u64,
    /// Notifications sent to the device.
    pub notifications: u64,
    /// Interrupts that came.
    pub interrupts: u64,
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

    pub(super) fn new(name: String, block: Block) -> Self {
        let device = Device::Virtio(Arc::new(Shared(IrqMutex::new(block))));
        Self { name: name.into(), device, interrupts: Arc::default() }
    }

    /// A disk that another domain serves; the driver counts its interrupts itself.
    pub(crate) fn of_xen(name: &str, device: Arc<xen::Shared<IrqMutex<xen::Block>>>) -> Self {
        Self { name: name.into(), device: Device::Xen(device), interrupts: Arc::default() }
    }

    /// Called by the interrupt handler.
    pub(super) fn interrupt(&self) {
        self.interrupts.fetch_add(1, Relaxed);
        if let Device::Virtio(device) = &self.device {
            device.0.lock().interrupt();
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
    super::probe_buses();
    DISKS.lock().clone()
}

/// Takes a disk that is gone from the list; who has it still fails with all it asks.
pub(crate) fn remove(name: &str) {
    DISKS.lock().retain(|disk| disk.name() != name);
}
