//! Counters whose rate is known: HPET, the 8254's channel 2, the ACPI PM timer.
//! Neighbours: `calibrate` (which measures against them), `acpi` (where they are).
#![forbid(unsafe_code)]

use super::calibrate::{self, Measurement, Reference};
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

/// Measures the TSC against the HPET.
pub(super) fn by_hpet(hpet: &Hpet) -> Option<Measurement> {
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
    // The low half: it wraps after 40 s at the earliest, and needs no second read.
    let read = &mut || registers.read(HPET_COUNTER).into();
    let result = measure(Reference { read, hz: FS_PER_S / u64::from(period_fs), mask: u32::MAX.into() });
    registers.write(HPET_CONFIGURATION, configuration);
    result
}

/// Measures the TSC against channel 2 of the 8254.
pub(super) fn by_pit() -> Option<Measurement> {
    timer_ports::pit_start();
    // It counts down.
    let read = &mut || u64::from(!timer_ports::pit_count());
    let result = measure(Reference { read, hz: PIT_HZ, mask: u16::MAX.into() });
    timer_ports::pit_stop();
    result
}

/// Measures the TSC against the ACPI PM timer.
pub(super) fn by_pm_timer(fadt: &fadt::Fadt) -> Option<Measurement> {
    let Some(fadt::Register::Port(port)) = fadt.pm_timer else { return None };
    let read = &mut || timer_ports::pm_timer_count(port).into();
    // 24 bits count in every timer; a second is far below their 4.7 s.
    measure(Reference { read, hz: PM_TIMER_HZ, mask: 0xff_ffff })
}

/// Measures the TSC against the local APIC's timer, taking its rate for `hz`.
pub(super) fn by_local_apic(apic: &LocalApic, hz: u64) -> Option<Measurement> {
    apic.start_count();
    let read = &mut || apic.counted().into();
    let result = measure(Reference { read, hz, mask: u32::MAX.into() });
    apic.stop_count();
    result
}

fn measure(reference: Reference) -> Option<Measurement> {
    calibrate::measure(&mut pv_ops::rdtsc, reference, INTERVAL_NS)
}
