//! Many readers or one writer: the algorithm of [`RwLock`](super::RwLock), without the data.
//!
//! A writer that waits holds back readers that come after it, so that a stream of readers does not keep it out. It says so by
//! `wanted` before it looks at `state`, and who gives the lock back changes `state` before looking at `wanted`: one of them
//! sees the other.
//! The same source is checked in every interleaving by the tests (`crate::interleave`).
//! Neighbours: `waiters` (who waits), `rw_lock`.
#![forbid(unsafe_code)]

use super::{
    atomic::{AtomicU32, Ordering, constructor, fence},
    waiters::Waiters,
};

/// A writer has it; else the state is the number of readers.
const WRITER: u32 = u32::MAX;

/// The lock.
pub(super) struct Sharing {
    state: AtomicU32,
    /// Writers that wait.
    wanted: AtomicU32,
    pub(super) readers: Waiters,
    pub(super) writers: Waiters,
}

impl Sharing {
    constructor! {
        /// Nobody has it.
        pub(super) fn new() -> Self {
            Self { state: AtomicU32::new(0), wanted: AtomicU32::new(0), readers: Waiters::new(), writers: Waiters::new() }
        }
    }

    /// Joins the readers, unless there is a writer, or one waits.
    pub(super) fn try_read(&self) -> bool {
        // One less than the writer's mark is more than there can be.
        let joined = |readers: u32| readers.checked_add(1).filter(|&readers| readers != WRITER);
        self.wanted.load(Ordering::Acquire) == 0
            && self.state.fetch_update(Ordering::Acquire, Ordering::Relaxed, joined).is_ok()
    }

    /// Becomes the writer, if nobody has it.
    pub(super) fn try_write(&self) -> bool {
        self.state.compare_exchange(0, WRITER, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Waits until it is a reader, as a thread.
    pub(super) fn read(&self) {
        if !self.try_read() {
            self.readers.block_until(|| self.try_read().then_some(()));
        }
    }

    /// Waits until it is the writer, as a thread.
    pub(super) fn write(&self) {
        if !self.try_write() {
            let wish = self.wish();
            self.writers.block_until(|| self.try_write().then_some(()));
            wish.granted();
        }
    }

    /// Says that a writer waits; it must do so before it waits.
    pub(super) fn wish(&self) -> Wish<'_> {
        self.wanted.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        Wish { lock: self, granted: false }
    }

    /// Leaves the readers.
    pub(super) fn end_read(&self) {
        if self.state.fetch_sub(1, Ordering::Release) == 1 {
            fence(Ordering::SeqCst);
            if self.wanted.load(Ordering::Relaxed) != 0 {
                self.writers.wake_one();
            }
        }
    }

    /// Is the writer no more.
    pub(super) fn end_write(&self) {
        self.state.store(0, Ordering::Release);
        fence(Ordering::SeqCst);
        match self.wanted.load(Ordering::Relaxed) {
            0 => self.readers.wake_all(),
            _ => self.writers.wake_one(),
        }
    }

    /// Whether nobody has it.
    pub(super) fn is_free(&self) -> bool {
        self.state.load(Ordering::Relaxed) == 0
    }
}

/// A writer waits while it lives.
pub(super) struct Wish<'a> {
    lock: &'a Sharing,
    granted: bool,
}

impl Wish<'_> {
    /// The writer has the lock: readers are woken when it gives it back.
    pub(super) fn granted(mut self) {
        self.granted = true;
    }
}

/// Who gives up lets the readers go on that it held back.
impl Drop for Wish<'_> {
    fn drop(&mut self) {
        if self.lock.wanted.fetch_sub(1, Ordering::Release) == 1 && !self.granted {
            self.lock.readers.wake_all();
        }
    }
}
