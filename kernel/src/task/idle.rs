//! What a CPU does while it has no work, and which CPUs do so.
//! Neighbours: `scheduler` (asks), `pv_ops::safe_halt` (how a halt misses no wake-up).
#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicU64, Ordering, fence};

use super::round;
use crate::cpu::RFLAGS_IF;

/// A bit for each CPU: it halts, or is about to.
static IDLE: [AtomicU64; pv_ops::MAX_CPUS / 64] = [const { AtomicU64::new(0) }; pv_ops::MAX_CPUS / 64];

fn place(cpu: u32) -> (&'static AtomicU64, u64) {
    (&IDLE[cpu as usize / 64 % IDLE.len()], 1 << (cpu % 64))
}

/// Whether `cpu` has no work. On that CPU itself: whether an interrupt handler interrupted the halt.
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

/// Halts this CPU until an interrupt has been handled, unless `ready` already holds. Interrupts are disabled, before
/// and after.
///
/// A wake-up cannot be lost: it comes from a handler here, and interrupts are off from the question to the halt, which
/// lets them in only once the CPU is as good as halted; or from another CPU, which sees the mark and sends an interrupt.
pub(super) fn halt(cpu: u32, ready: &dyn Fn() -> bool) {
    let (set, bit) = place(cpu);
    set.fetch_or(bit, Ordering::SeqCst);
    fence(Ordering::SeqCst);
    round::wait(cpu, ready);
    if !ready() {
        crate::cpu::sleep();
    }
    set.fetch_and(!bit, Ordering::SeqCst);
}

/// Interrupts `cpu`, so that it looks at its run queue.
pub(super) fn kick(cpu: u32) {
    crate::cpu::kick(cpu);
}

/// A wait with interrupts disabled by the caller would break the caller's lock or last for ever.
#[track_caller]
pub(super) fn check() {
    assert!(pv_ops::irq_flags() & RFLAGS_IF != 0, "a thread waits with interrupts disabled");
}
