//! A look at all threads and CPUs every now and then: which of them get no further, and why.
//!
//! Off unless asked for, as it interrupts CPUs that could sleep. It tells of a thread that waits for a blocking lock, or for
//! another thread's end, since the last look, with who has the lock and where each of them was, and of threads that wait for
//! each other in a circle; of a CPU that went on with no other thread since then although some are ready there; and of one
//! that takes no interrupts. Spin locks that take too long are told without it (`sync::stall`).
//! Neighbours: `scheduler` (what it looks at), `heartbeat` (CPUs), `sync::stall` (notes who waits).
#![forbid(unsafe_code)]

use alloc::{sync::Arc, task::Wake};
use core::{
    fmt::{self, Write},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    task::Waker,
    time::Duration,
};

use super::{OutOfMemory, heartbeat, life, memory, scheduler, thread::Thread};
use crate::{
    cpu::{self, percpu},
    panic::Emergency,
    sync::stall::{self, Mark},
    time::timer,
};

/// What a thread waits for: a blocking lock, or another thread. All zeros while it does not.
#[derive(Default)]
pub(crate) struct Waits {
    since_ns: AtomicU64,
    place: AtomicU64,
    /// Who has the lock, and where it was taken; nowhere, if the thread's end is waited for.
    holder: AtomicU64,
    taken_at: AtomicU64,
}

impl Waits {
    /// It begins, at this mark.
    pub(crate) fn begin(&self, place: u64) {
        self.place.store(place, Relaxed);
        self.since_ns.store(pv_ops::monotonic_ns(), Relaxed);
    }

    /// This thread has the lock, taken at this mark.
    pub(crate) fn look(&self, holder: u64, taken_at: u64) {
        self.holder.store(holder, Relaxed);
        self.taken_at.store(taken_at, Relaxed);
    }

    /// It is over.
    pub(crate) fn end(&self) {
        self.since_ns.store(0, Relaxed);
    }
}

/// Reports, on the console, who gets no further for as long as `period`, and again after each further one. Lasts until
/// the end of the guest. A CPU that comes up later is watched by the others.
///
/// # Errors
/// [`OutOfMemory`] when there is none for its timers.
///
/// # Panics
/// With interrupts disabled.
pub fn watch(period: Duration) -> Result<(), OutOfMemory> {
    let period_ns = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX).max(1_000_000);
    let failed = AtomicBool::new(false);
    cpu::call_on(percpu::up(), &|| {
        let cpu = cpu::this_cpu();
        let watch = memory::shared(Watch { period_ns, cpu });
        match watch.map(Watch::again) {
            Ok(Ok(())) => heartbeat::set_watcher(cpu, true),
            _ => failed.store(true, Relaxed),
        }
    });
    if failed.into_inner() { Err(OutOfMemory) } else { Ok(()) }
}

/// The watch of one CPU.
struct Watch {
    period_ns: u64,
    cpu: u32,
}

impl Watch {
    fn again(self: Arc<Self>) -> Result<(), crate::time::queue::OutOfMemory> {
        let deadline_ns = pv_ops::monotonic_ns() + self.period_ns;
        // It is never given up.
        timer::register(deadline_ns, Waker::from(self)).map(core::mem::forget)
    }
}

/// The timer's waker: it looks at once, in the interrupt, as those who could look later may be the ones that are stuck.
impl Wake for Watch {
    fn wake(self: Arc<Self>) {
        // Whoever takes a CPU down wakes all who wait there.
        if cpu::this_cpu() != self.cpu {
            return heartbeat::set_watcher(self.cpu, false);
        }
        let out = &mut Emergency::default();
        heartbeat::look(self.period_ns, out);
        // One of the CPUs looks at the threads: whichever comes first.
        static LOOKED_NS: AtomicU64 = AtomicU64::new(0);
        let (now_ns, before_ns) = (pv_ops::monotonic_ns(), LOOKED_NS.load(Relaxed));
        if now_ns.saturating_sub(before_ns) > self.period_ns / 2
            && LOOKED_NS.compare_exchange(before_ns, now_ns, Relaxed, Relaxed).is_ok()
        {
            let report = stall::Report::begin();
            look(self.period_ns, out);
            drop(report);
        }
        let _ = self.again();
    }
}

/// Tells which threads wait for longer than `period_ns`, and which of them wait for each other; and which CPUs stay with
/// one thread. Takes no lock that is taken.
fn look(period_ns: u64, out: &mut dyn Write) {
    let now_ns = pv_ops::monotonic_ns();
    life::with_threads(&mut |threads| {
        let waits_ns = |thread: &Thread| match thread.waits.since_ns.load(Relaxed) {
            0 => None,
            since_ns => Some(now_ns.saturating_sub(since_ns)).filter(|&ns| ns >= period_ns),
        };
        for thread in threads {
            if let Some(ns) = waits_ns(thread) {
                let _ = report(thread, ns, out);
                let _ = report_circle(thread, threads, &|thread| waits_ns(thread).is_some(), out);
            }
        }
    });
    scheduler::for_each_stuck_cpu(&mut |cpu, thread, ready| {
        let _ = writeln!(out, "\nSTALL: CPU {cpu} goes on with {thread:?} while {ready} others are ready");
    });
}

fn report(thread: &Thread, ns: u64, out: &mut dyn Write) -> fmt::Result {
    let waits = &thread.waits;
    let (place, taken_at) = (Mark(waits.place.load(Relaxed)), waits.taken_at.load(Relaxed));
    let holder = waits.holder.load(Relaxed);
    let ms = ns / 1_000_000;
    write!(out, "\nSTALL: {thread:?} waits for ")?;
    match taken_at {
        0 => writeln!(out, "the end of thread {holder} for {ms} ms, {place}"),
        _ => writeln!(out, "a lock for {ms} ms, {place}; thread {holder} has it, {}", Mark(taken_at)),
    }
}

/// Whether what the thread waits for waits, in the end, for the thread: told once, by the one with the least number.
fn report_circle(
    first: &Thread,
    threads: &[Arc<Thread>],
    waits: &dyn Fn(&Thread) -> bool,
    out: &mut dyn Write,
) -> fmt::Result {
    let next = |thread: &Thread| {
        let holder = thread.waits.holder.load(Relaxed);
        threads.iter().find(|other| other.id() == holder).filter(|other| waits(other))
    };
    let circle = || core::iter::successors(next(first), |thread| next(thread)).take(threads.len());
    let Some(len) = circle().position(|thread| thread.id() == first.id()) else { return Ok(()) };
    if circle().take(len).any(|thread| thread.id() < first.id()) {
        return Ok(());
    }
    write!(out, "DEADLOCK: {first:?}")?;
    for thread in circle().take(len + 1) {
        write!(out, " waits for {thread:?}")?;
    }
    writeln!(out)
}

crate::kernel_test! {
    /// Two threads that each want the other's lock are told, with who has what.
    fn a_deadlock_is_told_with_both_sides() {
        use crate::{sync::Mutex, thread};
        use alloc::string::String;
        static LOCKS: [Mutex<()>; 2] = [Mutex::new(()), Mutex::new(())];
        static MET: crate::sync::Barrier = crate::sync::Barrier::new(2);
        let mut threads = alloc::vec::Vec::new();
        for (own, name) in ["alpha", "beta"].into_iter().enumerate() {
            threads.push(thread::Builder::new().name(name).spawn(move || {
                let first = LOCKS[own].lock();
                MET.wait();
                // The one that begins gives up before it is for ever.
                if own == 0 {
                    let mut told = String::new();
                    while !told.contains("beta") {
                        thread::sleep(Duration::from_millis(2));
                        told.clear();
                        look(1, &mut told);
                    }
                    drop(first);
                    return told;
                }
                let _second = LOCKS[1 - own].lock();
                String::new()
            }).unwrap());
        }
        let alpha = threads[0].thread().id();
        let told = threads.into_iter().map(thread::JoinHandle::join).next().unwrap();
        assert!(told.contains("\"beta\" waits for a lock"), "{told}");
        assert!(told.contains(&alloc::format!("thread {alpha} has it, CPU ")), "{told}");
    }
}

crate::kernel_test! {
    fn a_cpu_that_goes_on_with_one_thread_is_told() {
        use crate::{cpu, thread};
        use alloc::string::String;
        if scheduler::cpus().len() > 1 {
            crate::skip!("another CPU would take the thread that waits");
        }
        let stay = cpu::stay();
        let other = thread::spawn(|| ());
        let mut told = String::new();
        look(u64::MAX, &mut told);
        look(u64::MAX, &mut told);
        drop(stay);
        other.join();
        assert!(told.contains("STALL: CPU 0 goes on with"), "{told}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Threads, each of which waits for the one with the index that comes with it.
    fn threads(waits_for: &[Option<usize>]) -> Vec<Arc<Thread>> {
        let thread = |_| Arc::new(Thread::adopted("t".into(), 0, false));
        let threads: Vec<_> = waits_for.iter().map(thread).collect();
        for (thread, other) in threads.iter().zip(waits_for) {
            if let Some(other) = *other {
                thread.waits.look(threads[other].id(), 0);
            }
        }
        threads
    }

    fn circles(waits_for: &[Option<usize>]) -> Vec<String> {
        let threads = threads(waits_for);
        let waits = |thread: &Thread| thread.waits.holder.load(Relaxed) != 0;
        let told = threads.iter().map(|thread| {
            let mut out = String::new();
            report_circle(thread, &threads, &waits, &mut out).unwrap();
            // Numbers that do not depend on other tests.
            threads.iter().enumerate().rev().fold(out, |out, (index, thread)| {
                out.replace(&format!("thread {} \"t\"", thread.id()), &index.to_string())
            })
        });
        told.filter(|told| !told.is_empty()).collect()
    }

    #[test]
    fn threads_that_wait_for_each_other_are_told_once() {
        assert_eq!(circles(&[Some(1), Some(0)]), ["DEADLOCK: 0 waits for 1 waits for 0\n"]);
        let two = circles(&[Some(2), Some(1), Some(3), Some(0)]);
        assert_eq!(two, ["DEADLOCK: 0 waits for 2 waits for 3 waits for 0\n", "DEADLOCK: 1 waits for 1\n"]);
    }

    #[test]
    fn who_waits_for_a_circle_is_not_in_it() {
        assert_eq!(circles(&[Some(1), Some(2), Some(1)]), ["DEADLOCK: 1 waits for 2 waits for 1\n"]);
    }

    #[test]
    fn a_queue_is_no_circle() {
        assert!(circles(&[Some(1), Some(2), None]).is_empty());
    }
}
