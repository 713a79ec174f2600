//! Who runs where: one run queue for each CPU, and the moments at which a CPU goes from one thread to the next.
//!
//! A thread leaves its CPU when it waits ([`block`]), gives way ([`yield_now`]), ends (`life`), or at the end of an
//! interrupt ([`interrupt_ends`]): when its time slice is over while others are ready, or a more urgent one was woken.
//! There is no idle thread: a CPU without work halts in the thread that waited last, and comes back to it without a
//! switch. Nothing ticks: a slice is timed only while more than one thread is ready.
//!
//! No CPU idles while a thread is ready that it could run: whoever leaves one in a queue looks for a CPU that idles and kicks
//! it, and a CPU marks itself idle before it looks into the others' queues. So a thread does not depend on the CPU in whose
//! queue it stands: that one may be stuck.
//! Neighbours: `queue` (who is next), `idle` (which CPUs halt), `slice` (the time), `cpu::switch` (the switch itself).
#![forbid(unsafe_code)]

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

use super::{idle, life, queue::RunQueue, round, slice::Slice, thread::Thread};
use crate::{
    cpu::{self, switch},
    irq::dispatch,
    sync::{IrqGuard, IrqMutex, IrqState},
};

/// What the scheduler knows of one CPU.
pub(super) struct Cpu {
    queue: IrqMutex<RunQueue>,
    /// Threads in the queue, and those of them that may go elsewhere: to be looked at without its lock.
    len: AtomicUsize,
    movable: AtomicUsize,
    /// It schedules. Changed under the lock of the queue.
    online: AtomicBool,
    /// For reports: the turn at the last look.
    looked_at: AtomicU64,
    /// The running thread is to give way at the end of the next interrupt.
    preempt: AtomicBool,
    pub(super) slice: Slice,
}

static CPUS: [Cpu; pv_ops::MAX_CPUS] = [const {
    Cpu {
        queue: IrqMutex::new(RunQueue::new()),
        len: AtomicUsize::new(0),
        movable: AtomicUsize::new(0),
        online: AtomicBool::new(false),
        looked_at: AtomicU64::new(0),
        preempt: AtomicBool::new(false),
        slice: Slice::new(),
    }
}; pv_ops::MAX_CPUS];

impl Cpu {
    /// The queue was changed.
    fn note(&self, queue: &RunQueue) {
        self.len.store(queue.len(), Ordering::Relaxed);
        self.movable.store(queue.movable(), Ordering::Relaxed);
    }

    fn has_movable(&self) -> bool {
        self.movable.load(Ordering::Relaxed) != 0
    }
}

/// CPUs that schedule, or did: those with smaller numbers.
static ONLINE: AtomicU32 = AtomicU32::new(0);

/// The CPU that runs this; interrupts are disabled.
pub(super) fn this_cpu() -> u32 {
    cpu::current().id() % pv_ops::MAX_CPUS as u32
}

pub(super) fn cpu(number: u32) -> &'static Cpu {
    &CPUS[number as usize % CPUS.len()]
}

/// The numbers of the CPUs that schedule, or did.
pub(crate) fn cpus() -> core::ops::Range<u32> {
    0..ONLINE.load(Ordering::Acquire)
}

/// Makes what runs on this CPU a thread. Once on each CPU, the boot CPU first.
pub(super) fn adopt(name: &str, is_worker: bool) -> Arc<Thread> {
    let _irq = IrqState::disable();
    let number = this_cpu();
    let thread = Arc::new(Thread::adopted(name.into(), number, is_worker));
    thread.context.adopt();
    life::register(&thread);
    take_up(number, &thread);
    dispatch::at_end(interrupt_ends);
    thread
}

/// This CPU, which runs `thread`, schedules from now on. Interrupts are disabled.
pub(super) fn take_up(number: u32, thread: &Arc<Thread>) {
    let this = cpu(number);
    let mut queue = this.queue.lock();
    queue.current = Some(thread.clone());
    // One that began before this CPU went down has no end any more.
    this.slice.forget();
    this.online.store(true, Ordering::Relaxed);
    drop(queue);
    ONLINE.fetch_max(number + 1, Ordering::Release);
}

/// This CPU schedules no more: what is ready here goes elsewhere. Interrupts are disabled.
pub(super) fn give_up(number: u32) {
    let this = cpu(number);
    let queue = this.queue.lock();
    this.online.store(false, Ordering::Relaxed);
    drop(queue);
    loop {
        let mut queue = this.queue.lock();
        let thread = queue.pick();
        this.note(&queue);
        drop(queue);
        match thread {
            Some(thread) => enqueue(thread),
            None => return,
        }
    }
}

/// Whether this CPU schedules.
pub(super) fn is_online(number: u32) -> bool {
    cpu(number).online.load(Ordering::Relaxed)
}

/// Whether a thread is ready on this CPU, beside the one that runs.
pub(super) fn has_ready(number: u32) -> bool {
    cpu(number).len.load(Ordering::Relaxed) != 0
}

/// The thread that runs this.
pub(crate) fn current() -> Arc<Thread> {
    let _irq = IrqState::disable();
    let current = cpu(this_cpu()).queue.lock().current.clone();
    current.expect("threads are there from the start")
}

/// Calls `each` with every CPU that went on with no other thread since the last call, although some are ready there: its
/// number, its thread, how many are ready.
pub(super) fn for_each_stuck_cpu(each: &mut dyn FnMut(u32, &Thread, usize)) {
    for number in cpus() {
        let this = cpu(number);
        let Some(queue) = this.queue.try_lock() else { continue };
        let Some(current) = &queue.current else { continue };
        // As two turns are never of one thread while others are ready, but at the ends.
        let turn = queue.turns() << 1 | 1;
        let before = this.looked_at.swap(if queue.len() != 0 { turn } else { 0 }, Ordering::Relaxed);
        if before == turn && queue.len() != 0 {
            each(number, current, queue.len());
        }
    }
}

/// Calls `tell` with the thread that a CPU runs, unless the CPU changes it this moment.
pub(super) fn with_running(number: u32, tell: &mut dyn FnMut(&Thread)) {
    if let Some(queue) = cpu(number).queue.try_lock()
        && let Some(current) = &queue.current
    {
        tell(current);
    }
}

/// Waits until the thread that runs this is woken; at once if it was since it last waited.
///
/// # Panics
/// With interrupts disabled: a lock may be held, and nothing could wake the CPU.
#[track_caller]
pub(crate) fn block() {
    idle::check();
    let thread = current();
    let _irq = IrqState::disable();
    assert!(
        !cpu::current().stays(),
        "a thread waits that is to stay on its CPU, or an interrupt handler does"
    );
    if thread.parker.park() {
        leave(thread, Way::Waits);
    }
}

/// Lets the other ready threads of this CPU run before it goes on; not where the thread is to stay.
pub(crate) fn yield_now() {
    let _irq = IrqState::disable();
    if !cpu::current().stays() && cpu(this_cpu()).len.load(Ordering::Relaxed) != 0 {
        give_way(Way::Waits);
    }
}

/// Puts a thread that is to run into a run queue, and sees to it that its CPU notices. Called by handlers, too.
pub(crate) fn enqueue(thread: Arc<Thread>) {
    let _irq = IrqState::disable();
    let here = this_cpu();
    let last = thread.cpu.load(Ordering::Relaxed);
    let is_movable = !thread.is_worker;
    let target = match idle::is_idle(last) || !is_movable || !thread.context.is_ready() {
        true => last,
        // A handler interrupted its idleness.
        false if idle::is_idle(here) => here,
        false => idle::find(cpus(), here).unwrap_or(last),
    };
    let priority = thread.priority;
    let (target, there, mut queue) = lock_online(target);
    let is_urgent = queue.current.as_ref().is_some_and(|current| current.priority < priority);
    queue.push(thread);
    there.note(&queue);
    drop(queue);
    if idle::must_be_kicked(target) {
        if target != here {
            idle::kick(target);
        }
        return;
    }
    if is_movable {
        // One that has become idle since it was looked for one may have looked into that queue before.
        share(here);
    }
    if is_urgent {
        there.preempt.store(true, Ordering::Relaxed);
    }
    match target == here {
        true if is_urgent => there.slice.end_now(),
        true => there.slice.begin(),
        false if is_urgent || !there.slice.is_timed() => idle::kick(target),
        false => {}
    }
}

/// The queue of this CPU, or of the boot CPU, which always schedules, if this one does no more.
fn lock_online(number: u32) -> (u32, &'static Cpu, IrqGuard<'static, RunQueue>) {
    let there = cpu(number);
    let queue = there.queue.lock();
    if there.online.load(Ordering::Relaxed) || number == 0 {
        return (number, there, queue);
    }
    drop(queue);
    (0, cpu(0), cpu(0).queue.lock())
}

/// The last act of every interrupt, with interrupts disabled: the running thread may have to give way.
fn interrupt_ends() {
    let number = this_cpu();
    let this = cpu(number);
    // Asked for in any case, or it would never be set again.
    let is_over = this.slice.is_over();
    if idle::is_idle(number) {
        return;
    }
    if is_over && this.len.load(Ordering::Relaxed) != 0 {
        share(number);
        if !this.slice.goes_on(number) {
            this.preempt.store(true, Ordering::Relaxed);
        }
    }
    if this.preempt.swap(false, Ordering::Relaxed) {
        give_way(Way::SliceOver);
    } else if this.len.load(Ordering::Relaxed) != 0 {
        this.slice.begin();
    }
}

/// A CPU without work looks for some: there is a thread in a queue that was not there when it looked, or that it could not
/// have yet.
fn share(number: u32) {
    if cpus().end > 1
        && let Some(other) = idle::find(cpus(), number)
    {
        idle::kick(other);
    }
}

/// Puts the running thread behind the others; interrupts are disabled.
fn give_way(way: Way) {
    let mut queue = cpu(this_cpu()).queue.lock();
    let Some(thread) = queue.current.clone() else { return };
    queue.push(thread.clone());
    drop(queue);
    leave(thread, way);
}

/// Why a thread leaves its CPU.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Of its own accord.
    Waits,
    SliceOver,
    Ends,
}

/// Goes on with the next thread, which may be `thread` itself; halts while there is none. Interrupts are disabled.
pub(super) fn leave(thread: Arc<Thread>, way: Way) {
    loop {
        let number = this_cpu();
        let this = cpu(number);
        round::end(number);
        let mut queue = this.queue.lock();
        // Who comes from here on and is urgent interrupts what is picked now.
        this.preempt.store(false, Ordering::Relaxed);
        let next = queue.pick();
        this.note(&queue);
        drop(queue);
        let next = next.or_else(|| idle::rest(number, &|| has_ready(number), || steal(number)));
        let Some(next) = next else { continue };
        if way != Way::SliceOver {
            this.slice.comes(number);
        }
        if !Arc::ptr_eq(&next, &thread) {
            next.cpu.store(number, Ordering::Relaxed);
            next.switches.fetch_add(1, Ordering::Relaxed);
            let before = this.queue.lock().current.replace(next.clone());
            drop(before);
            switch::switch(thread, next, way == Way::Ends);
        }
        return arrive();
    }
}

/// A thread goes on, or begins; interrupts are disabled. What stands in the queue of its CPU waits, and may go elsewhere: from
/// now on also the thread that was left for it, which nobody could have before its registers were saved.
pub(super) fn arrive() {
    let number = this_cpu();
    if cpus().end > 1 {
        // Either this sees who has queued that thread, or a CPU that was told by who did sees that it was left.
        fence(Ordering::SeqCst);
    }
    if has_ready(number) {
        cpu(number).slice.begin();
        share(number);
    }
}

/// A thread from another CPU's queue, for this one, which is marked as idle.
fn steal(number: u32) -> Option<Arc<Thread>> {
    let count = cpus().end;
    let victims =
        || (1..count).map(|distance| cpu((number + distance) % count)).filter(|cpu| cpu.has_movable());
    let found = victims().find_map(|victim| {
        let mut queue = victim.queue.lock();
        let thread = queue.steal();
        victim.note(&queue);
        thread
    });
    if found.is_some() && victims().next().is_some() {
        // Who left that there may have found this CPU, too.
        share(number);
    }
    found
}
