//! Clocks of a Xen guest: `vcpu_time_info` and the wall clock in the shared page.
//! Neighbours: `pvclock` (arithmetic and reading protocol), `shared_info` (where they are), `hvm` (the ops).
//!
//! Xen's system time counts from Xen's own boot. The guest's counts from its entry, as natively: `start` finds out
//! what Xen's clock said then. The time for which a domain is saved does not count (`go_on`).

use super::{
    abi::vcpu as vcpu_op,
    cpuid,
    hypercall::{self, Number},
    shared_info,
};
use crate::{detect::Reader, pvclock::ordered_tsc};
use core::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

/// Xen's system time when the guest's was 0. Less than 0 after the guest came to a Xen that is younger than it.
static BASE_NS: AtomicI64 = AtomicI64::new(0);
/// What this guest's clock showed last: two virtual CPUs' clocks differ by some nanoseconds.
static LAST_NS: AtomicU64 = AtomicU64::new(0);
/// `VIRQ_TIMER` has a channel.
static HAS_EVENT: AtomicBool = AtomicBool::new(false);
/// The TSC's rate in hertz; 0 is "unknown".
static TSC_HZ: AtomicU64 = AtomicU64::new(0);

/// Makes time 0 the moment when the TSC stood at `entry_tsc`. The shared page is there.
pub(super) fn start(entry_tsc: u64, read: Reader<'_>, base: u32) {
    let Some(Ok((snapshot, ()))) = shared_info::vcpu_info(0).map(|vcpu| vcpu.time.read(|| ())) else {
        return;
    };
    BASE_NS.store(snapshot.at_or_before(entry_tsc) as i64, Ordering::Relaxed);
    let hz = cpuid::tsc_hz(read, base).or_else(|| snapshot.tsc_hz()).unwrap_or(0);
    TSC_HZ.store(hz, Ordering::Relaxed);
}

/// Goes on from `now_ns` by the clock of the Xen to which the domain has come.
pub(super) fn go_on(now_ns: u64) {
    BASE_NS.store(base(system_ns(), now_ns), Ordering::Relaxed);
}

/// Where the guest's 0 is by the clock of a Xen whose time is `system_ns`, when the guest's is `now_ns`.
fn base(system_ns: u64, now_ns: u64) -> i64 {
    system_ns.wrapping_sub(now_ns) as i64
}

/// The TSC's rate in hertz, as Xen told it.
pub(super) fn tsc_hz() -> Option<u64> {
    Some(TSC_HZ.load(Ordering::Relaxed)).filter(|&hz| hz != 0)
}

/// Xen's system time: what its timers go by. 0 if its clock does not come to rest.
pub fn system_ns() -> u64 {
    // The first virtual CPU's clock serves all: it is valid everywhere where the TSC is, and a late one is caught
    // by `LAST_NS`.
    match shared_info::vcpu_info(0).map(|vcpu| vcpu.time.now_ns(ordered_tsc)) {
        Some(Ok(ns)) => ns,
        _ => 0,
    }
}

/// The guest's time when Xen's is `system_ns`, and its 0 was at `base_ns`.
fn since(system_ns: u64, base_ns: i64) -> u64 {
    (system_ns as i64).saturating_sub(base_ns).max(0) as u64
}

/// Xen's time when the guest's is `now_ns`; the end of time stays so.
fn deadline(now_ns: u64, base_ns: i64) -> u64 {
    now_ns.saturating_add_signed(base_ns)
}

pub(super) extern "sysv64" fn monotonic_ns() -> u64 {
    let now = since(system_ns(), BASE_NS.load(Ordering::Relaxed));
    LAST_NS.fetch_max(now, Ordering::Relaxed).max(now)
}

/// The wall clock at system time 0, plus the system time (xen.h, `wc_sec`).
pub(super) extern "sysv64" fn wall_ns() -> u64 {
    match shared_info::get().wall_clock.read_boot_unix_ns() {
        Ok(boot_ns) if boot_ns != 0 => boot_ns.saturating_add(system_ns()),
        _ => u64::MAX,
    }
}

/// `VIRQ_TIMER` has a channel from now on.
pub(super) fn set_event_timer() {
    HAS_EVENT.store(true, Ordering::Relaxed);
}

/// Whether Xen's timer can be heard.
pub(super) fn has_event_timer() -> bool {
    HAS_EVENT.load(Ordering::Relaxed)
}

/// Xen's own timer, whose interrupt is the event `VIRQ_TIMER` (vcpu.h). A deadline in the past fires at once.
pub(super) extern "sysv64" fn timer_arm(deadline_ns: u64) {
    let vcpu = super::vcpu::current();
    if deadline_ns == u64::MAX {
        // SAFETY: stops this CPU's timer.
        let _ = unsafe { hypercall::call3(Number::VcpuOp, vcpu_op::STOP_SINGLESHOT_TIMER.into(), vcpu, 0) };
        return;
    }
    let timeout_abs_ns = deadline(deadline_ns, BASE_NS.load(Ordering::Relaxed));
    let argument = vcpu_op::SetSingleshotTimer { timeout_abs_ns, flags: 0, _pad: 0 };
    let address = (&raw const argument).expose_provenance() as u64;
    // SAFETY: the struct is this command's, and Xen only reads it.
    let _ = unsafe { hypercall::call3(Number::VcpuOp, vcpu_op::SET_SINGLESHOT_TIMER.into(), vcpu, address) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const YEARS: u64 = 1 << 60;

    proptest! {
        /// Wherever the guest goes, to a Xen that is older than it or younger, its clock goes on from where it stood, and
        /// a deadline of its own is that far away by Xen's clock.
        #[test]
        fn the_clock_goes_on_in_the_next_life(now in 0..YEARS, system in 0..YEARS, later in 0..YEARS) {
            let base = base(system, now);
            prop_assert_eq!(since(system, base), now);
            prop_assert_eq!(since(system + later, base), now + later);
            prop_assert_eq!(deadline(now + later, base), system + later);
        }
    }

    #[test]
    fn a_clock_that_is_not_there_reads_as_the_beginning() {
        assert_eq!(since(0, 5), 0);
        assert_eq!(deadline(3, -5), 0);
    }
}
