//! What the guest talks to: drivers that know no kernel and no hypervisor.
//!
//! A driver reaches its device through two small things that its caller supplies: [`hal::PortIo`] for port I/O
//! and [`mmio::Mmio`] for memory. So every driver here is tested on the host against a device that the test
//! plays.
//!
//! | module | device |
//! |---|---|
//! | [`serial`] | 16550 UART: console, both directions |
//! | [`text`] | console on a linear framebuffer, or on VGA text mode |
//! | [`keyboard`] | PS/2 keyboard behind an i8042 controller |
//! | [`rtc`] | CMOS real-time clock |
//!
//! All of these are emulated hardware, each missing on some machine: `probe` says so in an [`Error`] after a
//! bounded number of accesses, and never waits for an answer that does not come.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod class;
pub mod hal;
pub mod mmio;

pub mod keyboard;
pub mod rtc;
pub mod serial;
pub mod text;

mod error;
#[cfg(test)]
mod fake;

pub use error::Error;
