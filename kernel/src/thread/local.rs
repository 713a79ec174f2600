//! Values that each thread has of its own: made when the thread first asks, dropped when it ends.
//! Neighbours: `cpu::owned` (keeps other threads away), `task::scheduler` (drops them at a thread's end).
#![forbid(unsafe_code)]

use alloc::sync::Arc;

use crate::{cpu::owned::Owned, task::scheduler};

/// Declares values that each thread has of its own, as in Rust's standard library:
/// `thread_local! { static COUNT: Cell<u32> = Cell::new(0); }`.
///
/// Tasks have none: a task may go from one worker thread to another wherever it awaits.
#[macro_export]
macro_rules! thread_local {
    ($($(#[$attribute:meta])* $vis:vis static $name:ident: $type:ty = $first:expr;)+) => {
        $(
            $(#[$attribute])*
            $vis static $name: $crate::thread::LocalKey<$type> = $crate::thread::LocalKey::new(|| $first);
        )+
    };
}

/// The name of a value that each thread has of its own; made by [`thread_local!`](crate::thread_local).
pub struct LocalKey<T: 'static> {
    first: fn() -> T,
    /// So that two keys never have one address.
    _place: u8,
}

impl<T: 'static> LocalKey<T> {
    #[doc(hidden)]
    pub const fn new(first: fn() -> T) -> Self {
        Self { first, _place: 0 }
    }

    /// Calls `act` with this thread's value.
    pub fn with<R>(&'static self, act: impl FnOnce(&T) -> R) -> R {
        let key = core::ptr::from_ref(self).addr();
        let thread = scheduler::current();
        let find = || {
            let locals = thread.locals.lock();
            locals.iter().find(|(other, _)| *other == key).map(|(_, value)| value.clone())
        };
        let value = find().unwrap_or_else(|| {
            // Not under the lock: it may ask for other values of this thread.
            let value = Arc::new(Owned::new((self.first)()));
            thread.locals.lock().push((key, value.clone()));
            value
        });
        match value.downcast_ref::<Owned<T>>().and_then(Owned::get) {
            Some(value) => act(value),
            None => unreachable!("a thread found another's value"),
        }
    }
}

impl<T: 'static> core::fmt::Debug for LocalKey<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad("LocalKey")
    }
}
