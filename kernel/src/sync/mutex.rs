//! The lock of apps: who waits for it gives its CPU to others. Not for interrupt handlers.
//! Neighbours: `waiters` (who waits), `condvar`, `cell` (the data), `stall` (reports).
#![forbid(unsafe_code)]

use core::{
    fmt,
    ops::{Deref, DerefMut},
    sync::atomic::{AtomicU8, Ordering},
};

use super::{
    cell::{Access, Guarded, Raw, Take},
    stall::Blocking,
    waiters::Waiters,
};

const FREE: u8 = 0;
const HELD: u8 = 1;
/// Held, and perhaps somebody waits.
const WANTED: u8 = 2;

/// A lock that threads wait for by giving way to others, and tasks by awaiting. There is no poisoning: a panic ends the
/// guest.
#[derive(Default)]
pub struct Mutex<T: ?Sized>(Guarded<Sleeping, T>);

/// The lock, who waits, and who has it.
struct Sleeping {
    state: AtomicU8,
    waiters: Waiters,
    report: Blocking,
}

impl Sleeping {
    const fn new() -> Self {
        Self { state: AtomicU8::new(FREE), waiters: Waiters::new(), report: Blocking::new() }
    }
}

impl Take for Sleeping {
    fn take(&self) -> bool {
        let taken = self.state.swap(WANTED, Ordering::Acquire) == FREE;
        if taken {
            self.report.taken();
        }
        taken
    }
}

impl Default for Sleeping {
    fn default() -> Self {
        Self::new()
    }
}

impl Raw for Sleeping {
    #[inline(never)]
    fn lock(&self) {
        if self.state.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_err() {
            let waits = self.report.waits();
            self.waiters.block_until(|| {
                waits.look();
                self.take().then_some(())
            });
        } else {
            self.report.taken();
        }
    }

    fn try_lock(&self) -> bool {
        let locked = self.state.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok();
        if locked {
            self.report.taken();
        }
        locked
    }

    fn unlock(&self) {
        if self.state.swap(FREE, Ordering::Release) == WANTED {
            self.waiters.wake_one();
        }
    }
}

impl<T> Mutex<T> {
    /// A new, unlocked lock.
    pub const fn new(value: T) -> Self {
        Self(Guarded::new(Sleeping::new(), value))
    }

    /// The data.
    pub fn into_inner(self) -> T {
        self.0.into_inner()
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Waits for the lock, as a thread. Dropping the guard gives it back.
    ///
    /// # Panics
    /// With interrupts disabled, if it is taken.
    #[inline(always)]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard { lock: self, value: self.0.lock() }
    }

    /// Waits for the lock, as a task.
    pub async fn lock_async(&self) -> MutexGuard<'_, T> {
        match self.try_lock() {
            Some(guard) => guard,
            None => {
                self.0.raw.waiters.until(|| self.0.take().map(|value| MutexGuard { lock: self, value })).await
            }
        }
    }

    /// Takes the lock, unless it is taken.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock().map(|value| MutexGuard { lock: self, value })
    }
}

impl<T: ?Sized> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(if self.0.raw.state.load(Ordering::Relaxed) == FREE { "Mutex" } else { "Mutex(locked)" })
    }
}

/// Access to the data of a [`Mutex`].
#[must_use = "the lock is given back when this is dropped"]
pub struct MutexGuard<'a, T: ?Sized> {
    lock: &'a Mutex<T>,
    value: Access<'a, Sleeping, T>,
}

impl<'a, T: ?Sized> MutexGuard<'a, T> {
    /// Its lock.
    pub(super) fn lock(&self) -> &'a Mutex<T> {
        self.lock
    }
}

impl<T: ?Sized> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("MutexGuard")
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}
