//! A look at all threads and CPUs every now and then: which of them get no further, and why.
//!
//! Off unless asked for, as it interrupts a CPU that could sleep. It tells of a thread that waits for a blocking lock since
//! the last look, with who has the lock and where each of them was; and of a CPU that went on with no other thread since
//! then although some are ready there. Spin locks that take too long are told without it (`sync::stall`).
//! Neighbours: `scheduler` (what it looks at), `sync::stall` (notes who waits).
#![forbid(unsafe_code)]

use alloc::{sync::Arc, task::Wake};
use core::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    task::Waker,
    time::Duration,
};

use super::{OutOfMemory, life, memory, scheduler, thread::Thread};
use crate::{
    panic::Emergency,
    sync::{IrqMutex, stall::Mark},
    time::timer::{self, Timer},
};

/// What a thread waits for: a blocking lock. All zeros while it does not.
#[derive(Default)]
pub(crate) struct Waits {
    since_ns: AtomicU64,
    place: AtomicU64,
    /// Who has the lock, and where it was taken.
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

/// The watch that is kept.
static TIMER: IrqMutex<Option<Timer>> = IrqMutex::new(None);

/// Reports, on the console, who gets no further for as long as `period`, and again after each further one. Lasts until
/// the end of the guest.
///
/// # Errors
/// [`OutOfMemory`] when there is none for its timer.
pub fn watch(period: Duration) -> Result<(), OutOfMemory> {
    let period_ns = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX).max(1_000_000);
    let watch = memory::shared(Watch { period_ns })?;
    watch.again().map_err(|_| OutOfMemory)
}

struct Watch {
    period_ns: u64,
}

impl Watch {
    fn again(self: Arc<Self>) -> Result<(), crate::time::queue::OutOfMemory> {
        let deadline_ns = pv_ops::monotonic_ns() + self.period_ns;
        let timer = timer::register(deadline_ns, Waker::from(self))?;
        let before = TIMER.lock().replace(timer);
        drop(before);
        Ok(())
    }
}

/// The timer's waker: it looks at once, in the interrupt, as those who could look later may be the ones that are stuck.
impl Wake for Watch {
    fn wake(self: Arc<Self>) {
        look(self.period_ns, &mut Emergency::default());
        let _ = self.again();
    }
}

/// Tells who waits for longer than `period_ns`. Takes no lock that is taken.
fn look(period_ns: u64, out: &mut dyn Write) {
    let now_ns = pv_ops::monotonic_ns();
    life::for_each_thread(&mut |thread| {
        let since_ns = thread.waits.since_ns.load(Relaxed);
        if since_ns != 0 && now_ns.saturating_sub(since_ns) >= period_ns {
            let _ = report(thread, now_ns - since_ns, out);
        }
    });
    scheduler::for_each_stuck_cpu(&mut |cpu, thread, ready| {
        let _ = writeln!(out, "\nSTALL: CPU {cpu} goes on with {thread:?} while {ready} others are ready");
    });
}

fn report(thread: &Thread, ns: u64, out: &mut dyn Write) -> core::fmt::Result {
    let waits = &thread.waits;
    let (place, taken_at) = (Mark(waits.place.load(Relaxed)), Mark(waits.taken_at.load(Relaxed)));
    let holder = waits.holder.load(Relaxed);
    let ms = ns / 1_000_000;
    writeln!(
        out,
        "\nSTALL: {thread:?} waits for a lock for {ms} ms, {place}; thread {holder} has it, {taken_at}"
    )
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
