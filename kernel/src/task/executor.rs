//! The executor: a run queue, and a loop that polls what is in it and halts when nothing is.
//!
//! One queue serves the one CPU; a task remembers the queue it belongs to, so that each further CPU gets its
//! own. Neighbours: `waker` (who puts tasks into the queue), `join` (how a task's result comes back).
#![forbid(unsafe_code)]

use alloc::{boxed::Box, collections::VecDeque, sync::Arc, task::Wake};
use core::{
    future::Future,
    pin::{Pin, pin},
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll, Waker},
};

use super::{
    idle,
    join::{self, JoinHandle},
    memory::{self, OutOfMemory},
    waker::{Task, TaskFuture},
};
use crate::sync::IrqMutex;

/// The run queue of the boot CPU.
static QUEUE: RunQueue = RunQueue::new();

/// Starts `future` as a task of its own. Dropping the handle leaves it running; awaiting it gives the result.
///
/// # Panics
/// When memory is out; [`try_spawn`] says so instead.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    match try_spawn(future) {
        Ok(handle) => handle,
        Err(error) => panic!("spawn: {error}"),
    }
}

/// As [`spawn`], but hands the lack of memory to the caller; the future is dropped then.
pub fn try_spawn<F>(future: F) -> Result<JoinHandle<F::Output>, OutOfMemory>
where
    F: Future<Output: Send> + Send + 'static,
{
    QUEUE.spawn(future)
}

/// Runs `future` to its end, and the spawned tasks in the meantime; halts the CPU while nothing is ready.
///
/// May be called inside a task: the tasks further out on the stack wait until it returns.
///
/// # Panics
/// With interrupts disabled: nothing could wake the CPU.
pub fn block_on<F: Future>(future: F) -> F::Output {
    idle::check();
    QUEUE.block_on(future, idle::halt_unless)
}

/// Number of spawned tasks that are not finished, or whose memory a waker still holds.
pub fn count() -> usize {
    QUEUE.tasks()
}

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

/// Tasks that are ready, in the order in which they became so.
pub(super) struct RunQueue(IrqMutex<Inner>);

struct Inner {
    /// Holds a task at most once, and has room for all `tasks` (see [`Place`]): a push takes no memory.
    ready: VecDeque<Arc<Task>>,
    /// Tasks that exist, ready or not.
    tasks: usize,
}

impl RunQueue {
    pub(super) const fn new() -> Self {
        Self(IrqMutex::new(Inner { ready: VecDeque::new(), tasks: 0 }))
    }

    pub(super) fn spawn<F>(&'static self, future: F) -> Result<JoinHandle<F::Output>, OutOfMemory>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let place = Place::take(self)?;
        let (handle, promise) = join::pair()?;
        let future: TaskFuture = Box::into_pin(memory::boxed(async move { promise.give(future.await) })?);
        self.push(memory::shared(Task::new(future, place))?);
        Ok(handle)
    }

    pub(super) fn block_on<F: Future>(&self, future: F, idle: impl Fn(&dyn Fn() -> bool)) -> F::Output {
        let root = Arc::new(Root { ready: AtomicBool::new(true) });
        let waker = Waker::from(root.clone());
        let mut future = pin!(future);
        loop {
            if root.ready.swap(false, Ordering::AcqRel)
                && let Poll::Ready(result) = future.as_mut().poll(&mut Context::from_waker(&waker))
            {
                return result;
            }
            // One turn for each task that is ready now; who becomes ready meanwhile waits for the next round.
            for _ in 0..self.len() {
                let Some(task) = self.pop() else { break };
                task.run();
            }
            if !root.ready.load(Ordering::Acquire) && self.len() == 0 {
                idle(&|| root.ready.load(Ordering::Acquire) || self.len() != 0);
            }
        }
    }

    /// Queues a ready task. Called by handlers.
    pub(super) fn push(&self, task: Arc<Task>) {
        let mut inner = self.0.lock();
        debug_assert!(inner.ready.len() < inner.ready.capacity(), "a task is queued twice");
        inner.ready.push_back(task);
    }

    fn pop(&self) -> Option<Arc<Task>> {
        self.0.lock().ready.pop_front()
    }

    fn len(&self) -> usize {
        self.0.lock().ready.len()
    }

    /// Tasks that exist.
    pub(super) fn tasks(&self) -> usize {
        self.0.lock().tasks
    }
}

/// Room for one task in a run queue; given back when the task is freed.
pub(super) struct Place(&'static RunQueue);

impl Place {
    fn take(queue: &'static RunQueue) -> Result<Self, OutOfMemory> {
        let mut inner = queue.0.lock();
        let missing = inner.tasks + 1 - inner.ready.len();
        inner.ready.try_reserve(missing).map_err(|_| OutOfMemory)?;
        inner.tasks += 1;
        Ok(Self(queue))
    }

    /// Where the room is.
    pub(super) fn queue(&self) -> &'static RunQueue {
        self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.lock().tasks -= 1;
    }
}

/// What wakes the future of a [`block_on`].
struct Root {
    ready: AtomicBool,
}

impl Wake for Root {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.store(true, Ordering::Release);
    }
}

crate::kernel_test! {
    async fn ten_thousand_tasks_run_and_leave_no_memory_behind() {
        const TASKS: usize = 10_000;
        let before = count();
        let mut handles = alloc::vec::Vec::new();
        for number in 0..TASKS {
            handles.push(spawn(async move {
                yield_now().await;
                number
            }));
        }
        assert!(count() >= TASKS);
        let mut sum = 0;
        for handle in handles {
            sum += handle.await;
        }
        yield_now().await;
        assert_eq!(sum, TASKS * (TASKS - 1) / 2);
        // The kernel has a few tasks of its own on some hosts, which come and go.
        assert!(count() < before + TASKS / 100, "{} tasks are left, {before} were there", count());
    }
}

crate::kernel_test! {
    fn block_on_inside_a_task_gives_the_result() {
        assert_eq!(block_on(async { spawn(async { 6 }).await * 7 }), 42);
    }
}
