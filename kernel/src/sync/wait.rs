//! How a CPU waits for a spin lock: what [`queued`](super::queued) asks for, as the guest does it.
//! Neighbours: `pv_ops` (sleeping and kicking), `cpu::tlb` (what others may ask of a CPU that waits).
#![forbid(unsafe_code)]

use core::sync::atomic::AtomicU8;

/// Looks at a lock before standing in the queue, and before sleeping there.
pub(super) const EARLY_LOOKS: u32 = 1 << 6;
pub(super) const LOOKS: u32 = 1 << 10;

/// Between two looks. The holder may wait for this CPU's TLB.
#[inline]
pub(super) fn relax() {
    crate::cpu::tlb::poll();
    core::hint::spin_loop();
}

/// Waits while `word` has the value `seen`, perhaps asleep; may come back early.
pub(super) fn sleep(_cpu: u32, word: &AtomicU8, seen: u8) {
    crate::cpu::tlb::poll();
    pv_ops::lock_wait(word, seen);
}

/// Wakes a CPU that sleeps so.
pub(super) fn kick(cpu: u32) {
    pv_ops::lock_kick(cpu);
}
