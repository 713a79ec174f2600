//! What the guest talks to: drivers that know no kernel and no hypervisor.
//!
//! A driver reaches its device through what its caller supplies: [`hal::PortIo`] for port I/O, [`mmio::Mmio`] for
//! device memory, [`hal::Hal`] for memory that a device reads and writes by itself ([`dma`]). So every driver here is
//! tested on the host against a device that the test plays. What the kernel sees of them stands in [`class`].
//!
//! | module | device |
//! |---|---|
//! | [`serial`] | 16550 UART: console, both directions |
//! | [`text`] | console on a linear framebuffer, or on VGA text mode |
//! | [`keyboard`] | PS/2 keyboard behind an i8042 controller |
//! | [`rtc`] | CMOS real-time clock |
//! | [`pci`] | the bus: enumeration, BARs, capabilities, MSI-X |
//! | [`virtio`] | block devices and entropy sources of a hypervisor |
//! | [`xen`] | what Xen's domains share: console, xenstore, and the bus of devices that other domains serve |
//!
//! Each is missing on some machine: `probe` says so in an [`Error`] after a bounded number of accesses, and never
//! waits for an answer that does not come.
#![cfg_attr(not(any(test, feature = "script")), no_std)]

extern crate alloc;

pub mod class;
pub mod dma;
pub mod hal;
pub mod mmio;

pub mod pci;
pub mod virtio;

pub mod keyboard;
pub mod rtc;
pub mod serial;
pub mod text;
pub mod xen;

mod error;
#[cfg(test)]
mod fake;

pub use error::{Error, Field};
