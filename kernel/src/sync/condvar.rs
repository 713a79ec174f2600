//! Waiting for what the holder of a lock may change.
//! The same source is checked in every interleaving by the tests (`crate::interleave`).
//! Neighbours: `mutex` (the lock), `waiters`.
#![forbid(unsafe_code)]

use core::{future::poll_fn, task::Poll};

use super::{MutexGuard, atomic::constructor, current, waiters::Waiters};

/// Threads that wait until somebody tells that the data of a [`Mutex`](super::Mutex) has changed.
pub struct Condvar(Waiters);

impl Default for Condvar {
    fn default() -> Self {
        Self::new()
    }
}

impl Condvar {
    constructor! {
        /// Nobody waits.
        pub fn new() -> Self {
            Self(Waiters::new())
        }
    }

    /// Gives the lock back, waits until it is notified, as a thread, and takes the lock again. It returns for no other
    /// reason, but for a lack of memory to note who waits.
    pub fn wait<'a, T: ?Sized>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        let (lock, waker) = (guard.lock(), current::waker());
        // In the queue before the lock is free: who changes the data then finds this thread there.
        let waiter = self.0.enter(&waker);
        drop(guard);
        while !waiter.was_woken(&waker) {
            current::block();
        }
        waiter.done();
        lock.lock()
    }

    /// As [`wait`](Self::wait), as a task.
    pub async fn wait_async<'a, T: ?Sized>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        let lock = guard.lock();
        let (mut guard, mut waiter) = (Some(guard), None);
        poll_fn(|cx| {
            let waiter = waiter.get_or_insert_with(|| self.0.enter(cx.waker()));
            guard = None;
            if waiter.was_woken(cx.waker()) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        if let Some(waiter) = waiter {
            waiter.done();
        }
        lock.lock_async().await
    }

    /// Waits as long as `condition` holds.
    pub fn wait_while<'a, T: ?Sized>(
        &self,
        mut guard: MutexGuard<'a, T>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'a, T> {
        while condition(&mut guard) {
            guard = self.wait(guard);
        }
        guard
    }

    /// Wakes the thread that has waited longest.
    pub fn notify_one(&self) {
        self.0.wake_one();
    }

    /// Wakes all that wait.
    pub fn notify_all(&self) {
        self.0.wake_all();
    }
}

impl core::fmt::Debug for Condvar {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad("Condvar")
    }
}
