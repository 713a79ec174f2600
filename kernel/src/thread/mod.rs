//! Threads for apps: each with a stack of its own, preempted by the clock, on whichever CPU is free.
//!
//! The names are those of Rust's standard library, and mean the same but for these: [`spawn`]ed closures end with a value
//! or with the guest, as a panic ends it, so [`join`](JoinHandle::join) gives the value itself; a thread
//! may be [asked to end](JoinHandle::cancel); and [`Builder`] knows priorities.
//! A [`JoinHandle`] can be awaited by a task as well, and a thread can wait for a future with
//! [`block_on`](crate::block_on).
//! Neighbours: `local` (values of a thread's own), `scoped` (threads that borrow), `task::scheduler` (who runs when), `sync` (locks, channels).
#![forbid(unsafe_code)]

#[macro_use]
mod local;
mod scoped;
mod tests;

pub use crate::cpu::lend::Scope;
pub use crate::task::{Priority, watch};
pub use local::LocalKey;
pub use scoped::scope;

use alloc::{boxed::Box, sync::Arc, task::Wake};
use core::{
    fmt,
    future::Future,
    pin::{Pin, pin},
    sync::atomic::Ordering,
    task::{Context, Poll, Waker},
    time::Duration,
};

use crate::{
    sync::stall,
    task::{self, Body, OutOfMemory, Receiver, life, memory, scheduler},
};

/// Bytes of a thread's stack where [`Builder::stack_size`] says nothing else.
pub const STACK_BYTES: u64 = 64 << 10;

/// Starts a thread that runs `body`. Dropping the handle leaves it running.
///
/// # Panics
/// When memory is out; [`Builder::spawn`] says so instead.
pub fn spawn<F, T>(body: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    match Builder::new().spawn(body) {
        Ok(handle) => handle,
        Err(error) => panic!("thread::spawn: {error}"),
    }
}

/// What a new thread is to be.
#[derive(Debug)]
#[must_use = "nothing starts before `spawn`"]
pub struct Builder {
    name: Box<str>,
    stack_len_bytes: u64,
    priority: Priority,
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// A thread without a name, of normal priority, with a stack of [`STACK_BYTES`].
    pub fn new() -> Self {
        Self { name: Box::default(), stack_len_bytes: STACK_BYTES, priority: Priority::Normal }
    }

    /// What it is called in reports.
    pub fn name(self, name: &str) -> Self {
        Self { name: name.into(), ..self }
    }

    /// How many bytes of stack it has at least: up to [`MAX_LEN_BYTES`](crate::mm::stack::MAX_LEN_BYTES).
    pub fn stack_size(self, len_bytes: u64) -> Self {
        Self { stack_len_bytes: len_bytes, ..self }
    }

    /// How urgent it is.
    pub fn priority(self, priority: Priority) -> Self {
        Self { priority, ..self }
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// [`OutOfMemory`] when there is none for it, or no stack is that large; `body` is dropped then.
    pub fn spawn<F, T>(self, body: F) -> Result<JoinHandle<T>, OutOfMemory>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let (promise, result) = task::promise()?;
        let body = memory::boxed(move || promise.give(body()))?;
        self.start(body, result)
    }

    fn start<T>(self, body: Body, result: Receiver<T>) -> Result<JoinHandle<T>, OutOfMemory> {
        let plan = life::Plan {
            name: self.name,
            stack_len_bytes: self.stack_len_bytes,
            priority: self.priority,
            worker_of: None,
        };
        let thread = Thread(life::start(plan, body)?);
        Ok(JoinHandle { thread, result })
    }
}

/// A thread that was started: waits for its result, as a thread by [`join`](Self::join), as a task by awaiting it.
#[must_use = "a thread runs on without its handle; drop it with `drop(handle)` to say so"]
pub struct JoinHandle<T> {
    thread: Thread,
    result: Receiver<T>,
}

impl<T> JoinHandle<T> {
    /// Waits for the thread's end, and gives the value of its closure.
    #[inline(never)]
    pub fn join(self) -> T {
        let waits = stall::waits_for_end(self.thread.id());
        let value = task::block_on(self.result);
        drop(waits);
        life::reap();
        value
    }

    /// The closure has returned.
    pub fn is_finished(&self) -> bool {
        self.result.is_finished()
    }

    /// The thread.
    pub fn thread(&self) -> &Thread {
        &self.thread
    }

    /// Asks the thread to end: [`is_cancelled`] is true in it from now on, and it is unparked. Whether and when it ends is
    /// up to it.
    pub fn cancel(&self) {
        self.thread.0.cancelled.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        Pin::new(&mut self.result).poll(cx)
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinHandle({:?}, finished: {})", self.thread, self.is_finished())
    }
}

/// A thread, to be woken or told apart from others.
#[derive(Clone)]
pub struct Thread(Arc<task::Thread>);

impl Thread {
    /// Its number, from 1; never used again.
    pub fn id(&self) -> u64 {
        self.0.id()
    }

    /// Its name, if it has one.
    pub fn name(&self) -> Option<&str> {
        Some(&*self.0.name).filter(|name| !name.is_empty())
    }

    /// How urgent it is.
    pub fn priority(&self) -> Priority {
        self.0.priority
    }

    /// How often a CPU went on with it after another thread.
    pub fn switches(&self) -> u64 {
        self.0.switches.load(Ordering::Relaxed)
    }

    /// Ends its [`park`], or the next one if it is not in one.
    pub fn unpark(&self) {
        self.0.token.store(true, Ordering::Release);
        self.0.wake_by_ref();
    }
}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The thread that runs this. In a task: the worker that polls it at the moment.
pub fn current() -> Thread {
    Thread(scheduler::current())
}

/// Waits until somebody [unparks](Thread::unpark) this thread; not at all if that happened since the last time.
pub fn park() {
    let thread = scheduler::current();
    while !thread.token.swap(false, Ordering::Acquire) {
        scheduler::block();
    }
}

/// As [`park`], but for no longer than `duration`.
pub fn park_timeout(duration: Duration) {
    let thread = scheduler::current();
    let waker = Waker::from(thread.clone());
    let mut end = pin!(task::sleep(duration));
    while !thread.token.swap(false, Ordering::Acquire) {
        if end.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            return;
        }
        scheduler::block();
    }
}

/// Lets the other ready threads of this CPU run before it goes on.
pub fn yield_now() {
    scheduler::yield_now();
}

/// Waits for `duration`, and a little more: never less.
pub fn sleep(duration: Duration) {
    task::block_on(task::sleep(duration));
}

/// Whether this thread was [asked to end](JoinHandle::cancel).
pub fn is_cancelled() -> bool {
    scheduler::current().cancelled.load(Ordering::Acquire)
}

/// Number of threads that have not ended, the kernel's own among them.
pub fn count() -> usize {
    life::count()
}
