//! What a CPU does while it has no work, and which CPUs do so.
//!
//! It looks for work a little while before it halts, if that pays off ([`Eagerness`]): waking a halted CPU takes an interrupt
//! and whatever the host needs to run it again, which may be more than the work.
//! Neighbours: `scheduler` (asks), `eagerness` (how long it looks), `time::lead` (the halt, and being back in time).
#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

use super::eagerness::Eagerness;
use crate::{
    cpu::{RFLAGS_IF, percpu},
    time::lead,
};

/// A bit for each CPU: it has no work.
static IDLE: [AtomicU64; pv_ops::MAX_CPUS / 64] = [const { AtomicU64::new(0) }; pv_ops::MAX_CPUS / 64];

/// How a CPU without work is told that there is some.
struct Bell {
    /// It looks at `rung`, so that no interrupt is needed.
    listens: AtomicBool,
    /// Another CPU has something for it.
    rung: AtomicBool,
    eagerness: Eagerness,
}

static BELLS: [Bell; pv_ops::MAX_CPUS] = [const {
    Bell { listens: AtomicBool::new(false), rung: AtomicBool::new(false), eagerness: Eagerness::new() }
}; pv_ops::MAX_CPUS];

fn place(cpu: u32) -> (&'static AtomicU64, u64) {
    (&IDLE[cpu as usize / 64 % IDLE.len()], 1 << (cpu % 64))
}

fn bell(cpu: u32) -> &'static Bell {
    &BELLS[cpu as usize % BELLS.len()]
}

/// Whether `cpu` has no work. On that CPU itself: whether an interrupt handler interrupted its idleness.
pub(super) fn is_idle(cpu: u32) -> bool {
    let (set, bit) = place(cpu);
    set.load(Ordering::Relaxed) & bit != 0
}

/// A CPU without work among `online`, `here` excepted.
pub(super) fn find(online: core::ops::Range<u32>, here: u32) -> Option<u32> {
    IDLE.iter().enumerate().find_map(|(index, set)| {
        let mut set = set.load(Ordering::Relaxed);
        let first = index as u32 * 64;
        if here / 64 == index as u32 {
            set &= !(1 << (here % 64));
        }
        (set != 0).then(|| first + set.trailing_zeros()).filter(|cpu| online.contains(cpu))
    })
}

/// Whether a CPU other than `here` works, or is about to: only such a one makes work without an interrupt.
fn somebody_works(here: u32) -> bool {
    let works = |cpu| cpu != here && (!is_idle(cpu) || bell(cpu).rung.load(Ordering::Relaxed));
    percpu::up().iter().any(works)
}

/// Waits on this CPU until an interrupt has been handled or another CPU has something for it, unless `ready` already holds.
/// Interrupts are disabled, before and after.
///
/// A wake-up cannot be lost: it comes from a handler here, and interrupts are off from the question to the halt, which
/// lets them in only once the CPU is as good as halted; or from another CPU, which sees the mark and sends an interrupt,
/// unless it also sees that this one listens, which asks once more when it has ceased to.
pub(super) fn halt(cpu: u32, ready: &dyn Fn() -> bool) {
    let ((set, bit), bell) = (place(cpu), bell(cpu));
    bell.rung.store(false, Ordering::Relaxed);
    set.fetch_or(bit, Ordering::SeqCst);
    fence(Ordering::SeqCst);
    let has_work = || ready() || bell.rung.load(Ordering::Relaxed);
    if !has_work() {
        match somebody_works(cpu) {
            true => bell.wait(cpu, &has_work),
            false => lead::halt(&has_work),
        }
    }
    set.fetch_and(!bit, Ordering::SeqCst);
}

impl Bell {
    /// Listens for as long as pays off, then halts; and learns from it.
    fn wait(&self, cpu: u32, has_work: &dyn Fn() -> bool) {
        let start_ns = pv_ops::monotonic_ns();
        let end_ns = start_ns + self.eagerness.ns();
        if end_ns != start_ns {
            self.listens.store(true, Ordering::SeqCst);
            while !has_work() && somebody_works(cpu) && pv_ops::monotonic_ns() < end_ns {
                crate::cpu::let_interrupts_in();
            }
            self.listens.swap(false, Ordering::SeqCst);
        }
        if !has_work() {
            lead::halt(has_work);
        }
        if self.rung.load(Ordering::Relaxed) {
            self.eagerness.learn(pv_ops::monotonic_ns() - start_ns);
        }
    }
}

/// Has `cpu` look at its run queue.
pub(super) fn kick(cpu: u32) {
    let bell = bell(cpu);
    bell.rung.swap(true, Ordering::SeqCst);
    if !bell.listens.load(Ordering::SeqCst) {
        crate::cpu::kick(cpu);
    }
}

/// A wait with interrupts disabled by the caller would break the caller's lock or last for ever.
#[track_caller]
pub(super) fn check() {
    assert!(pv_ops::irq_flags() & RFLAGS_IF != 0, "a thread waits with interrupts disabled");
}
