//! Who waits for something: threads and tasks in one queue, woken in the order in which they came.
//!
//! A waiter looks whether what it waits for is there, stands in the queue, and looks again, so that no wake-up falls in
//! between. One that is woken and then gives up hands the wake-up on.
//! The same source is checked in every interleaving by the tests (`crate::interleave`).
//! Neighbours: `mutex`, `condvar`, `semaphore`, `barrier`, `channel` (all are this and a condition).
#![forbid(unsafe_code)]

use alloc::collections::VecDeque;
use core::{
    future::poll_fn,
    task::{Poll, Waker},
};

use super::{IrqMutex, atomic::constructor, current};

/// The queue.
pub(super) struct Waiters(IrqMutex<Queue>);

struct Queue {
    waiting: VecDeque<(u64, Waker)>,
    next: u64,
}

impl Waiters {
    constructor! {
        /// Nobody.
        pub(super) fn new() -> Self {
            Self(IrqMutex::new(Queue { waiting: VecDeque::new(), next: 0 }))
        }
    }

    /// The thread that calls waits until `get` gives something; `get` is asked after each wake-up, and in between.
    pub(super) fn block_until<R>(&self, mut get: impl FnMut() -> Option<R>) -> R {
        let waker = current::waker();
        let mut waiter = Waiter { waiters: self, ticket: None };
        loop {
            if let Some(got) = waiter.look(&waker, &mut get) {
                return got;
            }
            current::block();
        }
    }

    /// As [`block_until`](Self::block_until), for a task.
    pub(super) async fn until<R>(&self, mut get: impl FnMut() -> Option<R>) -> R {
        let mut waiter = Waiter { waiters: self, ticket: None };
        poll_fn(move |cx| match waiter.look(cx.waker(), &mut get) {
            Some(got) => Poll::Ready(got),
            None => Poll::Pending,
        })
        .await
    }

    /// Wakes who came first.
    pub(super) fn wake_one(&self) {
        let first = self.0.lock().waiting.pop_front();
        if let Some((_, waker)) = first {
            waker.wake();
        }
    }

    /// Wakes all who are there now.
    pub(super) fn wake_all(&self) {
        let end = self.0.lock().next;
        loop {
            let mut queue = self.0.lock();
            let came_before = queue.waiting.front().is_some_and(|(ticket, _)| *ticket < end);
            let first = if came_before { queue.waiting.pop_front() } else { None };
            drop(queue);
            match first {
                Some((_, waker)) => waker.wake(),
                None => return,
            }
        }
    }

    /// Stands at the end of the queue before what is waited for can happen: for waits that end by a wake-up alone.
    pub(super) fn enter(&self, waker: &Waker) -> Waiter<'_> {
        let mut waiter = Waiter { waiters: self, ticket: None };
        waiter.stand(waker);
        waiter
    }
}

/// One who waits.
pub(super) struct Waiter<'a> {
    waiters: &'a Waiters,
    /// Its place in the queue; a wake-up takes it out.
    ticket: Option<u64>,
}

impl Waiter<'_> {
    /// Looks; if it gets nothing it will be woken.
    fn look<R>(&mut self, waker: &Waker, get: &mut impl FnMut() -> Option<R>) -> Option<R> {
        let mut got = get();
        if got.is_none() {
            self.stand(waker);
            got = get();
        }
        if got.is_some() {
            // A wake-up that came meanwhile was for what was got.
            self.leave();
            self.ticket = None;
        }
        got
    }

    /// Whether it was woken since it stood there; else `waker` is what will be woken. Without memory to stand in it was.
    pub(super) fn was_woken(&self, waker: &Waker) -> bool {
        let mut queue = self.waiters.0.lock();
        let place = queue.waiting.iter_mut().find(|(ticket, _)| Some(*ticket) == self.ticket);
        let old = match place {
            Some((_, place)) if place.will_wake(waker) => return false,
            Some((_, place)) => core::mem::replace(place, waker.clone()),
            None => return true,
        };
        drop(queue);
        drop(old);
        false
    }

    /// Stands in the queue, where it stood before if it was not woken.
    fn stand(&mut self, waker: &Waker) {
        let mut queue = self.waiters.0.lock();
        let mut old = None;
        let place = queue.waiting.iter().position(|(ticket, _)| Some(*ticket) == self.ticket);
        if let Some((_, place)) = place.and_then(|place| queue.waiting.get_mut(place)) {
            if !place.will_wake(waker) {
                old = Some(core::mem::replace(place, waker.clone()));
            }
        } else if queue.waiting.try_reserve(1).is_ok() {
            let ticket = queue.next;
            queue.next += 1;
            queue.waiting.push_back((ticket, waker.clone()));
            self.ticket = Some(ticket);
        } else {
            // No memory to stand in: it looks again at its next turn.
            waker.wake_by_ref();
        }
        drop(queue);
        // A waker may free a task: not under the lock.
        drop(old);
    }

    /// The wake-up was for this one, and is not handed on.
    pub(super) fn done(mut self) {
        self.ticket = None;
    }

    /// Stands there no more. Whether it was woken before.
    fn leave(&mut self) -> bool {
        let Some(own) = self.ticket else { return false };
        let mut queue = self.waiters.0.lock();
        let place = queue.waiting.iter().position(|(ticket, _)| *ticket == own);
        let removed = place.and_then(|place| queue.waiting.remove(place));
        drop(queue);
        removed.is_none()
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if self.leave() {
            self.waiters.wake_one();
        }
    }
}
