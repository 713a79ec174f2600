//! Data behind a lock, whichever lock that is: the one place of this module with unsafe code.
//! Neighbours: `irq_mutex`, `mutex`, `rw_lock` (the locks).

use core::{
    cell::UnsafeCell,
    ops::{Deref, DerefMut},
};

/// A lock without data: between a lock and its unlock no other lock succeeds. Implemented by the neighbours only,
/// whose algorithms are checked in every interleaving.
pub(super) trait Raw {
    /// Takes it; waits for it if others have it.
    fn lock(&self);
    /// Takes it if that needs no wait.
    fn try_lock(&self) -> bool;
    /// Gives it back. The caller has it.
    fn unlock(&self);
}

/// A [`Raw`] lock that many may have at a time, to read: between a share and its unshare no [`Raw`] lock succeeds, and the other
/// way round. Its algorithm is checked in every interleaving.
pub(super) trait Share: Raw {
    /// Takes it to read; waits for it if it is locked.
    fn share(&self);
    /// Takes it to read if that needs no wait.
    fn try_share(&self) -> bool;
    /// Gives it back. The caller has it to read.
    fn unshare(&self);
}

/// A [`Raw`] lock with another way to try.
pub(super) trait Take {
    /// As [`Raw::try_lock`], and lets the holder know that somebody waits.
    fn take(&self) -> bool;
}

/// A [`Raw`] lock that notes who has it.
pub(super) trait Marked: Raw {
    /// As [`Raw::lock`], by who is told by `mark`.
    fn lock_as(&self, mark: u64);
}

/// Data that only the holder of `raw` reaches.
#[derive(Default)]
pub(super) struct Guarded<R, T: ?Sized> {
    pub(super) raw: R,
    data: UnsafeCell<T>,
}

// SAFETY: the data is reached by one CPU or thread at a time, so it is moved from one to the other, and not shared.
unsafe impl<R: Sync, T: ?Sized + Send> Sync for Guarded<R, T> {}

impl<R, T> Guarded<R, T> {
    pub(super) const fn new(raw: R, value: T) -> Self {
        Self { raw, data: UnsafeCell::new(value) }
    }
}

impl<R, T> Guarded<R, T> {
    /// The data of a lock that nobody can have.
    pub(super) fn into_inner(self) -> T {
        self.data.into_inner()
    }
}

impl<R: Raw, T: ?Sized> Guarded<R, T> {
    #[inline]
    pub(super) fn lock(&self) -> Access<'_, R, T> {
        self.raw.lock();
        Access(self)
    }

    #[inline]
    pub(super) fn try_lock(&self) -> Option<Access<'_, R, T>> {
        self.raw.try_lock().then(|| Access(self))
    }
}

impl<R: Marked, T: ?Sized> Guarded<R, T> {
    #[inline(always)]
    pub(super) fn lock_as(&self, mark: u64) -> Access<'_, R, T> {
        self.raw.lock_as(mark);
        Access(self)
    }
}

impl<R: Raw + Take, T: ?Sized> Guarded<R, T> {
    /// Takes it as a waiter does, who comes again if that fails.
    pub(super) fn take(&self) -> Option<Access<'_, R, T>> {
        self.raw.take().then(|| Access(self))
    }
}

/// Readers are on several CPUs at a time: hence `Sync`.
impl<R: Share, T: ?Sized + Sync> Guarded<R, T> {
    pub(super) fn share(&self) -> Shared<'_, R, T> {
        self.raw.share();
        Shared(self)
    }

    pub(super) fn try_share(&self) -> Option<Shared<'_, R, T>> {
        self.raw.try_share().then(|| Shared(self))
    }
}

/// The proof that the lock is shared; made by `share` and `try_share` only, and its drop gives the share back.
pub(super) struct Shared<'a, R: Share, T: ?Sized>(&'a Guarded<R, T>);

impl<R: Share, T: ?Sized> Deref for Shared<'_, R, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: while this lives no `Access` does, so nobody changes the data; and that others read it meanwhile was
        // allowed when this was made.
        unsafe { &*self.0.data.get() }
    }
}

impl<R: Share, T: ?Sized> Drop for Shared<'_, R, T> {
    fn drop(&mut self) {
        self.0.raw.unshare();
    }
}

/// The proof that the lock is held; made by `lock` and `try_lock` only, and its drop unlocks.
pub(super) struct Access<'a, R: Raw, T: ?Sized>(&'a Guarded<R, T>);

impl<R: Raw, T: ?Sized> Deref for Access<'_, R, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this is the one `Access` there is, and it is borrowed: nobody changes the data meanwhile.
        unsafe { &*self.0.data.get() }
    }
}

impl<R: Raw, T: ?Sized> DerefMut for Access<'_, R, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this is the one `Access` there is, and it is borrowed mutably: nobody else reaches the data.
        unsafe { &mut *self.0.data.get() }
    }
}

impl<R: Raw, T: ?Sized> Drop for Access<'_, R, T> {
    #[inline]
    fn drop(&mut self) {
        self.0.raw.unlock();
    }
}
