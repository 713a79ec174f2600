//! A number of permits, and a place where so many meet.
//! The same source is checked in every interleaving by the tests (`crate::interleave`).
//! Neighbours: `waiters` (who waits for one).
#![forbid(unsafe_code)]

use core::fmt;

use super::{
    Condvar, Mutex,
    atomic::{AtomicUsize, Ordering, constructor},
    waiters::Waiters,
};

/// So many at a time may do something.
pub struct Semaphore {
    permits: AtomicUsize,
    waiters: Waiters,
}

impl Semaphore {
    constructor! {
        /// That many permits.
        pub fn new(permits: usize) -> Self {
            Self { permits: AtomicUsize::new(permits), waiters: Waiters::new() }
        }
    }

    /// Waits for a permit, as a thread. Dropping it gives it back.
    pub fn acquire(&self) -> Permit<'_> {
        self.waiters.block_until(|| self.try_acquire())
    }

    /// Waits for a permit, as a task.
    pub async fn acquire_async(&self) -> Permit<'_> {
        self.waiters.until(|| self.try_acquire()).await
    }

    /// Takes a permit, if there is one.
    pub fn try_acquire(&self) -> Option<Permit<'_>> {
        let taken =
            self.permits.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |permits| permits.checked_sub(1));
        taken.is_ok().then(|| Permit(self))
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Semaphore({})", self.permits.load(Ordering::Relaxed))
    }
}

/// One permit of a [`Semaphore`].
#[derive(Debug)]
#[must_use = "the permit is given back when this is dropped"]
pub struct Permit<'a>(&'a Semaphore);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.permits.fetch_add(1, Ordering::Release);
        self.0.waiters.wake_one();
    }
}

/// A place where threads wait until a number of them has come.
#[derive(Debug)]
pub struct Barrier {
    parties: usize,
    /// How many wait, and how often all have met.
    state: Mutex<(usize, u64)>,
    met: Condvar,
}

impl Barrier {
    constructor! {
        /// For so many.
        pub fn new(parties: usize) -> Self {
            Self { parties, state: Mutex::new((0, 0)), met: Condvar::new() }
        }
    }

    /// Waits for the others; `true` for the one that came last.
    pub fn wait(&self) -> bool {
        let mut state = self.state.lock();
        state.0 += 1;
        let round = state.1;
        if state.0 >= self.parties {
            *state = (0, round + 1);
            drop(state);
            self.met.notify_all();
            return true;
        }
        drop(self.met.wait_while(state, |state| state.1 == round));
        false
    }
}
