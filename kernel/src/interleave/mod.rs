//! The algorithms of locks, waits and wake-ups in every interleaving of two or three threads, by `loom`: the very source
//! of the guest, compiled once more with atomics whose every order is tried.
//! This file has what the sources ask for, and the sources; `locks`, `tasks` and `cpus` have the tests.
//! Neighbours: `sync::atomic` (what the sources have in the guest).
#![allow(dead_code, reason = "the sources are compiled whole, and tested by the part that has threads")]
#![allow(unreachable_pub, reason = "the sources are public elsewhere")]
#![allow(clippy::duplicate_mod, reason = "the sources are compiled once more, for loom")]

use core::ops::{Deref, DerefMut};
use loom::{
    cell::{MutPtr, UnsafeCell},
    sync::Notify,
    thread,
};

mod atomic {
    pub(crate) use loom::sync::atomic::{
        AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
    };

    macro_rules! constructor {
        ($(#[$doc:meta])* $vis:vis fn $($function:tt)*) => {
            $(#[$doc])* $vis fn $($function)*
        };
    }
    pub(crate) use constructor;
}

/// Sleeping CPUs: a kick that comes before the sleep ends it, as hypervisors promise.
mod wait {
    use super::{atomic::*, *};

    pub(super) const EARLY_LOOKS: u32 = 1;
    pub(super) const LOOKS: u32 = 2;
    pub(super) const CPUS: usize = 3;

    loom::lazy_static! {
        static ref KICKS: [Notify; CPUS] = core::array::from_fn(|_| Notify::new());
    }

    pub(super) fn relax() {
        thread::yield_now();
    }

    pub(super) fn sleep(cpu: u32, word: &AtomicU8, seen: u8) {
        if word.load(Ordering::SeqCst) == seen {
            KICKS[cpu as usize].wait();
        }
    }

    pub(super) fn kick(cpu: u32) {
        KICKS[cpu as usize].notify();
    }
}

/// A spin lock, as `waiters` sees it.
struct IrqMutex<T>(loom::sync::Mutex<T>);

impl<T> IrqMutex<T> {
    fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
        self.0.lock().unwrap()
    }
}

/// The thread that waits: a wake-up that comes before the wait ends it, as the parker promises.
mod current {
    use super::*;
    use std::task::{Wake, Waker};

    struct Current(Notify);

    impl Wake for Current {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.notify();
        }
    }

    loom::thread_local! {
        static CURRENT: std::sync::Arc<Current> = std::sync::Arc::new(Current(Notify::new()));
    }

    pub(super) fn waker() -> Waker {
        CURRENT.with(|current| current.clone().into())
    }

    pub(super) fn block() {
        CURRENT.with(|current| current.clone()).0.wait();
    }
}

/// The blocking lock, with data that tells two holders.
struct Mutex<T: ?Sized> {
    lock: Sleeping,
    data: UnsafeCell<T>,
}

impl<T> Mutex<T> {
    fn new(value: T) -> Self {
        Self { lock: Sleeping::new(), data: UnsafeCell::new(value) }
    }
}

impl<T: ?Sized> Mutex<T> {
    fn lock(&self) -> MutexGuard<'_, T> {
        if !self.lock.try_lock() {
            self.lock.wait(|| ());
        }
        self.guard()
    }

    async fn lock_async(&self) -> MutexGuard<'_, T> {
        self.lock.waiters.until(|| self.lock.take().then_some(())).await;
        self.guard()
    }

    fn guard(&self) -> MutexGuard<'_, T> {
        MutexGuard { data: Some(self.data.get_mut()), lock: self }
    }
}

impl<T: ?Sized> core::fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad("Mutex")
    }
}

struct MutexGuard<'a, T: ?Sized> {
    data: Option<MutPtr<T>>,
    lock: &'a Mutex<T>,
}

impl<'a, T: ?Sized> MutexGuard<'a, T> {
    fn lock(&self) -> &'a Mutex<T> {
        self.lock
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: loom lends the place to this guard alone, and panics when another has it.
        unsafe { self.data.as_ref().unwrap().deref() }
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above.
        unsafe { self.data.as_ref().unwrap().deref() }
    }
}

impl<T: ?Sized> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        self.data = None;
        self.lock.lock.unlock();
    }
}

#[path = "../task/bell.rs"]
mod bell;
#[path = "../sync/channel.rs"]
mod channel;
#[path = "../sync/condvar.rs"]
mod condvar;
#[path = "../task/parker.rs"]
mod parker;
#[path = "../sync/queued.rs"]
mod queued;
#[path = "../task/ready.rs"]
mod ready;
#[path = "../cpu/tlb/requests.rs"]
mod requests;
#[path = "../sync/semaphore.rs"]
mod semaphore;
#[path = "../sync/sharing.rs"]
mod sharing;
#[path = "../sync/sleeping.rs"]
mod sleeping;
#[path = "../sync/waiters.rs"]
mod waiters;

mod cpus;
mod locks;
mod tasks;

use condvar::Condvar;
use sleeping::Sleeping;

/// Tries all interleavings with that many preemptions, which keeps a test below some seconds.
fn model(preemptions: usize, test: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(test);
}

/// A number that is no atomic: two threads that touch it at once are told by loom.
#[derive(Default)]
struct Plain(UnsafeCell<u32>);

impl Plain {
    fn add_one(&self) {
        // SAFETY: loom lends the place, and panics when it is lent to another thread as well.
        self.0.with_mut(|value| unsafe { *value += 1 });
    }

    fn get(&self) -> u32 {
        // SAFETY: as in `add_one`.
        self.0.with(|value| unsafe { *value })
    }
}
