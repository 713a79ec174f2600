//! When a task is ready: the state that wakers and workers share.
//!
//! A wake sets one bit and, if the task is neither queued nor running, puts it in a list of ready tasks: no memory is
//! taken or given back, so a handler may do it. A task that is woken while it runs is queued again by the worker
//! once it has run.
#![forbid(unsafe_code)]

use alloc::{boxed::Box, sync::Arc, task::Wake};
use core::{
    future::Future,
    pin::Pin,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    task::{Context, Waker},
};

use super::{
    executor::Tasks,
    list::{Link, Linked},
    ready::{After, State},
};

/// The future of a task. It is `Send`: a task may be polled by another CPU than spawned it.
pub(super) type TaskFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A spawned future.
pub(super) struct Task {
    state: State,
    /// Locked by the poller alone, which the state makes the only one; handlers never touch it.
    future: spin::Mutex<Option<TaskFuture>>,
    /// It is not to be polled again.
    cancelled: AtomicBool,
    /// The CPU that polled it last.
    cpu: AtomicU32,
    tasks: &'static Tasks,
    link: Link<Task>,
}

impl Linked for Task {
    fn link(&self) -> &Link<Self> {
        &self.link
    }
}

impl Task {
    /// A task that is ready to run, and is counted among `tasks` until it is freed.
    pub(super) fn new(future: TaskFuture, tasks: &'static Tasks, cpu: u32) -> Self {
        Self {
            state: State::ready(),
            future: spin::Mutex::new(Some(future)),
            cancelled: AtomicBool::new(false),
            cpu: AtomicU32::new(cpu),
            tasks,
            link: Link::new(),
        }
    }

    /// The CPU that polled it last.
    pub(super) fn cpu(&self) -> u32 {
        self.cpu.load(Ordering::Relaxed)
    }

    /// Polls the task that was taken from a list, once, on `cpu`.
    pub(super) fn run(self: Arc<Self>, cpu: u32) {
        if !self.state.begin() {
            // Queued by its last waker, so that it is freed here and not in a handler.
            return;
        }
        self.cpu.store(cpu, Ordering::Relaxed);
        let done = self.poll();
        if self.state.end(done) == After::Queue {
            self.enqueue();
        }
    }

    /// One poll; drops the future when it is finished.
    fn poll(self: &Arc<Self>) -> bool {
        let waker = Waker::from(self.clone());
        let mut place = self.future.lock();
        let finished = match place.as_mut() {
            Some(_) if self.cancelled.load(Ordering::Acquire) => true,
            Some(future) => future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready(),
            None => true,
        };
        if finished {
            *place = None;
        }
        finished
    }

    /// Has the future dropped, where it is, without another poll.
    pub(super) fn cancel(self: &Arc<Self>) {
        self.cancelled.store(true, Ordering::Release);
        self.wake_by_ref();
    }

    fn enqueue(self: Arc<Self>) {
        let tasks = self.tasks;
        tasks.push(self);
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        if self.state.wake() {
            self.enqueue();
        }
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.wake() {
            self.clone().enqueue();
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.tasks.freed();
    }
}
