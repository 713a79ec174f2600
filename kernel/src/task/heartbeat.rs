//! CPUs that take no interrupts any more, as another CPU sees it: each that watches looks at those that come after it.
//!
//! A look interrupts a CPU that has work, and later looks find whether that interrupt was taken. A CPU that has run for the
//! whole period and has not taken it, what the host ran instead not counted, is told, and asked where it is by an interrupt
//! that nothing holds back. Nobody looks at a CPU that idles: it can be woken, and that is all it needs.
//! Neighbours: `watch` (calls, on each CPU that watches), `cpu::nmi` (asks).
#![forbid(unsafe_code)]

use core::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use super::{idle, scheduler};
use crate::{
    backtrace::Backtrace,
    cpu::{self, nmi, percpu},
    irq::{entry::Frame, vectors},
    panic::Emergency,
    sync::stall::Report,
};
use pv_ops::AtomicCpuSet;

/// CPUs that look at others.
static WATCHERS: AtomicCpuSet = AtomicCpuSet::new();
/// CPUs that were told of, until they go on.
static TOLD: AtomicCpuSet = AtomicCpuSet::new();

/// What was found of a CPU at the first look that found the same.
struct Seen {
    /// Interrupts that it had taken, plus one; 0 while it had nothing to do.
    beats: AtomicU64,
    since_ns: AtomicU64,
    /// The host's count of time stolen from it.
    stolen_ns: AtomicU64,
}

static SEEN: [Seen; cpu::MAX_CPUS] =
    [const { Seen { beats: AtomicU64::new(0), since_ns: AtomicU64::new(0), stolen_ns: AtomicU64::new(0) } };
        cpu::MAX_CPUS];

/// This CPU looks at others from now on, or no more.
pub(super) fn set_watcher(number: u32, watches: bool) {
    if watches {
        WATCHERS.insert(number);
    } else {
        WATCHERS.remove(number);
    }
}

/// Looks at the CPUs after this one, up to the next that watches; further, if that one is stuck.
pub(super) fn look(period_ns: u64, out: &mut dyn Write) {
    let (here, up) = (cpu::this_cpu(), percpu::up());
    let count = cpu::MAX_CPUS as u32;
    for number in (1..count).map(|distance| (here + distance) % count).filter(|&number| up.contains(number)) {
        if !is_stuck(number, period_ns, out) && WATCHERS.contains(number) {
            return;
        }
    }
}

fn is_stuck(number: u32, period_ns: u64, out: &mut dyn Write) -> bool {
    let (Some(data), seen) = (percpu::by_id(number), &SEEN[number as usize % SEEN.len()]) else {
        return false;
    };
    if idle::is_idle(number) {
        seen.beats.store(0, Relaxed);
        return false;
    }
    let taken = (0..=u8::MAX).filter(|&vector| vector != vectors::NMI).map(|vector| data.interrupts(vector));
    let beats = taken.sum::<u64>() + 1;
    let (now_ns, stolen_ns) = (pv_ops::monotonic_ns(), pv_ops::steal_ns(number));
    if seen.beats.swap(beats, Relaxed) != beats {
        seen.since_ns.store(now_ns, Relaxed);
        seen.stolen_ns.store(stolen_ns, Relaxed);
        TOLD.remove(number);
        cpu::kick(number);
        return false;
    }
    // What the host took is no time of the CPU's.
    let stolen_ns = stolen_ns.saturating_sub(seen.stolen_ns.load(Relaxed));
    let ns = now_ns.saturating_sub(seen.since_ns.load(Relaxed)).saturating_sub(stolen_ns);
    if ns < period_ns {
        return false;
    }
    if !TOLD.contains(number) {
        TOLD.insert(number);
        tell(number, ns, out);
    }
    true
}

fn tell(number: u32, ns: u64, out: &mut dyn Write) {
    let _report = Report::begin();
    let _ = write!(out, "\nSTALL: CPU {number} takes no interrupts for {} ms", ns / 1_000_000);
    scheduler::with_running(number, &mut |thread| _ = write!(out, "; it runs {thread:?}"));
    let _ = writeln!(out);
    if !nmi::ask(number, answer) {
        let _ = writeln!(out, "  it does not answer either");
    }
}

/// Runs on the CPU that is stuck.
fn answer(frame: &Frame) {
    let _ = write!(Emergency::default(), "{frame}backtrace:\n{}", Backtrace::of(frame.rip, frame.rbp));
}
