//! What a batch knows of requests that a driver keeps for it: whose they are, and how many are where.
//! Neighbours: `in_flight` (the batch).
#![forbid(unsafe_code)]

use alloc::vec::Vec;
use core::{
    num::NonZeroU64,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// The number of a batch; no other has the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchId(NonZeroU64);

impl BatchId {
    pub(super) fn new() -> Self {
        static MADE: AtomicU64 = AtomicU64::new(0);
        Self(NonZeroU64::MIN.saturating_add(MADE.fetch_add(1, Relaxed)))
    }
}

/// Requests of a batch that a device's queues have.
#[derive(Debug, Default)]
pub struct Kept(Vec<Share>);

/// Those of one queue.
#[derive(Debug)]
struct Share {
    queue: u16,
    count: usize,
}

impl Kept {
    /// All of them.
    pub fn len(&self) -> usize {
        self.0.iter().map(|share| share.count).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether all are in queue `number`.
    pub(crate) fn are_all_in(&self, number: u16) -> bool {
        self.0.iter().all(|share| share.queue == number || share.count == 0)
    }

    /// Whether there are some in queue `number`.
    pub(crate) fn are_some_in(&self, number: u16) -> bool {
        self.0.iter().any(|share| share.queue == number && share.count > 0)
    }

    /// So many more were sent in queue `number`.
    pub(crate) fn add(&mut self, number: u16, count: usize) {
        match self.0.iter_mut().find(|share| share.queue == number) {
            Some(share) => share.count += count,
            None => self.0.push(Share { queue: number, count }),
        }
    }

    /// So many of queue `number` were answered.
    pub(crate) fn remove(&mut self, number: u16, count: usize) {
        if let Some(share) = self.0.iter_mut().find(|share| share.queue == number) {
            share.count -= count;
        }
    }

    /// None any more.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}
