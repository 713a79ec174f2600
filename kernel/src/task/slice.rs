//! The time slice of the thread that a CPU runs: timed only while others wait for that CPU.
//!
//! A thread has one slice at least and two at most: when the time is over, one that came in the middle of it gets
//! another, so that no switch needs to look at the clock. What the host ran instead of this CPU is not charged.
//! Neighbours: `scheduler` (asks), `time::timer` (the interrupt).
#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::time::timer;

/// How long a thread runs while others wait.
pub(super) const SLICE_NS: u64 = 4_000_000;
/// The host may take so much of a slice for itself; more is given back.
const UNNOTICED_NS: u64 = SLICE_NS / 8;

/// The slice of one CPU. Used on that CPU only, with interrupts disabled, but for [`is_timed`](Self::is_timed).
pub(super) struct Slice {
    timed: AtomicBool,
    /// The thread that runs came after the slice began.
    fresh: AtomicBool,
    /// The host's count of stolen time when the slice began.
    stolen_ns: AtomicU64,
}

impl Slice {
    pub(super) const fn new() -> Self {
        Self { timed: AtomicBool::new(false), fresh: AtomicBool::new(false), stolen_ns: AtomicU64::new(0) }
    }

    /// Whether an end was set.
    pub(super) fn is_timed(&self) -> bool {
        self.timed.load(Relaxed)
    }

    /// Sets the end, if none is set: others wait from now on.
    pub(super) fn begin(&self) {
        if !self.timed.swap(true, Relaxed) {
            self.extend(SLICE_NS);
        }
    }

    /// No end is set.
    pub(super) fn forget(&self) {
        timer::take_slice_over();
        self.timed.store(false, Relaxed);
    }

    /// Another thread runs; `fresh` when that has nothing to do with the end of a slice.
    pub(super) fn set_fresh(&self, fresh: bool) {
        self.fresh.store(fresh, Relaxed);
    }

    /// Has an interrupt come as soon as interrupts are enabled.
    pub(super) fn end_now(&self) {
        self.timed.store(true, Relaxed);
        timer::set_slice(0);
    }

    /// Whether the end has come since it was asked last; none is set then.
    pub(super) fn is_over(&self) -> bool {
        let over = timer::take_slice_over();
        if over {
            self.timed.store(false, Relaxed);
        }
        over
    }

    /// Whether the running thread has earned some more, others waiting: then the end is set anew.
    pub(super) fn goes_on(&self, cpu: u32) -> bool {
        let stolen_ns = pv_ops::steal_ns(cpu).saturating_sub(self.stolen_ns.load(Relaxed));
        let more_ns = if self.fresh.swap(false, Relaxed) { SLICE_NS } else { stolen_ns.min(SLICE_NS) };
        let goes_on = more_ns > UNNOTICED_NS;
        if goes_on {
            self.timed.store(true, Relaxed);
            self.extend(more_ns);
        }
        goes_on
    }

    fn extend(&self, ns: u64) {
        self.stolen_ns.store(pv_ops::steal_ns(crate::cpu::current().id()), Relaxed);
        timer::set_slice(pv_ops::monotonic_ns() + ns);
    }
}
