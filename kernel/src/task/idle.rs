//! What a CPU does while it has no work, and which CPUs do so.
//!
//! It looks for work a little while before it halts, if that pays off ([`Eagerness`]): waking a halted CPU takes an interrupt
//! and whatever the host needs to run it again, which may be more than the work.
//! Neighbours: `bell` (how nobody is missed), `scheduler` (asks), `round` (what devices have done), `eagerness` (how long it looks),
//! `time::lead` (the halt, and being back in time).
#![forbid(unsafe_code)]

use super::{
    bell::{Bell, Marks},
    eagerness::Eagerness,
    round,
};
use crate::{
    cpu::{RFLAGS_IF, percpu},
    time::lead,
};

static IDLE: Marks = Marks::new();

/// How a CPU without work is told that there is some, and how long it listens.
struct Place {
    bell: Bell,
    eagerness: Eagerness,
}

static PLACES: [Place; pv_ops::MAX_CPUS] =
    [const { Place { bell: Bell::new(), eagerness: Eagerness::new() } }; pv_ops::MAX_CPUS];

fn place(cpu: u32) -> &'static Place {
    &PLACES[cpu as usize % PLACES.len()]
}

/// Whether `cpu` has no work. On that CPU itself: whether an interrupt handler interrupted its idleness.
pub(super) fn is_idle(cpu: u32) -> bool {
    IDLE.contains(cpu)
}

/// As [`is_idle`], for who has made work for that CPU just now: whether it has to be [kicked](kick).
pub(super) fn must_be_kicked(cpu: u32) -> bool {
    IDLE.contains_after_work(cpu)
}

/// A CPU without work among `online`, `here` excepted.
pub(super) fn find(online: core::ops::Range<u32>, here: u32) -> Option<u32> {
    IDLE.find(online, here)
}

/// Whether a CPU other than `here` works, or is about to: only such a one makes work without an interrupt.
fn somebody_works(here: u32) -> bool {
    let works = |cpu| cpu != here && (!is_idle(cpu) || place(cpu).bell.is_rung());
    percpu::up().iter().any(works)
}

/// What `find` finds on other CPUs; else waits on this CPU until an interrupt has been handled or another CPU has something
/// for it, unless `ready` holds. Interrupts are disabled, before and after.
///
/// A wake-up cannot be lost: it comes from a handler here, and interrupts are off from the question to the halt, which
/// lets them in only once the CPU is as good as halted; or from another CPU, which sees the mark and sends an interrupt,
/// unless it also sees that this one listens, which asks once more when it has ceased to. `find` is called with the mark
/// set: what was not there to be found is brought, or told, by who sees the mark.
pub(super) fn rest<T>(cpu: u32, ready: &dyn Fn() -> bool, find: impl FnOnce() -> Option<T>) -> Option<T> {
    let place = place(cpu);
    place.bell.forget();
    IDLE.set(cpu);
    if let Some(found) = find() {
        IDLE.clear_for_work(cpu);
        return Some(found);
    }
    let has_work = || ready() || place.bell.is_rung();
    round::wait(cpu, &has_work);
    if !has_work() {
        match somebody_works(cpu) {
            true => place.wait(cpu, &has_work),
            false => lead::halt(&has_work),
        }
    }
    IDLE.clear(cpu);
    None
}

impl Place {
    /// Listens for as long as pays off, then halts; and learns from it.
    fn wait(&self, cpu: u32, has_work: &dyn Fn() -> bool) {
        let start_ns = pv_ops::monotonic_ns();
        let look_ns = self.eagerness.ns(start_ns);
        if look_ns != 0 {
            self.bell.listen();
            while !has_work() && somebody_works(cpu) && pv_ops::monotonic_ns() < start_ns + look_ns {
                crate::cpu::let_interrupts_in();
            }
            self.bell.cease();
            self.eagerness.looked(start_ns, pv_ops::monotonic_ns(), look_ns);
        }
        if !has_work() {
            lead::halt(has_work);
        }
        if self.bell.is_rung() {
            self.eagerness.learn(pv_ops::monotonic_ns() - start_ns);
        }
    }
}

/// Has `cpu` look at its run queue.
pub(super) fn kick(cpu: u32) {
    if place(cpu).bell.ring() {
        crate::cpu::kick(cpu);
    }
}

/// A wait with interrupts disabled by the caller would break the caller's lock or last for ever.
#[track_caller]
pub(super) fn check() {
    assert!(pv_ops::irq_flags() & RFLAGS_IF != 0, "a thread waits with interrupts disabled");
}
