//! The rate of the time-stamp counter, from kvmclock, for a guest that runs natively under KVM (msr.rst).
//! Neighbours: `host_clock` (the caller), `pvclock` (the page), `time` (has the clock for good).

use super::{
    features::{CLOCK, CLOCKSOURCE, CLOCKSOURCE2},
    msr::{ENABLE, SYSTEM_TIME, SYSTEM_TIME_NEW},
};
use crate::{
    detect::{Hypervisors, Reader},
    pvclock::TimeInfo,
    signature::KVM,
};

/// The MSR for the clock page's address, if KVM is there and has a clock that is not in use.
pub(crate) fn clock_msr(hypervisors: &Hypervisors, read: Reader<'_>) -> Option<u32> {
    if CLOCK.is_used() {
        return None;
    }
    let features = read(hypervisors.find(KVM)?.base + 1, 0).eax;
    if features & CLOCKSOURCE2 != 0 {
        Some(SYSTEM_TIME_NEW)
    } else {
        (features & CLOCKSOURCE != 0).then_some(SYSTEM_TIME)
    }
}

/// Has the host fill `page` once, and reads the counter's rate from it.
///
/// # Safety
/// `msr` is what [`clock_msr`] gave here, and `physical` is the address of `page`, a multiple of 4.
pub(crate) unsafe fn tsc_hz(msr: u32, page: &TimeInfo, physical: u64) -> Option<u64> {
    // SAFETY: the MSR is there; the host writes the 32 bytes of `page`, whose fields are atomics.
    unsafe { crate::wrmsr(msr, physical | ENABLE) }
    let snapshot = page.read(|| ());
    // SAFETY: the MSR is there; with 0 the host writes nothing any more.
    unsafe { crate::wrmsr(msr, 0) }
    snapshot.ok()?.0.scale.ticks_per_second()
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::arch::x86_64::CpuidResult;

    fn msr_with(signature: &[u8; 12], features: u32) -> Option<u32> {
        let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| signature[at + byte]));
        let read = |leaf, _| match leaf {
            1 => CpuidResult { eax: 0, ebx: 0, ecx: 1 << 31, edx: 0 },
            0x4000_0000 => CpuidResult { eax: 0x4000_0001, ebx: word(0), ecx: word(4), edx: word(8) },
            0x4000_0001 => CpuidResult { eax: features, ebx: 0, ecx: 0, edx: 0 },
            _ => CpuidResult { eax: 0, ebx: 0, ecx: 0, edx: 0 },
        };
        clock_msr(&Hypervisors::scan(&read), &read)
    }

    #[test]
    fn the_newer_clock_is_preferred_and_none_is_assumed() {
        assert_eq!(msr_with(&KVM.0, 0b1001), Some(SYSTEM_TIME_NEW));
        assert_eq!(msr_with(&KVM.0, 0b0001), Some(SYSTEM_TIME));
        assert_eq!(msr_with(&KVM.0, 0b0010), None);
        assert_eq!(msr_with(b"TCGTCGTCGTCG", 0b1001), None);
    }
}
