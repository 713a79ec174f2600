//! The life of threads: their start, their end, and the giving back of what they had.
//! Neighbours: `scheduler` (runs them), `worker` and `crate::thread` (start them).
#![forbid(unsafe_code)]

use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicBool, Ordering};

use super::{
    idle,
    memory::{self, OutOfMemory},
    scheduler::{self, Way},
    thread::{Body, Priority, Thread},
};
use crate::{
    mm::map,
    sync::{IrqMutex, IrqState},
};

/// Every thread that has not ended. It lives at least as long as it is here.
static THREADS: IrqMutex<Vec<Arc<Thread>>> = IrqMutex::new(Vec::new());
/// Threads that ended, until their memory is given back.
static ENDED: IrqMutex<Vec<Arc<Thread>>> = IrqMutex::new(Vec::new());
static ANY_ENDED: AtomicBool = AtomicBool::new(false);

/// Notes a thread that runs already.
pub(super) fn register(thread: &Arc<Thread>) {
    let mut threads = THREADS.lock();
    thread.index.store(threads.len(), Ordering::Relaxed);
    threads.push(thread.clone());
}

/// What a new thread is to be.
pub(crate) struct Plan {
    pub(crate) name: Box<str>,
    pub(crate) stack_len_bytes: u64,
    pub(crate) priority: Priority,
    pub(crate) worker_of: Option<u32>,
}

/// A new thread, ready to run.
pub(crate) fn start(plan: Plan, body: Body) -> Result<Arc<Thread>, OutOfMemory> {
    reap();
    let stack = map::stack(plan.stack_len_bytes).map_err(|_| OutOfMemory)?;
    let near = IrqState::disable();
    let last = plan.worker_of.unwrap_or_else(scheduler::this_cpu);
    drop(near);
    let thread = Thread::new(stack, plan.name, plan.priority, body, last, plan.worker_of.is_some());
    let thread = memory::shared(thread)?;
    let mut threads = THREADS.lock();
    // Room for its end as well: that must not need memory.
    let places = threads.len() + 1;
    threads.try_reserve(1).map_err(|_| OutOfMemory)?;
    ENDED.lock().try_reserve(places).map_err(|_| OutOfMemory)?;
    thread.index.store(threads.len(), Ordering::Relaxed);
    threads.push(thread.clone());
    drop(threads);
    scheduler::enqueue(thread.clone());
    Ok(thread)
}

/// Ends the thread that runs this.
pub(super) fn exit() -> ! {
    idle::check();
    let thread = scheduler::current();
    // The newest goes first; one may make another.
    while let Some(local) = {
        let mut locals = thread.locals.lock();
        locals.pop()
    } {
        drop(local);
    }
    let irq = IrqState::disable();
    let mut threads = THREADS.lock();
    let index = thread.index.load(Ordering::Relaxed);
    threads.swap_remove(index);
    if let Some(moved) = threads.get(index) {
        moved.index.store(index, Ordering::Relaxed);
    }
    ENDED.lock().push(thread.clone());
    drop(threads);
    ANY_ENDED.store(true, Ordering::Release);
    scheduler::leave(thread, Way::Ends);
    drop(irq);
    unreachable!("a thread went on after its end")
}

/// Gives the memory of ended threads back. Interrupts are enabled.
pub(crate) fn reap() {
    while ANY_ENDED.load(Ordering::Acquire) {
        let mut ended = ENDED.lock();
        // One may still be on its way off its CPU.
        let thread =
            ended.iter().position(|thread| thread.context.has_ended()).map(|at| ended.swap_remove(at));
        if ended.is_empty() {
            ANY_ENDED.store(false, Ordering::Relaxed);
        }
        drop(ended);
        match thread {
            Some(thread) => thread.context.free_stack(),
            None => return,
        }
    }
}

/// Where a new thread begins.
pub(super) extern "sysv64" fn begin() -> ! {
    scheduler::arrive();
    pv_ops::irq_enable();
    let body = scheduler::current().body.lock().take();
    if let Some(body) = body {
        body();
    }
    exit()
}

/// Calls `look` with all threads, unless one is starting or ending this moment. None may start or end in it.
pub(super) fn with_threads(look: &mut dyn FnMut(&[Arc<Thread>])) {
    if let Some(threads) = THREADS.try_lock() {
        look(&threads);
    }
}

/// Number of threads that have not ended.
pub(crate) fn count() -> usize {
    THREADS.lock().len()
}
