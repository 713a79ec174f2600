//! The lock of apps: who waits for it gives its CPU to others. Not for interrupt handlers.
//! Neighbours: `sleeping` (the algorithm), `waiters` (who waits), `condvar`, `cell` (the data), `stall` (reports).
#![forbid(unsafe_code)]

use core::{
    fmt,
    ops::{Deref, DerefMut},
};

use super::{
    cell::{Access, Guarded, Raw, Take},
    sleeping::Sleeping,
    stall::Blocking,
};

/// A lock that threads wait for by giving way to others, and tasks by awaiting. There is no poisoning: a panic ends the
/// guest.
#[derive(Default)]
pub struct Mutex<T: ?Sized>(Guarded<Told, T>);

/// The lock, and who has it.
struct Told {
    lock: Sleeping,
    report: Blocking,
}

impl Told {
    const fn new() -> Self {
        Self { lock: Sleeping::new(), report: Blocking::new() }
    }
}

impl Take for Told {
    fn take(&self) -> bool {
        let taken = self.lock.take();
        if taken {
            self.report.taken();
        }
        taken
    }
}

impl Default for Told {
    fn default() -> Self {
        Self::new()
    }
}

impl Raw for Told {
    #[inline(never)]
    fn lock(&self) {
        if !self.lock.try_lock() {
            let waits = self.report.waits();
            self.lock.wait(|| waits.look());
        }
        self.report.taken();
    }

    fn try_lock(&self) -> bool {
        let locked = self.lock.try_lock();
        if locked {
            self.report.taken();
        }
        locked
    }

    fn unlock(&self) {
        self.lock.unlock();
    }
}

impl<T> Mutex<T> {
    /// A new, unlocked lock.
    pub const fn new(value: T) -> Self {
        Self(Guarded::new(Told::new(), value))
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
                self.0
                    .raw
                    .lock
                    .waiters
                    .until(|| self.0.take().map(|value| MutexGuard { lock: self, value }))
                    .await
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
        f.pad(if self.0.raw.lock.is_locked() { "Mutex(locked)" } else { "Mutex" })
    }
}

/// Access to the data of a [`Mutex`].
#[must_use = "the lock is given back when this is dropped"]
pub struct MutexGuard<'a, T: ?Sized> {
    lock: &'a Mutex<T>,
    value: Access<'a, Told, T>,
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
