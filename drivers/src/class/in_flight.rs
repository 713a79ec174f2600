//! Many requests of one task at the same time: sent together, answered in any order, each known by a number of its own.
//!
//! What a task for each of them would cost is saved: their wake-ups, and a lock for each step of each. Neighbours: `super` (one request).
#![forbid(unsafe_code)]

use alloc::collections::VecDeque;
use core::{
    future::poll_fn,
    task::{Poll, Waker},
};

use super::{
    Requests, Submitted,
    kept::{BatchId, Kept},
};
use crate::virtio::Token;

/// Answers are taken, and requests sent, in steps of so many: the device works on the first while the caller makes the next.
pub(crate) const STEP: usize = 8;
/// The device is told of so many requests at once, even if there is more to do first.
pub(crate) const TOGETHER: u16 = 16;

/// Requests on their way to a device and back. Those that are pushed one behind the other and are neighbours, as reads of adjacent
/// sectors are, may go as one.
///
/// ```ignore
/// let mut in_flight = disk.in_flight(32);
/// for (sector, buffer) in (0..32).zip(buffers) {
///     in_flight.push(sector, BlockRequest::Read { sector: sector * 8, buffer });
/// }
/// while let Some((sector, outcome)) = in_flight.next().await {
///     // Look at it, and push the next request, perhaps with the same buffer.
/// }
/// ```
///
/// Dropping it leaves the requests with the device, which frees their buffers when it is done.
pub struct InFlight<'a, D: Requests + ?Sized> {
    device: &'a D,
    batch: Batch<D::Request, D::Outcome>,
}

/// What a driver sees of them: [`Requests::advance`] moves each from one list to the next.
#[derive(Debug)]
pub struct Batch<R, O> {
    /// By this a driver knows which requests are of it.
    pub id: BatchId,
    /// To be sent, in this order.
    pub unsent: VecDeque<(u64, R)>,
    /// To be sent first, one by one, each when everything before was answered: together with others they have failed.
    pub again: VecDeque<(u64, R)>,
    /// What a device has is one of those.
    pub is_alone: bool,
    /// The device has them: those in front for longest. Drivers that keep the tags themselves have them in `kept` instead.
    pub sent: VecDeque<(u64, Token)>,
    /// How many the queues of the device have.
    pub kept: Kept,
    /// Answered, in this order.
    pub done: VecDeque<(u64, O)>,
}

impl<'a, D: Requests + ?Sized> InFlight<'a, D> {
    /// None yet. More than `count` at a time cost an allocation, not more.
    pub fn new(device: &'a D, count: usize) -> Self {
        let mut batch = Batch::default();
        batch.unsent.reserve(count);
        batch.done.reserve(count);
        Self { device, batch }
    }

    /// Adds a request; its outcome comes with `tag`. It is sent when [`next`](Self::next) is awaited.
    pub fn push(&mut self, tag: u64, request: D::Request) {
        self.batch.unsent.push_back((tag, request));
    }

    /// Requests that were pushed and whose outcome [`next`](Self::next) has not given.
    pub fn len(&self) -> usize {
        let Batch { unsent, again, sent, kept, done, .. } = &self.batch;
        unsent.len() + again.len() + sent.len() + kept.len() + done.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next outcome and its tag, in the order in which the device answers; `None` if nothing is in flight. Nothing is lost
    /// if this future is dropped.
    pub async fn next(&mut self) -> Option<(u64, D::Outcome)> {
        poll_fn(|cx| self.poll_next(cx.waker())).await
    }

    fn poll_next(&mut self, waker: &Waker) -> Poll<Option<(u64, D::Outcome)>> {
        if self.batch.done.is_empty() || self.batch.unsent.len() >= STEP {
            self.device.advance(&mut self.batch, waker);
        }
        match self.batch.done.pop_front() {
            None if !self.is_empty() => Poll::Pending,
            done => Poll::Ready(done),
        }
    }
}

impl<D: Requests + ?Sized> Drop for InFlight<'_, D> {
    fn drop(&mut self) {
        self.device.abandon(&mut self.batch);
    }
}

impl<R, O> Default for Batch<R, O> {
    fn default() -> Self {
        let (unsent, sent, done) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        Self {
            id: BatchId::new(),
            unsent,
            again: VecDeque::new(),
            is_alone: false,
            sent,
            kept: Kept::default(),
            done,
        }
    }
}

impl<R, O> Batch<R, O> {
    /// Whether there are requests that go one by one: nothing else is sent meanwhile.
    pub(crate) fn goes_one_by_one(&self) -> bool {
        self.is_alone || !self.again.is_empty()
    }

    /// Puts a request where it belongs now; whether there is room for more.
    fn file(&mut self, tag: u64, submitted: Submitted<R, O>) -> bool {
        match submitted {
            Submitted::Sent(token) => self.sent.push_back((tag, token)),
            Submitted::Refused(outcome) => self.done.push_back((tag, outcome)),
            Submitted::Full(request) => {
                self.unsent.push_front((tag, request));
                return false;
            }
        }
        true
    }

    /// For drivers that have nothing better.
    pub(super) fn advance_one_by_one<D>(&mut self, device: &D, waker: &Waker)
    where
        D: Requests<Request = R, Outcome = O> + ?Sized,
    {
        while let Some((tag, request)) = self.unsent.pop_front() {
            if !self.file(tag, device.submit(request, waker)) {
                break;
            }
        }
        for _ in 0..self.sent.len() {
            let Some((tag, token)) = self.sent.pop_front() else { return };
            match device.poll(token, waker) {
                Ok(outcome) => self.done.push_back((tag, outcome)),
                Err(token) => self.sent.push_back((tag, token)),
            }
        }
    }
}
