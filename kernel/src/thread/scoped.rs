//! Threads that borrow from whoever starts them, who does not go on before they have ended, as in Rust's standard library.
//! Neighbours: `cpu::lend` (the borrowing), `super::Builder` (what a thread may be told).
#![forbid(unsafe_code)]

use alloc::boxed::Box;

use super::{Builder, JoinHandle};
use crate::{
    cpu::lend::{Scope, lending},
    task::{self, OutOfMemory, life, scheduler},
};

/// Calls `body`, which may start threads that borrow, and waits until they have ended. Their values come by their handles.
///
/// # Panics
/// When memory is out, and with interrupts disabled.
pub fn scope<'env, F, T>(body: F) -> T
where
    F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T,
{
    let result = lending(scheduler::current().into(), scheduler::block, body);
    life::reap();
    result
}

impl<'scope> Scope<'scope, '_> {
    /// Starts a thread that runs `body`. Without its handle it is waited for at the end of the scope.
    ///
    /// # Panics
    /// When memory is out; [`Builder::spawn_scoped`] says so instead.
    pub fn spawn<F, T>(&'scope self, body: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        match Builder::new().spawn_scoped(self, body) {
            Ok(handle) => handle,
            Err(error) => panic!("Scope::spawn: {error}"),
        }
    }
}

impl Builder {
    /// Starts the thread in a scope, so that it may borrow.
    ///
    /// # Errors
    /// As for [`spawn`](Self::spawn).
    pub fn spawn_scoped<'scope, F, T>(
        self,
        scope: &'scope Scope<'scope, '_>,
        body: F,
    ) -> Result<JoinHandle<T>, OutOfMemory>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        let (promise, result) = task::promise()?;
        self.start(scope.lend(Box::new(move || promise.give(body()))), result)
    }
}

kernel_test! {
    /// The threads write to what the scope borrowed, and are through when it ends, joined or not.
    fn threads_borrow_from_the_scope_that_waits_for_them() {
        let (mut numbers, factor) = ([1_u64, 2, 3, 4], 10);
        let sum: u64 = super::scope(|scope| {
            let handles = numbers.each_mut().map(|number| scope.spawn(|| {
                super::yield_now();
                *number *= factor;
                *number
            }));
            handles.into_iter().map(JoinHandle::join).sum()
        });
        assert_eq!((sum, numbers), (100, [10, 20, 30, 40]));
        super::scope(|scope| {
            for number in &mut numbers {
                drop(scope.spawn(|| {
                    super::sleep(core::time::Duration::from_millis(1));
                    // One that a thread of the scope starts is waited for as well.
                    drop(scope.spawn(|| *number += 1));
                }));
            }
        });
        assert_eq!(numbers, [11, 21, 31, 41]);
    }
}
