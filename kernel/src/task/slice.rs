//! The time slice of the thread that a CPU runs: timed only while others wait for that CPU.
//!
//! A thread has one slice of what the host leaves to this CPU: when the time is over, one that came in the middle of it, or
//! whose CPU the host ran something else on, gets what is missing. So a switch does not arm the timer, and reads no more than
//! the counter.
//! Neighbours: `scheduler` (asks), `time::timer` (the interrupt).
#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::time::timer;

/// How long a thread runs while others wait.
pub(super) const SLICE_NS: u64 = 4_000_000;
/// The host may take so much of a slice for itself; more is given back.
const UNNOTICED_NS: u64 = SLICE_NS / 32;

/// The slice of one CPU. Used on that CPU only, with interrupts disabled, but for [`is_timed`](Self::is_timed).
pub(super) struct Slice {
    timed: AtomicBool,
    /// When it began: by the clock, and by the time-stamp counter.
    begun_ns: AtomicU64,
    begun_ticks: AtomicU64,
    /// When the thread came that runs, the host's count of stolen time then, and how much the thread is to have from then on.
    came_ticks: AtomicU64,
    stolen_ns: AtomicU64,
    given_ns: AtomicU64,
}

impl Slice {
    pub(super) const fn new() -> Self {
        Self {
            timed: AtomicBool::new(false),
            begun_ns: AtomicU64::new(0),
            begun_ticks: AtomicU64::new(0),
            came_ticks: AtomicU64::new(0),
            stolen_ns: AtomicU64::new(0),
            given_ns: AtomicU64::new(0),
        }
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

    /// Another thread runs on `cpu`, not because the slice is over.
    pub(super) fn comes(&self, cpu: u32) {
        if self.is_timed() {
            self.give(cpu, pv_ops::rdtsc(), SLICE_NS);
        }
    }

    fn give(&self, cpu: u32, now_ticks: u64, ns: u64) {
        self.came_ticks.store(now_ticks, Relaxed);
        self.stolen_ns.store(pv_ops::steal_ns(cpu), Relaxed);
        self.given_ns.store(ns, Relaxed);
    }

    /// Has an interrupt come as soon as interrupts are enabled.
    pub(super) fn end_now(&self) {
        self.timed.store(true, Relaxed);
        self.given_ns.store(0, Relaxed);
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
        let since = |before: &AtomicU64, now: u64| now.saturating_sub(before.load(Relaxed));
        let (now_ns, now_ticks) = (pv_ops::monotonic_ns(), pv_ops::rdtsc());
        let whole = (since(&self.begun_ns, now_ns), since(&self.begun_ticks, now_ticks));
        let elapsed_ns = part_ns(whole, since(&self.came_ticks, now_ticks));
        let stolen_ns = since(&self.stolen_ns, pv_ops::steal_ns(cpu));
        let more_ns = owed_ns(self.given_ns.load(Relaxed), elapsed_ns, stolen_ns);
        let goes_on = more_ns != 0;
        if goes_on {
            self.timed.store(true, Relaxed);
            self.extend(more_ns);
        }
        goes_on
    }

    fn extend(&self, ns: u64) {
        let (now_ns, now_ticks) = (pv_ops::monotonic_ns(), pv_ops::rdtsc());
        self.begun_ns.store(now_ns, Relaxed);
        self.begun_ticks.store(now_ticks, Relaxed);
        self.give(crate::cpu::current().id(), now_ticks, ns);
        timer::set_slice(now_ns + ns);
    }
}

/// So many of the ticks, in the time that all of them took.
fn part_ns((whole_ns, whole_ticks): (u64, u64), ticks: u64) -> u64 {
    /// Few enough are left that the product fits.
    const LESS: u32 = 10;
    let part = (ticks.min(whole_ticks) >> LESS).saturating_mul(whole_ns);
    part.checked_div(whole_ticks >> LESS).unwrap_or(whole_ns)
}

/// What is missing of a slice of `given_ns` after so long, of which the host took `stolen_ns`; 0 if it is not worth a timer.
fn owed_ns(given_ns: u64, elapsed_ns: u64, stolen_ns: u64) -> u64 {
    let owed_ns = given_ns.saturating_sub(elapsed_ns.saturating_sub(stolen_ns));
    if owed_ns > UNNOTICED_NS { owed_ns } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The guest's time that each of two threads has, as they take turns while the host takes the CPU: after `runs` of it,
    /// for `takes`. The end of a slice that falls into such a time is seen when it is over.
    fn shares(turns: usize, mut host: impl FnMut(usize) -> (u64, u64)) -> [u64; 2] {
        let (mut now, mut stolen, mut shares) = (0, 0, [0; 2]);
        for turn in 0..turns {
            let mut given = SLICE_NS;
            while given != 0 {
                let (begun, stolen_before) = (now, stolen);
                while now < begun + given {
                    let (runs, takes) = host(turn % 2);
                    let run = runs.min(begun + given - now);
                    shares[turn % 2] += run;
                    now += run;
                    if run == runs {
                        now += takes;
                        stolen += takes;
                    }
                }
                given = owed_ns(given, now - begun, stolen - stolen_before);
            }
        }
        shares
    }

    proptest! {
        /// One is robbed, the other never: what they have differs by what goes unnoticed, whatever the host does.
        #[test]
        fn a_thread_that_the_host_robs_has_the_share_of_one_that_it_does_not(
            script in prop::collection::vec((1_u64..3 * SLICE_NS, 0_u64..10 * SLICE_NS), 1..20),
            turns in 1_usize..50,
        ) {
            let mut next = script.iter().cycle();
            let [robbed, other] = shares(2 * turns, |thread| match thread {
                0 => next.next().copied().unwrap_or((SLICE_NS, 0)),
                _ => (u64::MAX, 0),
            });
            prop_assert_eq!(other, turns as u64 * SLICE_NS);
            prop_assert!(robbed <= other, "{} of {}", robbed, other);
            prop_assert!(other - robbed <= turns as u64 * UNNOTICED_NS, "{} of {}", robbed, other);
        }
    }

    #[test]
    fn a_part_of_the_ticks_took_that_part_of_the_time() {
        assert_eq!(part_ns((4_000_000, 10 << 20), 5 << 20), 2_000_000);
        assert_eq!(part_ns((4_000_000, 10 << 20), 0), 0);
        // A counter that stands still, or jumped.
        assert_eq!([part_ns((70, 0), 0), part_ns((70, 10 << 20), u64::MAX)], [70, 70]);
    }

    #[test]
    fn a_late_end_is_not_lengthened_by_what_was_stolen_after_it() {
        assert_eq!(owed_ns(SLICE_NS, 6 * SLICE_NS, 5 * SLICE_NS), 0);
        assert_eq!(owed_ns(SLICE_NS, 6 * SLICE_NS, 5 * SLICE_NS + SLICE_NS / 2), SLICE_NS / 2);
    }
}
