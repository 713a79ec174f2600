//! The rate of the time-stamp counter as the hypervisor's clock page tells it.
//! Neighbours: `kvm::clock_rate` (who has such a page), `pvclock` (its layout), the kernel's `time` (which asks).

use crate::{detect::Hypervisors, kvm::clock_rate, pvclock::TimeInfo};

/// Asks the hypervisors that are there; ticks per second. `None` where none has a clock page, or what it says makes
/// no sense.
///
/// # Safety
/// `physical` is the physical address of `page`, a multiple of 32.
pub unsafe fn tsc_hz(hypervisors: &Hypervisors, page: &TimeInfo, physical: u64) -> Option<u64> {
    let msr = clock_rate::clock_msr(hypervisors, &crate::cpuid)?;
    // SAFETY: the MSR is that of this hypervisor; the address is the caller's promise.
    unsafe { clock_rate::tsc_hz(msr, page, physical) }
}
