//! Whether a thread waits: one token, so that a wake-up that comes before the wait ends it at once.
//! The same source is checked in every interleaving by the tests (`crate::interleave`).
//! Neighbours: `scheduler` (takes a thread off the CPU between `park` and `unpark`).
#![forbid(unsafe_code)]

use super::atomic::{AtomicU8, Ordering, constructor};

/// Runs, or is to run.
const RUNNING: u8 = 0;
/// Runs, and was woken since it last waited.
const NOTIFIED: u8 = 1;
/// Waits: whoever wakes it has to put it into a run queue.
const PARKED: u8 = 2;

/// The state of one thread's waits.
#[derive(Debug)]
pub(crate) struct Parker(AtomicU8);

impl Parker {
    constructor! {
        /// The thread runs, and has no token.
        pub(crate) fn new() -> Self {
            Self(AtomicU8::new(RUNNING))
        }
    }

    /// The thread itself begins to wait. `false` when it was woken already: then it goes on.
    pub(crate) fn park(&self) -> bool {
        let parked = self.0.compare_exchange(RUNNING, PARKED, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if !parked {
            // Acquires what the waker wrote before.
            self.0.swap(RUNNING, Ordering::AcqRel);
        }
        parked
    }

    /// Wakes the thread. `true` when the caller has to put it into a run queue: that happens once for each wait.
    pub(crate) fn unpark(&self) -> bool {
        let mut state = self.0.load(Ordering::Relaxed);
        loop {
            let next = if state == PARKED { RUNNING } else { NOTIFIED };
            // A token that is there already is written again: what this waker wrote is to be seen as well.
            match self.0.compare_exchange_weak(state, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return state == PARKED,
                Err(now) => state = now,
            }
        }
    }
}
