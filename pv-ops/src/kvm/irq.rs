//! The end of an interrupt without an exit (msr.rst, MSR_KVM_PV_EOI_EN).
//! Neighbours: `mod` (has the instructions), `area` (the word), `native` (the register that is written else).
//!
//! The host sets a bit in a word of this CPU when the interrupt that it injects needs no end of its own; the guest
//! clears the bit, and where it was set leaves the local APIC's register alone. The host looks and changes while the
//! CPU is stopped, so that no locked instruction is needed.

use super::{
    area::{self, Area},
    features::PV_EOI,
    msr,
};
use core::sync::atomic::Ordering;

/// Registers a CPU's word.
pub(super) fn register(area: &'static Area) {
    let Some(physical) = area::physical(&area.eoi).filter(|_| PV_EOI.is_wanted()) else { return };
    // SAFETY: it is offered; the host changes 4 bytes, which are an atomic for nothing else.
    unsafe { msr::write(msr::PV_EOI_EN, physical | msr::ENABLE) };
    PV_EOI.set_used();
}

/// Whether the interrupt in service on `cpu`, which is to be the CPU that asks, needs no end: the next
/// [`eoi`](crate::eoi) will be a change of memory and nothing else.
pub fn needs_no_end(cpu: u32) -> bool {
    area::of(cpu).is_some_and(|area| area.eoi.load(Ordering::Relaxed) & 1 != 0)
}
