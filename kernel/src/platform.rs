//! What drivers ask for, answered by this kernel: the only glue between `drivers` and `pv_ops`.
//! Neighbours: `cpu::port` (which ports a device may reach), `mm::mmio` (device memory), `mm::dma` (shared memory).
#![forbid(unsafe_code)]

use core::sync::atomic::{Ordering::SeqCst, fence};

use drivers::{
    Error,
    dma::Dma,
    hal::{Hal, Lock, Locks, PortIo},
    mmio::Mmio,
    pci::ConfigPorts,
};

use crate::{
    cpu::port::{PciPorts, Ports},
    mm::{Caching, dma, mmio},
    sync::IrqMutex,
};

impl PortIo for Ports {
    fn read_u8(&self, port: u16) -> u8 {
        (*self).read_u8(port)
    }

    fn write_u8(&self, port: u16, value: u8) {
        (*self).write_u8(port, value);
    }

    fn write_bytes(&self, port: u16, bytes: &[u8]) {
        (*self).write_bytes(port, bytes);
    }
}

impl ConfigPorts for PciPorts {
    fn exchange(&self, address: u32, value: Option<u32>) -> u32 {
        self.exchange(address, value)
    }
}

/// This machine, as drivers of bus masters see it.
#[derive(Clone, Copy, Debug)]
pub struct Platform;

impl Hal for Platform {
    fn dma(&self, len_bytes: usize) -> Result<Dma, Error> {
        dma::alloc(len_bytes).map_err(|_| Error::NoDmaMemory { len_bytes })
    }

    fn device_memory(&self, address: u64, len_bytes: usize) -> Result<Mmio<u8>, Error> {
        let memory = mmio::device(address, len_bytes, Caching::Uncached);
        memory.map_err(|_| Error::NotDeviceMemory { address, len_bytes })
    }

    /// On a machine with one CPU TCG leaves fences out up to QEMU 8.0 (`tcg_gen_mb`; QEMU commit c914d46d), and locked
    /// instructions are plain ones there, while its devices run on other CPUs of the host: a wish to be interrupted that is
    /// still on its way to memory would be missed, and so would the answer. What writes the flags leaves the translated code, and
    /// on that way QEMU exchanges a word of its own (`cpu_handle_interrupt`), which is a fence of the host. Elsewhere it is two
    /// instructions for nothing.
    fn fence(&self) -> fn() {
        || {
            fence(SeqCst);
            pv_ops::irq_restore(pv_ops::irq_flags());
        }
    }
}

impl<T: Send> Lock for IrqMutex<T> {
    type Value = T;

    #[inline(always)]
    fn with<R>(&self, act: impl FnOnce(&mut T) -> R) -> R {
        self.with(act)
    }
}

impl Locks for Platform {
    type Lock<T: Send> = IrqMutex<T>;

    fn lock<T: Send>(value: T) -> IrqMutex<T> {
        IrqMutex::new(value)
    }
}
