//! The places of a queue's requests: who waits for which, and what came back.
//! Neighbours: `entry` (one place), `batches` (those of requests that are for batches), `send` and `super` (how requests get to the
//! device and back).
#![forbid(unsafe_code)]

use alloc::{boxed::Box, collections::VecDeque, vec::Vec};
use core::task::Waker;

use super::{
    Answer,
    entry::{Came, Entry, For, State},
};
use crate::{class::BatchId, dma::DmaBuffer, error::Error};

/// Places, known by their numbers. None is given out twice before it was given back.
pub(super) struct Table {
    pub(super) entries: Box<[Entry]>,
    pub(super) free: Vec<u16>,
    /// Whom to wake when a place becomes free.
    waiting: VecDeque<Waker>,
    /// Answers for batches that they have not taken, oldest first.
    pub(super) ready: VecDeque<u16>,
    /// Whom to wake when there is one more for a batch.
    pub(super) watchers: Vec<(BatchId, Waker)>,
    /// How much an interrupt is to tell of: holders and batches to be woken, and buffers to be freed.
    pub(super) awaited: u16,
}

impl Table {
    pub(super) fn new(count: u16) -> Self {
        Self {
            entries: (0..count).map(|_| Entry::FREE).collect(),
            free: (0..count).collect(),
            waiting: VecDeque::with_capacity(usize::from(count)),
            ready: VecDeque::with_capacity(count.into()),
            watchers: Vec::with_capacity(count.into()),
            awaited: 0,
        }
    }

    /// A free place, to be [filled](Self::fill) or given back by [`put_back`](Self::put_back).
    pub(super) fn reserve(&mut self) -> Option<u16> {
        self.free.pop()
    }

    /// Nothing was sent in the place.
    pub(super) fn put_back(&mut self, index: u16) {
        self.free.push(index);
    }

    /// The device has the request now.
    #[inline]
    pub(super) fn fill(
        &mut self,
        index: u16,
        (buffer, data_bytes): (Option<DmaBuffer>, usize),
        whom: For<'_>,
    ) {
        let entry = &mut self.entries[usize::from(index)];
        (entry.state, entry.buffer, entry.data_bytes, entry.gathered) =
            (State::Sent, buffer, data_bytes, None);
        match whom {
            For::Batch(batch, tag) => (entry.batch, entry.tag) = (Some(batch), tag),
            For::Holder(waker) => {
                (entry.batch, entry.waker) = (None, Some(waker.clone()));
                self.awaited += 1;
            }
        }
    }

    /// Whether the device has requests of which an interrupt is to tell, or somebody waits for a place.
    pub(super) fn is_awaited(&self) -> bool {
        self.awaited > 0 || !self.waiting.is_empty()
    }

    /// Whether there is an answer.
    #[inline]
    pub(super) fn is_done(&self, index: u16) -> bool {
        match self.entries[usize::from(index)].state {
            State::Done | State::Failed | State::Cancelled => true,
            State::Sent => false,
            State::Free | State::Forgotten => unreachable!("a token names a request that was sent"),
        }
    }

    /// Calls `waker` when a place becomes free.
    pub(super) fn wait_for_room(&mut self, waker: &Waker) {
        // As many wait as were foreseen; more try again at once, so that no memory is taken here.
        if self.waiting.iter().any(|waiting| waiting.will_wake(waker)) {
        } else if self.waiting.len() < self.waiting.capacity() {
            self.waiting.push_back(waker.clone());
        } else {
            waker.wake_by_ref();
        }
    }

    /// Calls `waker` when there is an answer.
    pub(super) fn wake_when_done(&mut self, index: u16, waker: &Waker) {
        let place = &mut self.entries[usize::from(index)].waker;
        if !place.as_ref().is_some_and(|old| old.will_wake(waker)) {
            self.awaited += u16::from(place.is_none());
            *place = Some(waker.clone());
        }
    }

    /// The answer that there is; `fault` is why the device failed, if it did.
    #[inline]
    pub(super) fn take_answer(&mut self, index: u16, fault: Option<Error>) -> Answer {
        let entry = &mut self.entries[usize::from(index)];
        let written = match entry.state {
            State::Failed => Err(fault.unwrap_or(Error::Cancelled)),
            State::Cancelled => Err(Error::Cancelled),
            _ => Ok(entry.came.written),
        };
        let answer = entry.answer(written, entry.came);
        self.give_back(index);
        answer
    }

    /// Nobody wants the answer.
    pub(super) fn forget(&mut self, index: u16) {
        let entry = &mut self.entries[usize::from(index)];
        match entry.state {
            State::Sent => {
                entry.state = State::Forgotten;
                self.awaited += u16::from(entry.waker.take().is_none());
            }
            _ => self.clear(index),
        }
    }

    pub(super) fn clear(&mut self, index: u16) {
        let entry = &mut self.entries[usize::from(index)];
        (entry.state, entry.buffer) = (State::Free, None);
        self.give_back(index);
    }

    #[inline]
    pub(super) fn give_back(&mut self, index: u16) {
        self.free.push(index);
        if !self.waiting.is_empty() {
            self.wake_waiting();
        }
    }

    #[cold]
    fn wake_waiting(&mut self) {
        self.waiting.drain(..).for_each(Waker::wake);
    }

    /// The device has answered, or will not.
    #[inline]
    pub(super) fn answer(&mut self, index: u16, state: State, came: Came) {
        let entry = &mut self.entries[usize::from(index)];
        if entry.state != State::Sent {
            self.awaited -= 1;
            return self.clear(index);
        }
        (entry.state, entry.came) = (state, came);
        if let Some(batch) = entry.batch {
            self.ready.push_back(index);
            self.unwatch(batch).into_iter().for_each(Waker::wake);
        } else if let Some(waker) = entry.waker.take() {
            self.awaited -= 1;
            waker.wake();
        }
    }

    /// The device has answered nothing of what it has, and will not. If it may still write, buffers are never freed.
    pub(super) fn answer_all(&mut self, state: State, may_write: bool) {
        if may_write {
            self.keep_for_ever();
        }
        for index in 0..self.entries.len() as u16 {
            if self.entries[usize::from(index)].is_with_device() {
                self.answer(index, state, Came::NOTHING);
            }
        }
        self.wake_waiting();
    }

    /// Never frees the buffers that the device has.
    pub(super) fn keep_for_ever(&mut self) {
        for entry in self.entries.iter_mut().filter(|entry| entry.is_with_device()) {
            core::mem::forget(entry.buffer.take());
        }
    }
}
