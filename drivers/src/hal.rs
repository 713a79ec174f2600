//! What a driver asks of its caller: I/O ports, memory for DMA, device memory, and a lock.
#![forbid(unsafe_code)]

use core::sync::atomic::{Ordering::SeqCst, fence};

use crate::{
    dma::{Dma, DmaBuffer},
    error::Error,
    mmio::Mmio,
};

/// Byte access to the I/O ports of one device.
///
/// An implementation reaches the ports of the device it was made for and no others, so a driver that holds one
/// can do to the machine what that device can do, and no more.
pub trait PortIo {
    /// Reads a byte from `port`. Where no device answers, a PC reads 0xff.
    #[doc(alias = "inb")]
    fn read_u8(&self, port: u16) -> u8;

    /// Writes `value` to `port`.
    #[doc(alias = "outb")]
    fn write_u8(&self, port: u16, value: u8);

    /// Writes `bytes` to `port`, one after the other.
    #[doc(alias = "outsb")]
    fn write_bytes(&self, port: u16, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u8(port, byte));
    }
}

impl<P: PortIo + ?Sized> PortIo for &P {
    fn read_u8(&self, port: u16) -> u8 {
        (**self).read_u8(port)
    }

    fn write_u8(&self, port: u16, value: u8) {
        (**self).write_u8(port, value);
    }

    fn write_bytes(&self, port: u16, bytes: &[u8]) {
        (**self).write_bytes(port, bytes);
    }
}

/// Memory as a driver of a bus master needs it.
pub trait Hal: Sync {
    /// `len_bytes` zeroed bytes in one piece that devices can reach.
    ///
    /// # Errors
    /// [`Error::NoDmaMemory`].
    fn dma(&self, len_bytes: usize) -> Result<Dma, Error>;

    /// The `len_bytes` bytes of device memory at the physical address `address`, not cached.
    ///
    /// # Errors
    /// [`Error::NotDeviceMemory`] where that is RAM or no address.
    fn device_memory(&self, address: u64, len_bytes: usize) -> Result<Mmio<u8>, Error>;

    /// What orders all accesses to memory before it before all behind it, a store before a load too, as the devices see them.
    /// The CPU's own fence, unless the machine needs more.
    fn fence(&self) -> fn() {
        || fence(SeqCst)
    }
}

impl dyn Hal + '_ {
    /// A buffer of `len_bytes` zeroed bytes for requests.
    ///
    /// # Errors
    /// [`Error::NoDmaMemory`].
    pub fn buffer(&self, len_bytes: usize) -> Result<DmaBuffer, Error> {
        self.dma(len_bytes).map(DmaBuffer::new)
    }
}

/// A lock that tasks and interrupt handlers share: its holder is not interrupted on its CPU.
pub trait Lock: Send + Sync {
    /// What it guards.
    type Value;

    /// Calls `act` with the lock held.
    fn with<R>(&self, act: impl FnOnce(&mut Self::Value) -> R) -> R;
}

/// Who makes such locks, for a driver that has several.
pub trait Locks: 'static {
    /// A lock around a `T`.
    type Lock<T: Send>: Lock<Value = T>;

    /// Puts a lock around `value`.
    fn lock<T: Send>(value: T) -> Self::Lock<T>;
}
