//! What one CPU is asked to flush: counters of what was asked and done, and a word with the pages.
//! The same source is checked in every interleaving by the tests (`crate::interleave`).
//! Neighbours: `tlb` (asks, serves, and knows what the word means).
#![forbid(unsafe_code)]

use super::atomic::{AtomicU64, Ordering, constructor};

/// What one CPU is asked to flush.
#[derive(Debug)]
pub(crate) struct Requests {
    /// Twice the number of requests, plus [`ASLEEP`].
    asked: AtomicU64,
    /// The number of requests that are done.
    done: AtomicU64,
    /// What to flush: [`NONE`], [`ALL`], or what `tlb` makes of it.
    pages: AtomicU64,
}

/// No pages, and all of them.
const NONE: u64 = 0;
pub(super) const ALL: u64 = u64::MAX;

/// The CPU sleeps, and will look at its requests before it uses memory.
const ASLEEP: u64 = 1;
const REQUEST: u64 = 2;

impl Requests {
    constructor! {
        /// None so far.
        pub(crate) fn new() -> Self {
            Self { asked: AtomicU64::new(0), done: AtomicU64::new(0), pages: AtomicU64::new(NONE) }
        }
    }

    /// Notes a request. Whether the CPU must be interrupted for it, and waited for.
    pub(super) fn ask(&self, pages: u64) -> bool {
        let joined = |before| Some(if before == NONE || before == pages { pages } else { ALL });
        let _ = self.pages.fetch_update(Ordering::AcqRel, Ordering::Relaxed, joined);
        // The pages first: who sees the request sees them, or has flushed them already.
        self.asked.fetch_add(REQUEST, Ordering::SeqCst) & ASLEEP == 0
    }

    pub(super) fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst) / REQUEST
    }

    pub(super) fn done(&self) -> u64 {
        self.done.load(Ordering::Acquire)
    }

    /// Whether something is asked that is not done.
    #[inline]
    pub(super) fn is_behind(&self) -> bool {
        self.asked.load(Ordering::Relaxed) / REQUEST != self.done.load(Ordering::Relaxed)
    }

    /// Does what is asked. On this CPU, with interrupts disabled: nobody else takes the pages and is late with them.
    pub(super) fn serve(&self, flush: &dyn Fn(u64)) {
        let asked = self.asked();
        if self.done.load(Ordering::Relaxed) != asked {
            flush(self.pages.swap(NONE, Ordering::AcqRel));
            self.done.store(asked, Ordering::Release);
        }
    }

    /// This CPU will not use memory but its own until [`wake`](Self::wake).
    pub(super) fn sleep(&self, flush: &dyn Fn(u64)) {
        self.asked.fetch_or(ASLEEP, Ordering::SeqCst);
        self.serve(flush);
    }

    /// This CPU uses memory again.
    #[inline]
    pub(super) fn wake(&self, flush: &dyn Fn(u64)) {
        if self.asked.load(Ordering::Relaxed) & ASLEEP != 0 {
            self.asked.fetch_and(!ASLEEP, Ordering::SeqCst);
            self.serve(flush);
        }
    }
}
