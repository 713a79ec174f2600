//! Counters whose rate is known: HPET, the 8254's channel 2, the ACPI PM timer.
//! Neighbours: `calibrate` (which measures against them), `acpi` (where they are).
#![forbid(unsafe_code)]

use drivers::mmio::Mmio;

use super::calibrate::{self, Counter, Measurement, Reference, Tick, measure};
use crate::{
    acpi::{fadt, hpet::Hpet},
    cpu::timer_ports,
    irq::apic::LocalApic,
    mm::{map::Caching, mmio},
};

/// Of the 8254, in Hz.
pub(super) const PIT_HZ: u64 = 1_193_182;
/// Of the ACPI PM timer, in Hz (ACPI 6.5 §4.8.3.3).
pub(super) const PM_TIMER_HZ: u64 = 3_579_545;

/// How long to measure the TSC: long enough for a small error, short enough for a fast start.
const INTERVAL_NS: u64 = 1_000_000;

/// HPET registers at 0x4, 0x10 and 0xf0 as 32-bit words (IA-PC HPET Specification 1.0a §2.3.2).
const HPET_LEN: usize = 0x400;
const HPET_PERIOD: usize = 1;
const HPET_CONFIGURATION: usize = 4;
const HPET_COUNTER: usize = 60;
const HPET_ENABLE: u32 = 1 << 0;
/// The longest period that the specification allows, in femtoseconds.
const HPET_MAX_PERIOD_FS: u32 = 100_000_000;
/// A shorter one than this is not believed: 10 GHz.
const HPET_MIN_PERIOD_FS: u32 = 100_000;
const FS_PER_S: u64 = 1_000_000_000_000_000;

/// A measurement against the HPET that has begun.
#[derive(Debug)]
pub(super) struct ByHpet {
    registers: Mmio<u32>,
    configuration: u32,
    hz: u64,
    start: Tick,
}

impl ByHpet {
    /// Begins to measure `counter`.
    pub(super) fn begin(hpet: &Hpet, counter: Counter<'_>) -> Option<Self> {
        if hpet.address == 0 {
            return None;
        }
        let registers = mmio::device(hpet.address, HPET_LEN, Caching::Uncached)
            .inspect_err(|error| log::warn!("HPET at {:#x}: {error}", hpet.address))
            .ok()?;
        let mut registers = registers.into_words::<u32>()?;
        let period_fs = registers.read(HPET_PERIOD);
        if !(HPET_MIN_PERIOD_FS..=HPET_MAX_PERIOD_FS).contains(&period_fs) {
            log::warn!("HPET at {:#x}: period {period_fs} fs: ignored", hpet.address);
            return None;
        }
        let configuration = registers.read(HPET_CONFIGURATION);
        registers.write(HPET_CONFIGURATION, configuration | HPET_ENABLE);
        let hz = FS_PER_S / u64::from(period_fs);
        let start = with_hpet(&registers, hz, |reference| calibrate::begin(counter, reference));
        if start.is_none() {
            registers.write(HPET_CONFIGURATION, configuration);
        }
        Some(Self { registers, configuration, hz, start: start? })
    }

    /// Ends it.
    pub(super) fn end(mut self, counter: Counter<'_>) -> Option<Measurement> {
        let end = |reference: &mut Reference<'_>| calibrate::end(self.start, counter, reference, INTERVAL_NS);
        let result = with_hpet(&self.registers, self.hz, end);
        self.registers.write(HPET_CONFIGURATION, self.configuration);
        result
    }
}

fn with_hpet<R>(registers: &Mmio<u32>, hz: u64, act: impl FnOnce(&mut Reference<'_>) -> R) -> R {
    // The low half: it wraps after 40 s at the earliest, and needs no second read.
    let read = &mut || registers.read(HPET_COUNTER).into();
    act(&mut Reference { read, hz, mask: u32::MAX.into() })
}

/// Measures `counter` against channel 2 of the 8254.
pub(super) fn by_pit(counter: Counter<'_>) -> Option<Measurement> {
    timer_ports::pit_start();
    // It counts down.
    let read = &mut || u64::from(!timer_ports::pit_count());
    let result = measure(counter, &mut Reference { read, hz: PIT_HZ, mask: u16::MAX.into() }, INTERVAL_NS);
    timer_ports::pit_stop();
    result
}

/// Measures `counter` against the ACPI PM timer.
pub(super) fn by_pm_timer(fadt: &fadt::Fadt, counter: Counter<'_>) -> Option<Measurement> {
    let Some(fadt::Register::Port(port)) = fadt.pm_timer else { return None };
    let read = &mut || timer_ports::pm_timer_count(port).into();
    // 24 bits count in every timer; a second is far below their 4.7 s.
    measure(counter, &mut Reference { read, hz: PM_TIMER_HZ, mask: 0xff_ffff }, INTERVAL_NS)
}

/// Measures `counter` against the local APIC's timer, taking its rate for `hz`.
pub(super) fn by_local_apic(apic: &LocalApic, hz: u64, counter: Counter<'_>) -> Option<Measurement> {
    apic.start_count();
    let read = &mut || apic.counted().into();
    let result = measure(counter, &mut Reference { read, hz, mask: u32::MAX.into() }, INTERVAL_NS);
    apic.stop_count();
    result
}
