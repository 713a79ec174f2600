//! I/O APIC: routes device lines to the local APIC of a CPU (Intel 82093AA datasheet §3).
//! Neighbours: `acpi::madt` (where they are), `controller` (what the kernel asks).

use super::controller::{Controller, Signal};
use crate::{
    mm::map::{self, Caching, MapError},
    sync::IrqMutex,
};
use alloc::{format, string::String};
use core::{ops::Range, ptr::NonNull};
use volatile::VolatilePtr;

/// Where a PC has its only one, if no table tells.
pub const DEFAULT_ADDRESS: u64 = 0xfec0_0000;

/// Registers behind the window (§3.2).
const VERSION: u8 = 0x01;
const REDIRECTION_TABLE: u8 = 0x10;

/// Redirection entry, low half (§3.2.4).
const ACTIVE_LOW: u32 = 1 << 13;
const LEVEL_TRIGGERED: u32 = 1 << 15;
const MASKED: u32 = 1 << 16;
/// High half: the destination's APIC ID.
const DESTINATION: u32 = 24;
/// The register index has 8 bits and an entry needs two: no more fit.
const MAX_LINES: u32 = 120;

/// Index and data register: two 32-bit registers 16 bytes apart.
struct Window(NonNull<u32>);

// SAFETY: the registers are the same from every CPU, and the lock around `Window` orders the accesses.
unsafe impl Send for Window {}

impl Window {
    fn select(&mut self, register: u8) -> VolatilePtr<'_, u32> {
        // SAFETY: `map::device` mapped this page for good, uncached, for this object alone.
        let index = unsafe { VolatilePtr::new(self.0) };
        index.write(register.into());
        // SAFETY: as above; the data register is 16 bytes on, in the same page.
        unsafe { VolatilePtr::new(self.0.add(4)) }
    }

    fn read(&mut self, register: u8) -> u32 {
        self.select(register).read()
    }

    fn write(&mut self, register: u8, value: u32) {
        self.select(register).write(value);
    }
}

/// One I/O APIC.
pub struct IoApic {
    name: String,
    lines: Range<u32>,
    window: IrqMutex<Window>,
}

/// Why an I/O APIC is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Its registers cannot be mapped.
    #[error("registers: {0}")]
    Map(#[from] MapError),
    /// What answers is none.
    #[error("version register reads {0:#010x}: not an I/O APIC")]
    Version(u32),
}

impl IoApic {
    /// Takes over the controller whose registers are at `address` and masks all its lines, of which the first has
    /// the number `first_gsi`.
    pub fn probe(address: u64, first_gsi: u32) -> Result<Self, Error> {
        let registers = map::device(address, 0x20, Caching::Uncached)?;
        let mut window = Window(registers.cast());
        let version = window.read(VERSION);
        let lines = (version >> 16 & 0xff) + 1;
        // Bits that are reserved read as zero; an empty bus reads as ones.
        if version & 0xff00_7f00 != 0 || version & 0xff == 0 || lines > MAX_LINES {
            return Err(Error::Version(version));
        }
        for line in 0..lines {
            window.write(entry(line), MASKED);
        }
        let last = first_gsi.saturating_add(lines);
        Ok(Self {
            name: format!("I/O APIC {address:#x}"),
            lines: first_gsi..last,
            window: IrqMutex::new(window),
        })
    }

    /// Changes the low half of the entry of `line`, if it is one of ours.
    fn change(&self, line: u32, change: impl FnOnce(u32) -> u32) {
        if self.lines.contains(&line) {
            let register = entry(line - self.lines.start);
            let mut window = self.window.lock();
            let value = window.read(register);
            window.write(register, change(value));
        }
    }
}

/// The register with the low half of the entry of the controller's own line `line`; the high half is the next.
fn entry(line: u32) -> u8 {
    REDIRECTION_TABLE + 2 * line as u8
}

/// The low half of an entry that is still masked: fixed delivery, physical destination.
fn masked_entry(vector: u8, signal: Signal) -> u32 {
    let polarity = if signal.active_low { ACTIVE_LOW } else { 0 };
    let trigger = if signal.level { LEVEL_TRIGGERED } else { 0 };
    u32::from(vector) | polarity | trigger | MASKED
}

impl Controller for IoApic {
    fn name(&self) -> &str {
        &self.name
    }

    fn lines(&self) -> Range<u32> {
        self.lines.clone()
    }

    fn route(&self, line: u32, signal: Signal, vector: u8, apic_id: u32) {
        self.mask(line);
        if self.lines.contains(&line) {
            let register = entry(line - self.lines.start);
            let mut window = self.window.lock();
            window.write(register + 1, apic_id << DESTINATION);
            window.write(register, masked_entry(vector, signal));
        }
    }

    fn mask(&self, line: u32) {
        self.change(line, |entry| entry | MASKED);
    }

    fn unmask(&self, line: u32) {
        self.change(line, |entry| entry & !MASKED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_starts_masked_with_the_lines_signal() {
        let pci = Signal { level: true, active_low: true };
        assert_eq!(masked_entry(0x31, pci), 0x1_a031);
        assert_eq!(masked_entry(0x31, Signal::default()), 0x1_0031);
    }

    #[test]
    fn the_last_line_still_has_a_register() {
        assert_eq!(u32::from(entry(MAX_LINES - 1)) + 1, 0xff);
    }
}
