//! How long a CPU without work looks for some before it halts: learnt from how long it had to wait for other CPUs.
//!
//! While waits are short it looks for as long as the longest of them lasts, so that the host need not wake it; a wait that was
//! too long for that halves the time, down to none. (Linux's `haltpoll` governor grows and shrinks its time alike.)
//! A host with more to run takes the CPU away from one that looks, and does not hurry to give it back, as it does for one that is
//! woken: a look in which that happened is the last for a while.
//! Neighbours: `idle` (looks).
#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// It never looks for longer.
const MOST_NS: u64 = 200_000;
/// A shorter look does not pay.
const LEAST_NS: u64 = 10_000;

/// A look that lasts by so much longer than it should was interrupted by the host.
const ROBBED_NS: u64 = 500_000;
/// For so long there is no other then: what is lost by the first after it, some milliseconds, is little of that.
const REST_NS: u64 = 200_000_000;

/// The time of one CPU.
pub(super) struct Eagerness {
    ns: AtomicU64,
    rests_until_ns: AtomicU64,
}

impl Eagerness {
    /// None.
    pub(super) const fn new() -> Self {
        Self { ns: AtomicU64::new(0), rests_until_ns: AtomicU64::new(0) }
    }

    /// How long to look now, in nanoseconds.
    pub(super) fn ns(&self, now_ns: u64) -> u64 {
        if now_ns < self.rests_until_ns.load(Relaxed) { 0 } else { self.ns.load(Relaxed) }
    }

    /// A look began and ended, which was to last for `ns` at most.
    pub(super) fn looked(&self, start_ns: u64, end_ns: u64, ns: u64) {
        if end_ns - start_ns > ns + ROBBED_NS {
            self.rests_until_ns.store(end_ns + REST_NS, Relaxed);
        }
    }

    /// Another CPU had something after `waited_ns`, the time to wake up included.
    pub(super) fn learn(&self, waited_ns: u64) {
        let now_ns = self.ns.load(Relaxed);
        let next_ns = match waited_ns {
            _ if waited_ns <= now_ns => now_ns,
            ..=MOST_NS => (2 * waited_ns).clamp(LEAST_NS, MOST_NS),
            _ if now_ns / 2 < LEAST_NS => 0,
            _ => now_ns / 2,
        };
        self.ns.store(next_ns, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_waits_are_looked_for_and_long_ones_are_not() {
        let eagerness = Eagerness::new();
        assert_eq!(eagerness.ns(0), 0);
        eagerness.learn(30_000);
        assert!(eagerness.ns(0) >= 30_000);
        for _ in 0..20 {
            eagerness.learn(5_000_000);
        }
        assert_eq!(eagerness.ns(0), 0);
    }

    #[test]
    fn no_look_lasts_longer_than_the_most() {
        let eagerness = Eagerness::new();
        for waited_ns in [1, 150_000, 200_000, 199_999] {
            eagerness.learn(waited_ns);
            assert!((LEAST_NS..=MOST_NS).contains(&eagerness.ns(0)));
        }
    }

    #[test]
    fn a_cpu_that_the_host_robs_while_it_looks_does_not_look_for_a_while() {
        let eagerness = Eagerness::new();
        eagerness.learn(30_000);
        eagerness.looked(0, 60_000, 60_000);
        assert_ne!(eagerness.ns(60_000), 0);
        eagerness.looked(0, 4_000_000, 60_000);
        assert_eq!(eagerness.ns(5_000_000), 0);
        assert_ne!(eagerness.ns(4_000_000 + REST_NS), 0);
    }
}
