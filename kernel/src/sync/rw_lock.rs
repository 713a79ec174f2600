//! The lock of apps for what is read much and changed seldom: many readers at a time, or one writer.
//! Neighbours: `sharing` (the algorithm), `mutex` (one at a time), `cell` (the data).
#![forbid(unsafe_code)]

use core::{
    fmt,
    ops::{Deref, DerefMut},
};

use super::{
    cell::{Access, Guarded, Raw, Share, Shared},
    sharing::Sharing,
};

/// A lock that many may have at a time to read, or one to write. Threads wait for it by giving way to others, tasks by
/// awaiting. Writers come first: who has it to read and asks for it to read once more may wait for ever, behind a writer that
/// waits for the first. There is no poisoning: a panic ends the guest.
pub struct RwLock<T: ?Sized>(Guarded<Sharing, T>);

impl Raw for Sharing {
    fn lock(&self) {
        self.write();
    }

    fn try_lock(&self) -> bool {
        self.try_write()
    }

    fn unlock(&self) {
        self.end_write();
    }
}

impl Share for Sharing {
    fn share(&self) {
        self.read();
    }

    fn try_share(&self) -> bool {
        self.try_read()
    }

    fn unshare(&self) {
        self.end_read();
    }
}

impl<T> RwLock<T> {
    /// A new lock that nobody has.
    pub const fn new(value: T) -> Self {
        Self(Guarded::new(Sharing::new(), value))
    }

    /// The data.
    pub fn into_inner(self) -> T {
        self.0.into_inner()
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Waits until no writer has or wants it, as a thread. Dropping the guard gives it back.
    ///
    /// # Panics
    /// With interrupts disabled, if it has to wait.
    pub fn read(&self) -> ReadGuard<'_, T>
    where
        T: Sync,
    {
        ReadGuard(self.0.share())
    }

    /// As [`read`](Self::read), as a task.
    pub async fn read_async(&self) -> ReadGuard<'_, T>
    where
        T: Sync,
    {
        self.0.raw.readers.until(|| self.try_read()).await
    }

    /// As [`read`](Self::read), if that needs no wait.
    pub fn try_read(&self) -> Option<ReadGuard<'_, T>>
    where
        T: Sync,
    {
        self.0.try_share().map(ReadGuard)
    }

    /// Waits until nobody has it, as a thread. Dropping the guard gives it back.
    ///
    /// # Panics
    /// As [`read`](Self::read).
    pub fn write(&self) -> WriteGuard<'_, T> {
        WriteGuard(self.0.lock())
    }

    /// As [`write`](Self::write), as a task.
    pub async fn write_async(&self) -> WriteGuard<'_, T> {
        if let Some(guard) = self.try_write() {
            return guard;
        }
        let wish = self.0.raw.wish();
        let guard = self.0.raw.writers.until(|| self.try_write()).await;
        wish.granted();
        guard
    }

    /// As [`write`](Self::write), if that needs no wait.
    pub fn try_write(&self) -> Option<WriteGuard<'_, T>> {
        self.0.try_lock().map(WriteGuard)
    }
}

impl<T: ?Sized> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(if self.0.raw.is_free() { "RwLock" } else { "RwLock(locked)" })
    }
}

/// Access to the data of a [`RwLock`], to read.
#[must_use = "the lock is given back when this is dropped"]
pub struct ReadGuard<'a, T: ?Sized>(Shared<'a, Sharing, T>);

impl<T: ?Sized> Deref for ReadGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: ?Sized> fmt::Debug for ReadGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("ReadGuard")
    }
}

/// Access to the data of a [`RwLock`], to write.
#[must_use = "the lock is given back when this is dropped"]
pub struct WriteGuard<'a, T: ?Sized>(Access<'a, Sharing, T>);

impl<T: ?Sized> Deref for WriteGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: ?Sized> DerefMut for WriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: ?Sized> fmt::Debug for WriteGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("WriteGuard")
    }
}
