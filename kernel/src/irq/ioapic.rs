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

/// Index and data register: two 32-bit registers 16 bytes apart; and what the entries hold.
struct Window {
    registers: NonNull<u32>,
    entries: Entries,
}

// SAFETY: the registers are the same from every CPU, and the lock around `Window` orders the accesses.
unsafe impl Send for Window {}

impl Window {
    fn select(&mut self, register: u8) -> VolatilePtr<'_, u32> {
        // SAFETY: `map::device` mapped this page for good, uncached, for this object alone.
        let index = unsafe { VolatilePtr::new(self.registers) };
        index.write(register.into());
        // SAFETY: as above; the data register is 16 bytes on, in the same page.
        unsafe { VolatilePtr::new(self.registers.add(4)) }
    }

    fn read(&mut self, register: u8) -> u32 {
        self.select(register).read()
    }

    fn write(&mut self, register: u8, value: u32) {
        self.select(register).write(value);
    }

    /// Has `line`'s entry, if it must, hold this.
    fn settle(&mut self, line: u32, value: Option<u32>) {
        if let Some(value) = value {
            self.write(entry(line), value);
        }
    }
}

/// The low halves of the entries, as they were written; 0 for one that is as the firmware left it: masked, as far as anybody
/// knows. So a register is written, two exits in a guest, when a line is let through or held back, and never read.
struct Entries([u32; MAX_LINES as usize]);

impl Entries {
    /// What to write so that nothing of the old road is sent on the new one; the new one is taken by [`change`](Self::change).
    fn route(&mut self, line: u32, vector: u8, signal: Signal) -> Option<u32> {
        let hold = self.change(line, true);
        self.0[line as usize] = masked_entry(vector, signal);
        hold
    }

    /// What to write so that `line`, which has a road, is held back, or let through.
    fn change(&mut self, line: u32, masked: bool) -> Option<u32> {
        let entry = &mut self.0[line as usize];
        let changed = if masked { *entry | MASKED } else { *entry & !MASKED };
        if *entry == 0 || *entry == changed {
            return None;
        }
        *entry = changed;
        Some(changed)
    }

    /// What to write so that `line` is silent unless it was let through.
    fn silence(&self, line: u32) -> Option<u32> {
        let entry = self.0[line as usize];
        (entry == 0 || entry & MASKED != 0).then_some(entry | MASKED)
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
    /// Takes over the controller whose registers are at `address`, and of whose lines the first has the number `first_gsi`.
    /// They stay as they are, which is masked: who knows better masks them all ([`Controller::silence`]).
    pub fn probe(address: u64, first_gsi: u32) -> Result<Self, Error> {
        let registers = map::device(address, 0x20, Caching::Uncached)?;
        let entries = Entries([0; MAX_LINES as usize]);
        let mut window = Window { registers: registers.cast(), entries };
        let version = window.read(VERSION);
        let lines = (version >> 16 & 0xff) + 1;
        // Bits that are reserved read as zero; an empty bus reads as ones.
        if version & 0xff00_7f00 != 0 || version & 0xff == 0 || lines > MAX_LINES {
            return Err(Error::Version(version));
        }
        let last = first_gsi.saturating_add(lines);
        Ok(Self {
            name: format!("I/O APIC {address:#x}"),
            lines: first_gsi..last,
            window: IrqMutex::new(window),
        })
    }

    /// Calls `act` with the controller's own number for `line`, if it is one of ours.
    fn with(&self, line: u32, act: impl FnOnce(&mut Window, u32)) {
        if self.lines.contains(&line) {
            act(&mut self.window.lock(), line - self.lines.start);
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
        self.with(line, |window, line| {
            let hold = window.entries.route(line, vector, signal);
            window.settle(line, hold);
            window.write(entry(line) + 1, apic_id << DESTINATION);
        });
    }

    fn mask(&self, line: u32) {
        self.with(line, |window, line| {
            let value = window.entries.change(line, true);
            window.settle(line, value);
        });
    }

    fn unmask(&self, line: u32) {
        self.with(line, |window, line| {
            let value = window.entries.change(line, false);
            window.settle(line, value);
        });
    }

    fn silence(&self) {
        for line in self.lines.clone() {
            self.with(line, |window, line| {
                let value = window.entries.silence(line);
                window.settle(line, value);
            });
        }
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
    fn an_entry_is_written_when_its_line_is_let_through_or_held_back() {
        let mut entries = Entries([0; MAX_LINES as usize]);
        assert_eq!((entries.change(3, true), entries.change(3, false)), (None, None), "it has no road");
        assert_eq!(entries.route(3, 0x31, Signal::default()), None);
        assert_eq!((entries.change(3, false), entries.change(3, false)), (Some(0x31), None));
        assert_eq!(
            entries.route(3, 0x32, Signal::default()),
            Some(0x1_0031),
            "what was let through is held back first"
        );
        assert_eq!((entries.change(3, false), entries.change(3, true)), (Some(0x32), Some(0x1_0032)));
    }

    #[test]
    fn all_lines_fall_silent_but_those_that_were_let_through() {
        let mut entries = Entries([0; MAX_LINES as usize]);
        entries.route(1, 0x31, Signal::default());
        entries.route(2, 0x32, Signal::default());
        entries.change(2, false);
        assert_eq!([0, 1, 2].map(|line| entries.silence(line)), [Some(MASKED), Some(MASKED | 0x31), None]);
    }

    #[test]
    fn the_last_line_still_has_a_register() {
        assert_eq!(u32::from(entry(MAX_LINES - 1)) + 1, 0xff);
    }
}
