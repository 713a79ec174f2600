//! How a driver reaches the registers of its device: over PCI or over MMIO (VirtIO 1.3 §4).
//! Neighbours: `init` (the handshake over it), `queue` (what needs no registers).
#![forbid(unsafe_code)]

pub mod mmio;
pub mod pci;

use super::{DeviceId, Status, queue::Addresses};
use crate::error::{Error, Field};

/// The registers of a device. Values come from the device and may be anything.
pub trait Transport: Send {
    /// What kind of device it is.
    fn device_id(&self) -> DeviceId;

    /// The features that it offers (§2.2).
    fn device_features(&mut self) -> u64;

    /// Tells it those that were chosen.
    fn set_driver_features(&mut self, features: u64);

    /// The device status (§2.1).
    fn status(&self) -> Status;

    /// Sets the device status; nothing set asks for a reset.
    fn set_status(&mut self, status: Status);

    /// Descriptors that the device takes for queue `index`; 0 if it has no such queue.
    fn queue_max_size(&mut self, index: u16) -> u32;

    /// Tells it where queue `index` lies, and enables it.
    ///
    /// # Errors
    /// The device has no such queue, or does not take it.
    fn enable_queue(&mut self, index: u16, addresses: &Addresses) -> Result<(), Error>;

    /// Whether [`reset_queue`](Self::reset_queue) can be had here, if the device offers it.
    fn can_reset_queues(&self) -> bool;

    /// Resets queue `index` alone (§2.6.1): false if the device does not finish that. Once it has, it does not access the
    /// queue's memory, nor buffers that were in it, and the queue may be enabled again.
    fn reset_queue(&mut self, index: u16) -> bool;

    /// Lets the device look into queue `index` (§2.9). `position` goes with it if the device wants that.
    fn notify(&mut self, index: u16, position: Option<u16>);

    /// Reads, and so acknowledges, why the device has interrupted (§4.1.4.5, §4.2.2).
    fn take_interrupt(&mut self) -> Interrupt;

    /// Changes whenever the configuration does (§2.5.1).
    fn config_generation(&self) -> u32;

    /// The byte at `offset` of the configuration; `None` where there is none.
    fn config_u8(&self, offset: usize) -> Option<u8>;

    /// The 16-bit word at `offset` of the configuration.
    fn config_u16(&self, offset: usize) -> Option<u16>;

    /// The 32-bit word at `offset` of the configuration.
    fn config_u32(&self, offset: usize) -> Option<u32>;

    /// Writes the 32-bit word at `offset` of the configuration; nothing where there is none.
    fn set_config_u32(&mut self, offset: usize, value: u32);
}

bitflags::bitflags! {
    /// Why a device interrupts.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Interrupt: u32 {
        /// A buffer was used.
        const QUEUE = 1;
        /// The configuration changed.
        const CONFIG = 2;
    }
}

/// Attempts to read a configuration that keeps changing meanwhile.
const CONFIG_READS: u32 = 16;

/// A configuration read as one piece, though it is read word by word (§2.5.1).
///
/// # Errors
/// The device changes it each time.
pub fn read_config<R>(
    transport: &dyn Transport,
    read: impl Fn(&dyn Transport) -> Result<R, Error>,
) -> Result<R, Error> {
    for _ in 0..CONFIG_READS {
        let before = transport.config_generation();
        let result = read(transport);
        if transport.config_generation() == before {
            return result;
        }
    }
    let field = &Field { name: "generation", expected: "to stand still" };
    Err(Error::BadConfig { field, found: CONFIG_READS.into() })
}
