//! The lock under [`Mutex`](super::Mutex): free, held, or held while somebody waits.
//! The same source is checked in every interleaving by the tests (`crate::interleave`).
//! Neighbours: `mutex` (the data behind it), `waiters` (who waits).
#![forbid(unsafe_code)]

use super::{
    atomic::{AtomicU8, Ordering, constructor},
    waiters::Waiters,
};

const FREE: u8 = 0;
const HELD: u8 = 1;
/// Held, and perhaps somebody waits.
const WANTED: u8 = 2;

/// The lock, and who waits for it.
pub(super) struct Sleeping {
    state: AtomicU8,
    pub(super) waiters: Waiters,
}

impl Sleeping {
    constructor! {
        /// A free lock.
        pub(super) fn new() -> Self {
            Self { state: AtomicU8::new(FREE), waiters: Waiters::new() }
        }
    }

    /// Takes it if it is free.
    pub(super) fn try_lock(&self) -> bool {
        self.state.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// As [`try_lock`](Self::try_lock), for one who waits otherwise: the holder is to wake somebody.
    pub(super) fn take(&self) -> bool {
        self.state.swap(WANTED, Ordering::Acquire) == FREE
    }

    /// Waits for it, as a thread; calls `look` before each try.
    pub(super) fn wait(&self, look: impl Fn()) {
        self.waiters.block_until(|| {
            look();
            self.take().then_some(())
        });
    }

    /// Gives it back.
    pub(super) fn unlock(&self) {
        if self.state.swap(FREE, Ordering::Release) == WANTED {
            self.waiters.wake_one();
        }
    }

    /// Whether somebody has it.
    pub(super) fn is_locked(&self) -> bool {
        self.state.load(Ordering::Relaxed) != FREE
    }
}
