//! The thread that waits, as [`waiters`](super::waiters) needs it.
//! Neighbours: `task::scheduler` (takes it off its CPU).
#![forbid(unsafe_code)]

use core::task::Waker;

use crate::task::scheduler;

/// What ends [`block`].
pub(super) fn waker() -> Waker {
    scheduler::current().into()
}

/// Waits until woken; at once if that happened since the last time. For loops that look at what they wait for.
pub(super) fn block() {
    scheduler::block();
}
