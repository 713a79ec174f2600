//! A value that only one thread touches, in a place that all may see: what thread-local values are made of.
//! Neighbours: `switch` (which thread runs), `crate::thread::local` (keeps them).

use core::mem::ManuallyDrop;

/// A value of the thread that made it.
#[derive(Debug)]
pub(crate) struct Owned<T> {
    thread: u64,
    value: ManuallyDrop<T>,
}

// SAFETY: other threads reach the value neither by `get` nor by `drop`, which ask who runs.
unsafe impl<T> Send for Owned<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Owned<T> {}

impl<T> Owned<T> {
    /// A value of the thread that runs this.
    pub(crate) fn new(value: T) -> Self {
        Self { thread: super::switch::current_id(), value: ManuallyDrop::new(value) }
    }

    /// The value, in its own thread.
    pub(crate) fn get(&self) -> Option<&T> {
        (self.thread == super::switch::current_id()).then_some(&*self.value)
    }
}

impl<T> Drop for Owned<T> {
    /// In another thread the value is kept: it may be of a kind that only its own may drop.
    fn drop(&mut self) {
        if self.get().is_some() {
            // SAFETY: dropped here only, once.
            unsafe { ManuallyDrop::drop(&mut self.value) };
        }
    }
}
