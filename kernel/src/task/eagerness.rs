//! How long a CPU without work looks for some before it halts: learnt from how long it had to wait for other CPUs.
//!
//! While waits are short it looks for as long as the longest of them lasts, so that the host need not wake it; a wait that was
//! too long for that halves the time, down to none. (Linux's `haltpoll` governor grows and shrinks its time alike.)
//! Neighbours: `idle` (looks).
#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// It never looks for longer.
const MOST_NS: u64 = 200_000;
/// A shorter look does not pay.
const LEAST_NS: u64 = 10_000;

/// The time of one CPU.
pub(super) struct Eagerness(AtomicU64);

impl Eagerness {
    /// None.
    pub(super) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// How long to look, in nanoseconds.
    pub(super) fn ns(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Another CPU had something after `waited_ns`, the time to wake up included.
    pub(super) fn learn(&self, waited_ns: u64) {
        let now_ns = self.ns();
        let next_ns = match waited_ns {
            _ if waited_ns <= now_ns => now_ns,
            ..=MOST_NS => (2 * waited_ns).clamp(LEAST_NS, MOST_NS),
            _ if now_ns / 2 < LEAST_NS => 0,
            _ => now_ns / 2,
        };
        self.0.store(next_ns, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_waits_are_looked_for_and_long_ones_are_not() {
        let eagerness = Eagerness::new();
        assert_eq!(eagerness.ns(), 0);
        eagerness.learn(30_000);
        assert!(eagerness.ns() >= 30_000);
        for _ in 0..20 {
            eagerness.learn(5_000_000);
        }
        assert_eq!(eagerness.ns(), 0);
    }

    #[test]
    fn no_look_lasts_longer_than_the_most() {
        let eagerness = Eagerness::new();
        for waited_ns in [1, 150_000, 200_000, 199_999] {
            eagerness.learn(waited_ns);
            assert!((LEAST_NS..=MOST_NS).contains(&eagerness.ns()));
        }
    }
}
