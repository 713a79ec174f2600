//! When a task is ready: the state that wakers and the executor share.
//!
//! A wake sets one bit and, if the task is neither queued nor running, puts it in its executor's run queue: no
//! memory is taken or given back, so a handler may do it. A task that is woken while it runs is queued again
//! by the executor once it has run.
#![forbid(unsafe_code)]

use alloc::{boxed::Box, sync::Arc, task::Wake};
use core::{
    future::Future,
    pin::Pin,
    sync::atomic::{AtomicU8, Ordering},
    task::{Context, Waker},
};

use super::executor::Place;

/// Woken and not yet running.
const READY: u8 = 1 << 0;
/// Being polled.
const RUNNING: u8 = 1 << 1;
/// Has its result; never polled again.
const DONE: u8 = 1 << 2;

/// The future of a task. It is `Send`: with more CPUs a task may be polled by another than spawned it.
pub(super) type TaskFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A spawned future.
pub(super) struct Task {
    state: AtomicU8,
    /// Locked by the poller alone, which `RUNNING` makes the only one; handlers never touch it.
    future: spin::Mutex<Option<TaskFuture>>,
    place: Place,
}

impl Task {
    /// A task that is ready to run and belongs into the queue of `place`.
    pub(super) fn new(future: TaskFuture, place: Place) -> Self {
        Self { state: AtomicU8::new(READY), future: spin::Mutex::new(Some(future)), place }
    }

    /// Polls the task that was taken from the run queue, once.
    pub(super) fn run(self: Arc<Self>) {
        if self.state.load(Ordering::Acquire) & DONE != 0 {
            // Queued by its last waker, so that it is freed here and not in a handler.
            self.state.store(DONE, Ordering::Release);
            return;
        }
        // `READY` goes before the poll: whatever happens from here on is a reason for one more.
        self.state.swap(RUNNING, Ordering::AcqRel);
        if self.poll() {
            self.state.store(DONE, Ordering::Release);
        } else if self.state.compare_exchange(RUNNING, 0, Ordering::AcqRel, Ordering::Acquire).is_err() {
            self.state.store(READY, Ordering::Release);
            self.enqueue();
        }
    }

    /// One poll; drops the future when it is finished.
    fn poll(self: &Arc<Self>) -> bool {
        let waker = Waker::from(self.clone());
        let mut future = self.future.lock();
        let finished = match future.as_mut() {
            Some(future) => future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready(),
            None => true,
        };
        if finished {
            *future = None;
        }
        finished
    }

    /// Marks the task ready. Whether the caller has to queue it: not when it is queued, nor when it runs.
    fn make_ready(&self) -> bool {
        self.state.fetch_or(READY, Ordering::AcqRel) & (READY | RUNNING) == 0
    }

    fn enqueue(self: Arc<Self>) {
        let queue = self.place.queue();
        queue.push(self);
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        if self.make_ready() {
            self.enqueue();
        }
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.make_ready() {
            self.clone().enqueue();
        }
    }
}
