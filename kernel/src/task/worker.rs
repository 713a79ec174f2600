//! The threads that poll tasks, one for each CPU, and waiting for a future in a thread.
//!
//! That of the boot CPU is made when the first task is spawned: an app without tasks has none.
//! Neighbours: `executor` (the lists), `scheduler` (threads).
#![forbid(unsafe_code)]

use alloc::{sync::Arc, task::Wake};
use core::{
    future::Future,
    pin::pin,
    sync::atomic::{AtomicBool, Ordering, fence},
    task::{Context, Poll, Waker},
};

use super::{
    executor::Tasks,
    idle,
    join::JoinHandle,
    life::{self, Plan},
    memory::{self, OutOfMemory},
    round, scheduler,
    thread::{Priority, Thread},
};
use crate::sync::IrqState;
use spin::Once;

/// Bytes of a worker's stack.
pub const STACK_BYTES: u64 = 64 << 10;

static TASKS: Tasks = Tasks::new();
static WORKERS: [Once<Arc<Thread>>; pv_ops::MAX_CPUS] = [const { Once::new() }; pv_ops::MAX_CPUS];
/// The boot CPU's worker is being made, or was.
static STARTED: AtomicBool = AtomicBool::new(false);

/// Makes the start of the guest a thread, called `main`. Once, when there is memory.
pub fn init() {
    TASKS.on_ready(notify);
    drop(scheduler::adopt("main", false));
}

/// Gives this CPU to the scheduler: it runs threads and tasks until `leaving` says so, which is asked whenever the CPU is
/// [woken](wake_cpu). On each CPU but the boot CPU, on a stack that is never freed. Interrupts are enabled meanwhile, and
/// disabled on return; what was to run here runs elsewhere then.
pub fn enter_cpu(leaving: impl Fn() -> bool) {
    let cpu = crate::cpu::this_cpu();
    match worker(cpu) {
        // It was here before.
        Some(worker) => scheduler::take_up(cpu, worker),
        None => drop(place(cpu).call_once(|| scheduler::adopt("worker", true))),
    }
    pv_ops::irq_enable();
    while !leaving() {
        work(cpu);
    }
    // Somebody has to take over.
    if let Err(error) = start_boot_worker() {
        log::warn!("tasks of CPU {cpu}: {error}");
    }
    pv_ops::irq_disable();
    scheduler::give_up(cpu);
    fence(Ordering::SeqCst);
    if TASKS.len(cpu) != 0 {
        notify(cpu, true);
    }
}

/// Has the worker of a CPU look around.
pub fn wake_cpu(cpu: u32) {
    if let Some(worker) = worker(cpu) {
        worker.wake_by_ref();
    }
}

fn place(cpu: u32) -> &'static Once<Arc<Thread>> {
    &WORKERS[cpu as usize % WORKERS.len()]
}

fn worker(cpu: u32) -> Option<&'static Arc<Thread>> {
    place(cpu).get()
}

/// One turn for each task that is ready now; then the other threads of this CPU have theirs.
fn work(cpu: u32) {
    let count = TASKS.len(cpu).max(1);
    if (0..count).all(|_| TASKS.run_one(cpu, scheduler::cpus().end)) {
        round::end(cpu);
        scheduler::yield_now();
    } else {
        scheduler::block();
    }
}

/// Whether this CPU has nothing to do but what asks this: no task and no thread is ready here.
pub(crate) fn is_alone() -> bool {
    has_nothing_ready(crate::cpu::this_cpu())
}

/// As [`is_alone`], and no device is to be told of anything.
pub(crate) fn would_halt() -> bool {
    let cpu = crate::cpu::this_cpu();
    has_nothing_ready(cpu) && !round::is_awaited(cpu)
}

/// Ends the round if this CPU has nothing to do but what asks this, so that devices are told; whether that is so.
pub(crate) fn end_round() -> bool {
    let _irq = IrqState::disable();
    let cpu = crate::cpu::this_cpu();
    let alone = has_nothing_ready(cpu);
    if alone {
        round::end(cpu);
    }
    alone
}

/// No task and no thread is ready on `cpu`, beside what runs.
fn has_nothing_ready(cpu: u32) -> bool {
    TASKS.len(cpu) == 0 && !scheduler::has_ready(cpu)
}

/// A task has become ready on `cpu`: its worker has to run, and one of a CPU without work if there is more than that. Who
/// found the list empty has woken a worker, which waits only when it has found all lists empty again.
fn notify(cpu: u32, is_first: bool) {
    if is_first {
        fence(Ordering::SeqCst);
        wake_cpu(if scheduler::is_online(cpu) { cpu } else { 0 });
    }
    if scheduler::cpus().end > 1
        && TASKS.len(cpu) > 1
        && let Some(other) = idle::find(scheduler::cpus(), cpu)
    {
        wake_cpu(other);
    }
}

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
    TASKS.spawn(worker_here()?, future)
}

/// Number of spawned tasks that are not finished, or whose memory a waker or a handle still holds.
pub fn count() -> usize {
    TASKS.count()
}

/// A CPU with a worker: this one.
fn worker_here() -> Result<u32, OutOfMemory> {
    let cpu = crate::cpu::this_cpu();
    if cpu == 0 {
        start_boot_worker()?;
    }
    Ok(cpu)
}

/// Makes the boot CPU's worker, if there is none.
fn start_boot_worker() -> Result<(), OutOfMemory> {
    if STARTED.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    // The first task may be queued before the worker is known: it looks for itself when it begins.
    let body = memory::boxed(|| {
        place(0).call_once(scheduler::current);
        loop {
            work(0);
        }
    });
    let plan = Plan {
        name: "worker".into(),
        stack_len_bytes: STACK_BYTES,
        priority: Priority::Normal,
        worker_of: Some(0),
    };
    let started = body.and_then(|body| life::start(plan, body));
    if started.is_err() {
        STARTED.store(false, Ordering::Relaxed);
    }
    started.map(drop)
}

/// Runs `future` to its end on the thread that calls, which waits meanwhile; tasks and other threads run on.
///
/// # Panics
/// With interrupts disabled: nothing could wake the thread.
pub fn block_on<F: Future>(future: F) -> F::Output {
    idle::check();
    let root = Arc::new(Root { ready: AtomicBool::new(false), thread: scheduler::current() });
    let waker = Waker::from(root.clone());
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(result) = future.as_mut().poll(&mut context) {
            return result;
        }
        if root.ready.swap(false, Ordering::AcqRel) {
            // It woke itself, to give way.
            scheduler::yield_now();
            continue;
        }
        // The flag, as other waits of this thread may use up what wakes it.
        while !root.ready.swap(false, Ordering::AcqRel) {
            scheduler::block();
        }
    }
}

/// What wakes the future of a [`block_on`].
struct Root {
    ready: AtomicBool,
    thread: Arc<Thread>,
}

impl Wake for Root {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.store(true, Ordering::Release);
        self.thread.wake_by_ref();
    }
}

crate::kernel_test! {
    async fn ten_thousand_tasks_run_and_leave_no_memory_behind() {
        use super::{yield_now, sleep};
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
        assert_eq!(sum, TASKS * (TASKS - 1) / 2);
        // The last may still be on its way out; the kernel has a few tasks of its own on some hosts, which come and go.
        sleep(core::time::Duration::from_millis(1)).await;
        assert!(count() < before + TASKS / 100, "{} tasks are left, {before} were there", count());
    }
}

crate::kernel_test! {
    fn block_on_inside_a_task_gives_the_result() {
        assert_eq!(block_on(async { spawn(async { 6 }).await * 7 }), 42);
    }
}

crate::kernel_test! {
    /// The thread that waits is not the one that polls, so that neither needs the other's stack.
    fn a_task_may_wait_for_a_task_in_a_nested_block_on() {
        let outer = spawn(async { block_on(async { super::yield_now().await; 20 }) + 1 });
        assert_eq!(block_on(outer), 21);
    }
}
