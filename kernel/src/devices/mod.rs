//! What this machine has: each kind of device is looked for, and put to use where it is.
//!
//! Files: `legacy` (a PC's emulated hardware) · `pci` (the bus) · `virtio` (a hypervisor's devices, on PCI and
//! without a bus) · `wiring` (their interrupts) · `block`, `entropy` and so on (the devices of a kind, for apps).
//! Neighbours: `drivers` (how each is driven), `platform` (what they ask of this kernel).
//!
//! Only a screen is looked for at the start. Serial line and keyboard are brought up when somebody first reads, the clock chip
//! is read when somebody asks for the date, the buses are walked when somebody asks for a device that is on one, and
//! then devices of that kind are brought up. So an app carries no driver that it does not use, and starts without it.
#![forbid(unsafe_code)]

pub mod balloon;
pub mod block;
pub mod console;
pub mod entropy;
mod habit;
mod legacy;
pub mod net;
mod pci;
pub mod survey;
mod virtio;
mod wiring;

use alloc::boxed::Box;
use core::fmt::Display;

use drivers::{
    dma::DmaBuffer,
    hal::Hal,
    virtio::{DeviceId, transport::Transport},
};

use crate::{platform::Platform, sync::OnceCell};

pub(crate) use habit::Habit;

/// Why a device that may be there is not used. Told to people only, so the text is all that is kept.
type Failure = Box<dyn Display>;

/// What was sent to and fro so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that the device took, or buffers.
    pub requests: u64,
    /// Notifications sent to the device.
    pub notifications: u64,
    /// Interrupts that came.
    pub interrupts: u64,
}

fn failure(error: impl Display + 'static) -> Failure {
    Box::new(error)
}

/// Finds the screen, if the command line wants it, and what a hypervisor has for text.
pub fn probe(info: &boot::Info) {
    legacy::probe(info);
}

/// Brings up what text comes from: the serial line and the keyboard. For who is about to read.
pub(crate) fn bring_up_inputs() {
    legacy::bring_up_inputs();
}

/// Asks the machine's clock chip for the date, if that was not done yet. For who wants to know, where no hypervisor tells.
pub(crate) fn read_clock() {
    legacy::read_clock();
}

/// Walks the buses, once: what is there is noted for who drives its kind.
fn walk_buses() {
    static WALKED: OnceCell<()> = OnceCell::uninit();
    WALKED.init_once(|| {
        virtio::walk();
    });
}

/// The registers of the last virtio device of `kind` that nobody drives, for an app that drives it by itself, without
/// interrupts; `None` if there is none.
pub fn bare(kind: DeviceId) -> Option<Box<dyn Transport>> {
    virtio::bare(kind)
}

/// A buffer of `len_bytes` zeroed bytes for requests to devices, 4 MiB at most.
///
/// # Errors
/// There is no memory in one piece.
pub fn buffer(len_bytes: usize) -> Result<DmaBuffer, drivers::Error> {
    let hal: &dyn Hal = &Platform;
    hal.buffer(len_bytes)
}
