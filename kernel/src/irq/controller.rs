//! What the kernel asks of an interrupt controller: lines that can be routed, masked and unmasked.
//!
//! The end of an interrupt is not asked here: it is a pv-op (`pv_ops::eoi`), patched into the dispatcher.
//! Neighbours: `ioapic` (the native one), `mod` (who asks).
#![forbid(unsafe_code)]

pub use crate::acpi::madt::Signal;
use core::ops::Range;

/// A controller with numbered lines (global system interrupts).
pub trait Controller: Sync {
    /// What it is called.
    fn name(&self) -> &str;

    /// The lines it has.
    fn lines(&self) -> Range<u32>;

    /// Sends `line`, which signals like `signal`, as `vector` to the CPU with this APIC ID, once it is let through.
    fn route(&self, line: u32, signal: Signal, vector: u8, apic_id: u32);

    /// Holds `line` back.
    fn mask(&self, line: u32);

    /// Lets `line` through.
    fn unmask(&self, line: u32);

    /// Masks every line that was not let through.
    fn silence(&self);
}
