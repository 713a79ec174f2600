//! Places of requests that are for batches: no token is kept for each, nor a waker.
//! Neighbours: `table` (all places).
#![forbid(unsafe_code)]

use core::task::Waker;

use super::{
    Answer,
    entry::{Came, State},
    table::Table,
};
use crate::class::BatchId;

impl Table {
    /// What the device has answered, with its tag, if it is for `batch`, which takes it now; else it is to be
    /// [kept](Self::answer).
    #[inline(always)]
    pub(super) fn answer_to(&mut self, batch: BatchId, index: u16, came: Came) -> Option<(u64, Answer)> {
        let entry = &mut self.entries[usize::from(index)];
        if entry.batch != Some(batch) {
            return None;
        }
        let (tag, answer) = (entry.tag, entry.answer(Ok(came.written), came));
        self.give_back(index);
        Some((tag, answer))
    }

    /// The place of the oldest answer for `batch` that was kept, and its tag; it is to be [taken](Self::take_answer).
    #[inline]
    pub(super) fn next_ready(&mut self, batch: BatchId) -> Option<(u64, u16)> {
        if self.ready.is_empty() { None } else { self.find_ready(batch) }
    }

    #[cold]
    fn find_ready(&mut self, batch: BatchId) -> Option<(u64, u16)> {
        let is_of_batch = |&index: &u16| self.entries[usize::from(index)].batch == Some(batch);
        let place = self.ready.iter().position(is_of_batch)?;
        let index = self.ready.remove(place)?;
        Some((self.entries[usize::from(index)].tag, index))
    }

    /// Calls `waker` when there is one more answer for `batch`, of which the device has requests.
    pub(super) fn watch(&mut self, batch: BatchId, waker: &Waker) {
        match self.watchers.iter_mut().find(|(watcher, _)| *watcher == batch) {
            Some((_, old)) => old.clone_from(waker),
            None => {
                self.watchers.push((batch, waker.clone()));
                self.awaited += 1;
            }
        }
    }

    /// `batch` is not to be woken any more.
    pub(super) fn unwatch(&mut self, batch: BatchId) -> Option<Waker> {
        let place = self.watchers.iter().position(|(watcher, _)| *watcher == batch)?;
        self.awaited -= 1;
        Some(self.watchers.swap_remove(place).1)
    }

    /// Nobody wants the answers for `batch`.
    pub(super) fn forget_batch(&mut self, batch: BatchId) {
        self.unwatch(batch);
        while let Some((_, index)) = self.next_ready(batch) {
            self.clear(index);
        }
        let entries = self.entries.iter_mut();
        for entry in entries.filter(|entry| entry.state == State::Sent && entry.batch == Some(batch)) {
            (entry.state, entry.batch) = (State::Forgotten, None);
            self.awaited += 1;
        }
    }
}
