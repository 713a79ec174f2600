//! Tasks on the scheduler: each CPU has a list of ready ones, and a thread, the worker, that polls what is in it.
//!
//! A worker is a thread among the others: it takes turns with them, waits when no task is ready, and takes tasks from
//! other CPUs' lists then. Neighbours: `waker` (who puts tasks into a list), `join` (how a result comes back),
//! `scheduler` (threads).
#![forbid(unsafe_code)]

use alloc::{boxed::Box, sync::Arc};
use core::{
    future::Future,
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll},
};

use spin::Once;

use super::{
    join::{self, JoinHandle},
    list::List,
    memory::{self, OutOfMemory},
    waker::{Task, TaskFuture},
};
use crate::sync::IrqMutex;

/// Lets the other ready tasks run before it goes on.
pub fn yield_now() -> YieldNow {
    YieldNow { yielded: false }
}

/// Future of [`yield_now`].
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct YieldNow {
    yielded: bool,
}

impl Future for YieldNow {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if core::mem::replace(&mut self.yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// The tasks of a guest.
pub(super) struct Tasks {
    ready: [Ready; pv_ops::MAX_CPUS],
    /// Tasks that exist, ready or not.
    count: AtomicUsize,
    /// Called when a task has become ready on this CPU, and whether it is the only one.
    notify: Once<fn(u32, bool)>,
}

/// The ready tasks of a CPU, in the order in which they became so.
struct Ready {
    list: IrqMutex<List<Task>>,
    /// How many, to be looked at without the lock. Changed with it.
    len: AtomicUsize,
}

impl Tasks {
    /// None. All zeros, so that the file does not carry it.
    pub(super) const fn new() -> Self {
        let ready = [const { Ready { list: IrqMutex::new(List::new()), len: AtomicUsize::new(0) } };
            pv_ops::MAX_CPUS];
        Self { ready, count: AtomicUsize::new(0), notify: Once::new() }
    }

    /// Has `notify` called whenever a task has become ready on a CPU, and told whether it is the only one. The first to ask
    /// has it.
    pub(super) fn on_ready(&self, notify: fn(u32, bool)) {
        self.notify.call_once(|| notify);
    }

    /// A new task, ready on `cpu`.
    pub(super) fn spawn<F>(&'static self, cpu: u32, future: F) -> Result<JoinHandle<F::Output>, OutOfMemory>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let (promise, result) = join::promise()?;
        let future = memory::boxed(async move { promise.give(future.await) })?;
        Ok(JoinHandle::new(result, self.start(cpu, Box::into_pin(future))?))
    }

    /// What [`spawn`](Self::spawn) does whatever the future is.
    fn start(&'static self, cpu: u32, future: TaskFuture) -> Result<Arc<Task>, OutOfMemory> {
        self.count.fetch_add(1, Ordering::Relaxed);
        let task = memory::shared(Task::new(future, self, cpu))?;
        self.push(task.clone());
        Ok(task)
    }

    /// Queues a ready task on the CPU that it ran on last. Called by handlers.
    pub(super) fn push(&self, task: Arc<Task>) {
        let cpu = task.cpu();
        let ready = self.of(cpu);
        let mut list = ready.list.lock();
        list.push(task);
        let is_first = ready.len.fetch_add(1, Ordering::Relaxed) == 0;
        drop(list);
        if let Some(notify) = self.notify.get() {
            notify(cpu, is_first);
        }
    }

    /// Polls one ready task: of `cpu`, or else of another one below `cpus`. `false` when none is ready.
    pub(super) fn run_one(&self, cpu: u32, cpus: u32) -> bool {
        let task = self.pop(cpu).or_else(|| (1..cpus).find_map(|distance| self.pop((cpu + distance) % cpus)));
        let found = task.is_some();
        if let Some(task) = task {
            task.run(cpu);
        }
        found
    }

    fn pop(&self, cpu: u32) -> Option<Arc<Task>> {
        let ready = self.of(cpu);
        if ready.len.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut list = ready.list.lock();
        let task = list.pop();
        if task.is_some() {
            ready.len.fetch_sub(1, Ordering::Relaxed);
        }
        task
    }

    /// Tasks that are ready on `cpu`.
    pub(super) fn len(&self, cpu: u32) -> usize {
        self.of(cpu).len.load(Ordering::Relaxed)
    }

    fn of(&self, cpu: u32) -> &Ready {
        &self.ready[cpu as usize % self.ready.len()]
    }

    /// Tasks that exist.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// One of them was freed.
    pub(super) fn freed(&self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}
