//! What this machine has: each kind of device is looked for, and put to use where it is.
//!
//! Files: `legacy` (a PC's emulated hardware) · `pci` (the bus) · `virtio` (a hypervisor's devices, on PCI and
//! without a bus) · `block`, `entropy`, `net` (the devices that were found, for apps). Neighbours: `drivers` (how each is driven),
//! `platform` (what they ask of this kernel).
//!
//! A PC's own devices are looked for at the start; the buses when somebody first asks for a device that is on one. So
//! an app without a disk neither carries a driver for disks nor waits until the buses were walked.
#![forbid(unsafe_code)]

pub mod block;
pub mod entropy;
mod legacy;
pub mod net;
mod pci;
mod virtio;

use alloc::boxed::Box;
use core::fmt::Display;

use drivers::{dma::DmaBuffer, hal::Hal};

use crate::{platform::Platform, sync::OnceCell};

/// Why a device that may be there is not used. Told to people only, so the text is all that is kept.
type Failure = Box<dyn Display>;

fn failure(error: impl Display + 'static) -> Failure {
    Box::new(error)
}

/// Finds the consoles that the command line wants, the keyboard and the clock.
pub fn probe(info: &boot::Info) {
    legacy::probe(info);
}

/// Brings up what is on the buses, once.
fn probe_buses() {
    static PROBED: OnceCell<()> = OnceCell::uninit();
    PROBED.init_once(|| {
        pci::probe();
        virtio::probe(crate::app::cmdline());
        crate::xen::probe_bus();
    });
}

/// A buffer of `len_bytes` zeroed bytes for requests to devices, 4 MiB at most.
///
/// # Errors
/// There is no memory in one piece.
pub fn buffer(len_bytes: usize) -> Result<DmaBuffer, drivers::Error> {
    let hal: &dyn Hal = &Platform;
    hal.buffer(len_bytes)
}
