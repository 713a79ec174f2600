//! Whether a task stands in a list, runs, or waits: so that it stands in one list at most, and no wake-up is lost.
//! The same source is checked in every interleaving by the tests (`crate::interleave`).
//! Neighbours: `waker` (the task around it).
#![forbid(unsafe_code)]

use super::atomic::{AtomicU8, Ordering, constructor};

/// Woken and not yet running.
const READY: u8 = 1 << 0;
/// Being polled.
const RUNNING: u8 = 1 << 1;
/// Has its result; never polled again.
const DONE: u8 = 1 << 2;

/// The state of one task.
#[derive(Debug)]
pub(super) struct State(AtomicU8);

/// What the poller has to do after a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// Nothing: somebody wakes it, or it is finished.
    Leave,
    /// Put it into a list: it was woken meanwhile.
    Queue,
}

impl State {
    constructor! {
        /// It stands in a list.
        pub(super) fn ready() -> Self {
            Self(AtomicU8::new(READY))
        }
    }

    /// It was taken from a list. `true` when it is to be polled.
    pub(super) fn begin(&self) -> bool {
        if self.0.load(Ordering::Acquire) & DONE != 0 {
            self.0.store(DONE, Ordering::Release);
            return false;
        }
        // `READY` goes before the poll: whatever happens from here on is a reason for one more.
        self.0.swap(RUNNING, Ordering::AcqRel);
        true
    }

    /// It was polled.
    pub(super) fn end(&self, done: bool) -> After {
        if done {
            self.0.store(DONE, Ordering::Release);
        } else if self.0.compare_exchange(RUNNING, 0, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // Acquires what a further waker wrote, whose mark this overwrites.
            self.0.swap(READY, Ordering::AcqRel);
            return After::Queue;
        }
        After::Leave
    }

    /// Marks it ready. Whether the caller has to queue it: not when it is queued, nor when it runs.
    pub(super) fn wake(&self) -> bool {
        self.0.fetch_or(READY, Ordering::AcqRel) & (READY | RUNNING) == 0
    }
}
