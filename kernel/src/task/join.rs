//! The result of a task or a thread, and the handle that waits for it.
//! Neighbours: `executor` and `crate::thread` (make the two ends).
#![forbid(unsafe_code)]

use alloc::sync::Arc;
use core::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use super::{
    memory::{self, OutOfMemory},
    waker::Task,
};
use crate::sync::IrqMutex;

/// The result of a spawned task: await it to get the value. Dropping it leaves the task running.
#[must_use = "a task runs on without its handle; drop it with `drop(handle)` to say so"]
pub struct JoinHandle<T> {
    result: Receiver<T>,
    task: Arc<Task>,
}

/// The end that waits.
pub(crate) struct Receiver<T>(Arc<Shared<T>>);

/// The end that gives.
pub(crate) struct Promise<T>(Arc<Shared<T>>);

type Shared<T> = IrqMutex<State<T>>;

enum State<T> {
    Running(Option<Waker>),
    Finished(T),
    Taken,
}

/// The two ends.
pub(crate) fn promise<T>() -> Result<(Promise<T>, Receiver<T>), OutOfMemory> {
    let shared = memory::shared(Shared::new(State::Running(None)))?;
    Ok((Promise(shared.clone()), Receiver(shared)))
}

impl<T> JoinHandle<T> {
    pub(super) fn new(result: Receiver<T>, task: Arc<Task>) -> Self {
        Self { result, task }
    }

    /// The task has its result.
    pub fn is_finished(&self) -> bool {
        self.result.is_finished()
    }

    /// Has the task dropped where it waits, or next will: it is not polled again. One that is being polled this moment
    /// may still finish.
    pub fn cancel(self) {
        self.task.cancel();
    }
}

impl<T> Receiver<T> {
    /// The value was given.
    pub(crate) fn is_finished(&self) -> bool {
        !matches!(*self.0.lock(), State::Running(_))
    }
}

impl<T> Promise<T> {
    /// Hands the result over and wakes who waits for it.
    pub(crate) fn give(self, value: T) {
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
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        Pin::new(&mut self.result).poll(cx)
    }
}

impl<T> Future for Receiver<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        // A waker may free a task: neither cloned over nor dropped under the lock.
        let mut old = None;
        let mut state = self.0.lock();
        if let State::Running(waiter) = &mut *state {
            if !waiter.as_ref().is_some_and(|waiter| waiter.will_wake(cx.waker())) {
                old = waiter.replace(cx.waker().clone());
            }
            drop(state);
            drop(old);
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
