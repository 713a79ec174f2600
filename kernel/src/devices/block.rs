//! The disks that were found.
#![forbid(unsafe_code)]

use alloc::{string::String, sync::Arc, vec::Vec};
use core::{
    ops::Deref,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use drivers::{
    class::BlockDevice,
    virtio::{
        Features,
        block::{Block, Shared},
    },
};

use crate::sync::IrqMutex;

static DISKS: IrqMutex<Vec<Disk>> = IrqMutex::new(Vec::new());

/// A disk; dereferences to what can be asked of it. Copies are the same disk.
#[derive(Clone)]
pub struct Disk {
    name: Arc<str>,
    device: Arc<Shared<IrqMutex<Block>>>,
    interrupts: Arc<AtomicU64>,
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

    /// What was negotiated with the device.
    pub fn features(&self) -> Features {
        self.device.0.lock().features()
    }

    /// What was sent to and fro so far.
    pub fn counts(&self) -> Counts {
        let counts = self.device.0.lock().counts();
        let interrupts = self.interrupts.load(Relaxed);
        Counts { requests: counts.buffers, notifications: counts.notifications, interrupts }
    }

    pub(super) fn new(name: String, block: Block) -> Self {
        Self { name: name.into(), device: Arc::new(Shared(IrqMutex::new(block))), interrupts: Arc::default() }
    }

    /// Called by the interrupt handler.
    pub(super) fn interrupt(&self) {
        self.interrupts.fetch_add(1, Relaxed);
        self.device.0.lock().interrupt();
    }

    pub(super) fn register(self) {
        DISKS.lock().push(self);
    }
}

impl Deref for Disk {
    type Target = dyn BlockDevice;

    fn deref(&self) -> &Self::Target {
        &*self.device
    }
}

/// The disks, in the order in which they were found. The first call looks for them.
pub fn disks() -> Vec<Disk> {
    super::probe_buses();
    DISKS.lock().clone()
}
