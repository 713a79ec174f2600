//! Clocks from the time-stamp counter (SDM vol. 3B §18.17): monotonic by a fixed scale, wall by an offset.
//! Neighbours: `scale` (arithmetic), `irq` (the timer asks for TSC deadlines).
//!
//! The kernel finds the frequency ([`set_tsc_hz`]) and asks a clock chip ([`set_wall`]); time counts from
//! installation either way. It is set on one CPU before others start and read everywhere afterwards.

use crate::scale::Scale;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

static BASE_TSC: AtomicU64 = AtomicU64::new(0);
static TO_NS: AtomicScale = AtomicScale::unknown();
static TO_TICKS: AtomicScale = AtomicScale::unknown();
/// Unix time at monotonic 0; `u64::MAX` is "unknown".
static WALL_BASE_NS: AtomicU64 = AtomicU64::new(u64::MAX);

/// A scale that is set once; a multiplier of 0 says "not yet".
struct AtomicScale {
    multiplier: AtomicU64,
    shift: AtomicU32,
}

impl AtomicScale {
    const fn unknown() -> Self {
        Self { multiplier: AtomicU64::new(0), shift: AtomicU32::new(0) }
    }

    fn set(&self, scale: Scale) {
        self.shift.store(scale.shift(), Ordering::Relaxed);
        self.multiplier.store(scale.multiplier(), Ordering::Release);
    }

    fn get(&self) -> Option<Scale> {
        let multiplier = self.multiplier.load(Ordering::Acquire);
        (multiplier != 0).then(|| Scale::new(multiplier, self.shift.load(Ordering::Relaxed)))
    }
}

/// Time 0 is now.
pub(crate) fn start() {
    start_at(now_tsc());
}

/// Time 0 is when the counter stood at `tsc`: for a kernel that knows when it was entered. Before [`set_tsc_hz`].
pub fn start_at(tsc: u64) {
    BASE_TSC.store(tsc, Ordering::Relaxed);
}

/// Tells the time-stamp counter's frequency in hertz. The clock then shows the time since installation.
/// The first call with a frequency above 0 counts: a clock that changed its scale would jump.
pub fn set_tsc_hz(hz: u64) {
    if TO_NS.get().is_some() {
        return;
    }
    let (Some(to_ns), Some(to_ticks)) = (Scale::ticks_to_ns(hz), Scale::ns_to_ticks(hz)) else { return };
    TO_TICKS.set(to_ticks);
    TO_NS.set(to_ns);
}

/// Tells the wall clock: nanoseconds since the Unix epoch, now.
pub fn set_wall(unix_ns: u64) {
    WALL_BASE_NS.store(unix_ns.saturating_sub(monotonic_ns()), Ordering::Relaxed);
}

/// The counter's value at monotonic time `ns`, never early; unknown before [`set_tsc_hz`].
pub(super) fn tsc_at(ns: u64) -> Option<u64> {
    let ticks = TO_TICKS.get()?.apply(ns).saturating_add(1);
    Some(BASE_TSC.load(Ordering::Relaxed).saturating_add(ticks))
}

/// The counter's value `delay_ns` from now, never early; unknown before [`set_tsc_hz`].
pub(super) fn tsc_after(delay_ns: u64) -> Option<u64> {
    Some(now_tsc().saturating_add(TO_TICKS.get()?.apply(delay_ns)).saturating_add(1))
}

pub(super) extern "sysv64" fn monotonic_ns() -> u64 {
    let Some(scale) = TO_NS.get() else { return 0 };
    scale.apply(now_tsc().saturating_sub(BASE_TSC.load(Ordering::Relaxed)))
}

pub(super) extern "sysv64" fn wall_ns() -> u64 {
    match WALL_BASE_NS.load(Ordering::Relaxed) {
        u64::MAX => u64::MAX,
        base => base.saturating_add(monotonic_ns()),
    }
}

fn now_tsc() -> u64 {
    // SAFETY: reads a counter; CR4.TSD, which could forbid it outside ring 0, is never set here.
    unsafe { core::arch::x86_64::_rdtsc() }
}
