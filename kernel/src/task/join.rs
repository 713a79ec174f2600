//! A task's result, and the handle that waits for it.
//! Neighbours: `executor` (makes the pair when it spawns a task).
#![forbid(unsafe_code)]

use alloc::sync::Arc;
use core::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use super::memory::{self, OutOfMemory};

/// The result of a spawned task: await it to get the value. Dropping it leaves the task running.
#[must_use = "a task runs on without its handle; drop it with `drop(handle)` to say so"]
pub struct JoinHandle<T>(Arc<Shared<T>>);

/// The task's end of the pair.
pub(super) struct Promise<T>(Arc<Shared<T>>);

/// Only tasks come here, never a handler: a plain lock will do.
type Shared<T> = spin::Mutex<State<T>>;

enum State<T> {
    Running(Option<Waker>),
    Finished(T),
    Taken,
}

/// The two ends.
pub(super) fn pair<T>() -> Result<(JoinHandle<T>, Promise<T>), OutOfMemory> {
    let shared = memory::shared(spin::Mutex::new(State::Running(None)))?;
    Ok((JoinHandle(shared.clone()), Promise(shared)))
}

impl<T> JoinHandle<T> {
    /// The task has its result.
    pub fn is_finished(&self) -> bool {
        !matches!(*self.0.lock(), State::Running(_))
    }
}

impl<T> Promise<T> {
    /// Hands the result over and wakes who waits for it.
    pub(super) fn give(self, value: T) {
        let before = core::mem::replace(&mut *self.0.lock(), State::Finished(value));
        if let State::Running(Some(waiter)) = before {
            waiter.wake();
        }
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = T;

    /// # Panics
    /// When polled after it gave the value.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let mut state = self.0.lock();
        if let State::Running(waiter) = &mut *state {
            match waiter {
                Some(waiter) => waiter.clone_from(cx.waker()),
                None => *waiter = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        match core::mem::replace(&mut *state, State::Taken) {
            State::Finished(value) => Poll::Ready(value),
            State::Running(_) | State::Taken => panic!("a JoinHandle is polled after it gave the value"),
        }
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").field("finished", &self.is_finished()).finish()
    }
}
