//! The rate of the time stamp counter: told by CPUID, else measured.
//!
//! The order: what the hypervisor's own interface tells (Xen's clock), CPUID 0x15 with 0x16 (Intel SDM vol. 2A), the
//! hypervisors' timing leaf 0x40000010, the hypervisor's clock page (kvmclock), HPET, 8254, ACPI PM timer, CPUID 0x16
//! alone, the local APIC's timer at the rate that hypervisors give it. What a machine tells is
//! believed only between 1 MHz and 100 GHz.
//! Neighbours: `reference` and `calibrate` (the measuring), `pv_ops::native::time` (who uses the rate).
#![forbid(unsafe_code)]

use super::{
    calibrate::Measurement,
    reference::{self, ByHpet},
};
use crate::{acpi::Tables, cpu::host_clock, hypervisor, irq::apic::LocalApic};
use core::{arch::x86_64::CpuidResult, fmt};

/// Rates that a TSC may have.
const PLAUSIBLE_HZ: core::ops::RangeInclusive<u64> = 1_000_000..=100_000_000_000;

/// Where the rate is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// CPUID leaf 0x15, with 0x16 where the crystal's rate is not told.
    CpuidTsc,
    /// The hypervisor's own interface, or its timing leaf 0x40000010.
    Hypervisor,
    /// The hypervisor's clock page (pvclock).
    ClockPage,
    /// Measured against the HPET.
    Hpet,
    /// Measured against the 8254.
    Pit,
    /// Measured against the ACPI PM timer.
    PmTimer,
    /// The base frequency of CPUID leaf 0x16, which is nearly that of the TSC.
    CpuidBase,
    /// Measured against the local APIC's timer, assuming 1 GHz.
    LocalApic,
    /// Nothing is known.
    Assumed,
}

/// The rate of the TSC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Ticks per second.
    pub hz: u64,
    /// How far it can be off, in parts per million; 0 when it was told.
    pub error_ppm: u64,
    /// Where it is from.
    pub source: Source,
}

/// The clock that KVM, QEMU and others give the local APIC's timer.
const HYPERVISOR_APIC_HZ: u64 = 1_000_000_000;
/// The rate when there is nothing to go by: time runs, at the wrong speed.
const ASSUMED_HZ: u64 = 1_000_000_000;

/// The rate as far as it is known before interrupts are up.
#[derive(Debug)]
pub(crate) struct Measuring(Way);

#[derive(Debug)]
enum Way {
    /// Somebody tells it.
    Told(Rate),
    /// It is being measured against the HPET.
    Hpet(ByHpet),
    /// The rest is to be tried.
    NotYet,
}

/// Asks who may know the rate, and else begins to measure.
pub(super) fn begin(tables: &Tables) -> Measuring {
    let way = (hypervisor::services().tsc_hz)()
        .and_then(|hz| told(hz, Source::Hypervisor))
        .or_else(|| told(cpuid_hz(pv_ops::cpuid)?, Source::CpuidTsc))
        .or_else(|| told(hypervisor_hz(pv_ops::cpuid)?, Source::Hypervisor))
        .or_else(|| told(host_clock::tsc_hz()?, Source::ClockPage))
        .map(Way::Told)
        .or_else(|| ByHpet::begin(tables.hpet.as_ref()?, &mut pv_ops::rdtsc).map(Way::Hpet))
        .unwrap_or(Way::NotYet);
    Measuring(way)
}

/// Finds the rate.
pub(super) fn find(measuring: Measuring, tables: &Tables, local_apic: Option<&LocalApic>) -> Rate {
    let tsc = &mut pv_ops::rdtsc;
    let begun = match measuring.0 {
        Way::Told(rate) => Some(rate),
        Way::Hpet(by_hpet) => by_hpet.end(tsc).and_then(|result| measured(result, Source::Hpet)),
        Way::NotYet => None,
    };
    begun
        .or_else(|| measured(reference::by_pit(tsc)?, Source::Pit))
        .or_else(|| measured(reference::by_pm_timer(tables.fadt.as_ref()?, tsc)?, Source::PmTimer))
        .or_else(|| told(base_hz(pv_ops::cpuid)?, Source::CpuidBase))
        .or_else(|| {
            measured(reference::by_local_apic(local_apic?, HYPERVISOR_APIC_HZ, tsc)?, Source::LocalApic)
        })
        .unwrap_or(Rate { hz: ASSUMED_HZ, error_ppm: 0, source: Source::Assumed })
}

fn told(hz: u64, source: Source) -> Option<Rate> {
    measured(Measurement { hz, error_ppm: 0 }, source)
}

/// A rate, if it can be one.
fn measured(Measurement { hz, error_ppm }: Measurement, source: Source) -> Option<Rate> {
    PLAUSIBLE_HZ.contains(&hz).then_some(Rate { hz, error_ppm, source })
}

/// Leaf 0x15: TSC to crystal ratio EBX / EAX, crystal rate ECX; leaf 0x16: base frequency EAX in MHz.
fn cpuid_hz(cpuid: impl Fn(u32, u32) -> CpuidResult) -> Option<u64> {
    if cpuid(0, 0).eax < 0x15 {
        return None;
    }
    let ratio = cpuid(0x15, 0);
    if ratio.eax == 0 || ratio.ebx == 0 {
        return None;
    }
    match ratio.ecx {
        // The crystal is not told, but what comes out of the multiplication is the base frequency.
        0 => base_hz(cpuid),
        crystal_hz => Some(u64::from(crystal_hz) * u64::from(ratio.ebx) / u64::from(ratio.eax)),
    }
}

fn base_hz(cpuid: impl Fn(u32, u32) -> CpuidResult) -> Option<u64> {
    let highest = cpuid(0, 0).eax;
    let mhz = if highest < 0x16 { 0 } else { cpuid(0x16, 0).eax & 0xffff };
    (mhz != 0).then_some(u64::from(mhz) * 1_000_000)
}

/// Leaf 0x40000010, EAX: TSC rate in kHz. First told by VMware, then by KVM and others; only where the range of
/// hypervisor leaves reaches so far.
fn hypervisor_hz(cpuid: impl Fn(u32, u32) -> CpuidResult) -> Option<u64> {
    const HYPERVISOR_PRESENT: u32 = 1 << 31;
    const FIRST: u32 = 0x4000_0000;
    const TIMING: u32 = 0x4000_0010;
    if cpuid(1, 0).ecx & HYPERVISOR_PRESENT == 0 || !(TIMING..FIRST + 0x100).contains(&cpuid(FIRST, 0).eax) {
        return None;
    }
    Some(u64::from(cpuid(TIMING, 0).eax) * 1000).filter(|&hz| hz != 0)
}

impl fmt::Display for Rate {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        let Self { hz, error_ppm, source } = self;
        write!(out, "TSC {}.{:03} MHz", hz / 1_000_000, hz / 1000 % 1000)?;
        match source {
            Source::CpuidTsc => write!(out, " by CPUID 0x15"),
            Source::Hypervisor => write!(out, " by the hypervisor"),
            Source::ClockPage => write!(out, " by the hypervisor's clock page"),
            Source::Hpet => write!(out, " by HPET (+-{error_ppm} ppm)"),
            Source::Pit => write!(out, " by PIT (+-{error_ppm} ppm)"),
            Source::PmTimer => write!(out, " by PM timer (+-{error_ppm} ppm)"),
            Source::CpuidBase => write!(out, " by CPUID 0x16"),
            Source::LocalApic => write!(out, " if the local APIC's timer runs at 1 GHz (+-{error_ppm} ppm)"),
            Source::Assumed => write!(out, " assumed: no timer to measure it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(eax: u32, ebx: u32, ecx: u32) -> CpuidResult {
        CpuidResult { eax, ebx, ecx, edx: 0 }
    }

    #[test]
    fn cpuid_tells_the_rate_by_crystal_and_ratio() {
        let with_crystal = |number, _| match number {
            0 => leaf(0x16, 0, 0),
            0x15 => leaf(2, 168, 25_000_000),
            _ => leaf(0, 0, 0),
        };
        assert_eq!(cpuid_hz(with_crystal), Some(2_100_000_000));
        let without_crystal = |number, _| match number {
            0 => leaf(0x16, 0, 0),
            0x15 => leaf(2, 168, 0),
            0x16 => leaf(2100, 3000, 100),
            _ => leaf(0, 0, 0),
        };
        assert_eq!(cpuid_hz(without_crystal), Some(2_100_000_000));
        let too_old = |number, _| if number == 0 { leaf(0x14, 0, 0) } else { leaf(1, 1, 1) };
        assert_eq!((cpuid_hz(too_old), base_hz(too_old)), (None, None));
        let no_ratio = |number, _| if number == 0 { leaf(0x16, 0, 0) } else { leaf(0, 0, 0) };
        assert_eq!((cpuid_hz(no_ratio), base_hz(no_ratio)), (None, None));
    }

    #[test]
    fn the_timing_leaf_counts_only_if_the_hypervisor_has_so_many() {
        let machine = |present: u32, highest: u32| {
            move |number, _| match number {
                1 => leaf(0, 0, present << 31),
                0x4000_0000 => leaf(highest, 0, 0),
                0x4000_0010 => leaf(2_300_000, 0, 0),
                _ => leaf(0, 0, 0),
            }
        };
        assert_eq!(hypervisor_hz(machine(1, 0x4000_0010)), Some(2_300_000_000));
        assert_eq!(hypervisor_hz(machine(1, 0x4000_0001)), None);
        assert_eq!(hypervisor_hz(machine(0, 0x4000_0010)), None, "no hypervisor: the leaf is something else");
        assert_eq!(hypervisor_hz(machine(1, 0xffff_ffff)), None);
    }
}
