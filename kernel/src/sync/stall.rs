//! Reports of waits that take too long: who waits, who has the lock, and where each of them took it.
//!
//! What is noted when a lock is taken is one word: the return address of the function that took it, from which the
//! report finds the function's name, with the CPU in its upper bits. A report goes past all locks to the
//! console, once for a wait. Neighbours: `irq_mutex`, `mutex` (note and ask), `symbols` (names).
#![forbid(unsafe_code)]

use alloc::sync::Arc;
use core::{
    fmt::{self, Write},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use super::wait;
use crate::{
    cpu,
    panic::Emergency,
    symbols,
    task::{Thread, scheduler},
};

/// How long a CPU may spin for a lock until that is reported. A virtual CPU may be away for a while.
const PATIENCE_NS: u64 = 10_000_000_000;

/// An address of the image is told by its lower bits; the upper ones are the CPU's number, plus one.
const ADDRESS_BITS: u32 = 48;

/// Which CPU runs this, and where it will return to.
#[inline(always)]
pub(super) fn mark() -> u64 {
    mark_at(cpu::probe::return_address())
}

/// As [`mark`], with where it is.
#[inline(always)]
pub(super) fn mark_here() -> u64 {
    mark_at(cpu::probe::instruction_pointer())
}

#[inline(always)]
fn mark_at(address: u64) -> u64 {
    address & ((1 << ADDRESS_BITS) - 1) | (u64::from(cpu::this_cpu()) + 1) << ADDRESS_BITS
}

/// A mark, in words.
pub(crate) struct Mark(pub(crate) u64);

impl fmt::Display for Mark {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(cpu) = (self.0 >> ADDRESS_BITS).checked_sub(1) else { return out.write_str("nobody") };
        let address = ((self.0 << (64 - ADDRESS_BITS)) as i64 >> (64 - ADDRESS_BITS)) as u64;
        write!(out, "CPU {cpu} at {address:#x}")?;
        match symbols::lookup(address) {
            Some((name, offset)) => write!(out, " {name}+{offset:#x}"),
            None => Ok(()),
        }
    }
}

/// Somebody reports.
static REPORTS: AtomicBool = AtomicBool::new(false);
/// Times that is looked whether that is over: who reports may be stuck as well.
const REPORT_LOOKS: u32 = 1_000_000;

/// Reports of one CPU at a time, while this lives.
pub(crate) struct Report(());

impl Report {
    /// Begins a report, once others are through, or should be.
    pub(crate) fn begin() -> Self {
        let _ = (0..REPORT_LOOKS).find(|_| {
            wait::relax();
            !REPORTS.swap(true, Relaxed)
        });
        Self(())
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        REPORTS.store(false, Relaxed);
    }
}

/// What each CPU spins for, and since when; nothing while it does not.
static SPINS: [Spin; cpu::MAX_CPUS] =
    [const { Spin { place: AtomicU64::new(0), since_ns: AtomicU64::new(0) } }; cpu::MAX_CPUS];

struct Spin {
    /// Where it waits: a mark.
    place: AtomicU64,
    /// 0 until it has waited for a while, [`REPORTED`] in the end.
    since_ns: AtomicU64,
}

const REPORTED: u64 = u64::MAX;

/// This CPU begins to spin at `place`, a mark. Interrupts are disabled.
pub(super) fn spins(place: u64) {
    let own = &SPINS[cpu::this_cpu() as usize];
    own.since_ns.store(0, Relaxed);
    own.place.store(place, Relaxed);
}

/// It spins on, for a lock that the CPU of the mark `holder` had last.
#[cold]
pub(super) fn spins_on(cpu: u32, holder: u64) {
    let own = &SPINS[cpu as usize];
    let now_ns = pv_ops::monotonic_ns();
    match own.since_ns.load(Relaxed) {
        0 => own.since_ns.store(now_ns, Relaxed),
        REPORTED => {}
        since_ns if now_ns.saturating_sub(since_ns) < PATIENCE_NS => {}
        _ => {
            own.since_ns.store(REPORTED, Relaxed);
            let (place, seconds) = (Mark(own.place.load(Relaxed)), PATIENCE_NS / 1_000_000_000);
            let (report, mut out) = (Report::begin(), Emergency::default());
            let _ =
                writeln!(out, "\nSTALL: {place} spins for a lock for {seconds} s; {} has it", Mark(holder));
            drop(report);
            // Whoever has a lock has interrupts disabled: nobody else could have taken it here.
            assert!(holder >> ADDRESS_BITS != u64::from(cpu) + 1, "this CPU waits for itself");
        }
    }
}

/// Who has a blocking lock; the last one if nobody has.
pub(super) struct Blocking {
    thread: AtomicU64,
    place: AtomicU64,
}

impl Blocking {
    pub(super) const fn new() -> Self {
        Self { thread: AtomicU64::new(0), place: AtomicU64::new(0) }
    }

    /// The thread that runs this has it.
    #[inline(always)]
    pub(super) fn taken(&self) {
        self.thread.store(cpu::switch::current_id(), Relaxed);
        self.place.store(mark(), Relaxed);
    }

    /// The thread that runs this waits for it.
    #[inline(always)]
    pub(super) fn waits(&self) -> Waits<'_> {
        Waits { lock: self, thread: begin(mark()) }
    }
}

fn begin(place: u64) -> Arc<Thread> {
    let thread = scheduler::current();
    thread.waits.begin(place);
    thread
}

/// A thread waits for a blocking lock while this lives.
pub(super) struct Waits<'a> {
    lock: &'a Blocking,
    thread: Arc<Thread>,
}

impl Waits<'_> {
    /// Notes who has it now.
    pub(super) fn look(&self) {
        self.thread.waits.look(self.lock.thread.load(Relaxed), self.lock.place.load(Relaxed));
    }
}

/// The thread that runs this waits for the end of the one with this number while what is returned lives.
#[inline(always)]
pub(crate) fn waits_for_end(number: u64) -> impl Drop {
    let thread = begin(mark());
    thread.waits.look(number, 0);
    WaitsForEnd(thread)
}

struct WaitsForEnd(Arc<Thread>);

impl Drop for WaitsForEnd {
    fn drop(&mut self) {
        self.0.waits.end();
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.thread.waits.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_tells_cpu_and_address() {
        assert_eq!(Mark(0).to_string(), "nobody");
        assert_eq!(Mark(3 << ADDRESS_BITS | 0xffff_8020_0000).to_string(), "CPU 2 at 0xffffffff80200000");
    }
}
