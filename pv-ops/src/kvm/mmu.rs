//! TLB flushes that leave CPUs alone which do not run (cpuid.rst, KVM_FEATURE_PV_TLB_FLUSH).
//! Neighbours: `area` (whether a CPU runs), `native::mmu` (flushes those which do).
//!
//! A CPU that its host has put aside would answer the flush only when its turn comes. It is marked instead, and the host
//! flushes for it before it runs again.

use super::area;
use crate::{CpuSet, native};
use core::sync::atomic::{AtomicU32, Ordering};

/// Set by the host: the CPU does not run.
#[doc(alias = "KVM_VCPU_PREEMPTED")]
pub(super) const PREEMPTED: u8 = 1 << 0;
/// Set by a guest: flush before it runs again.
#[doc(alias = "KVM_VCPU_FLUSH_TLB")]
const FLUSH_TLB: u8 = 1 << 1;

/// CPUs that were marked.
static MARKED: AtomicU32 = AtomicU32::new(0);

/// How often a CPU was marked instead of interrupted.
pub fn marked() -> u32 {
    MARKED.load(Ordering::Relaxed)
}

/// # Panics
/// As [`native::mmu::flush_tlb_others`].
pub(super) extern "sysv64" fn flush_tlb_others(cpus: *const CpuSet, start: u64, len_bytes: u64) {
    // SAFETY: the op's argument is a reference.
    let all = unsafe { &*cpus };
    let mut running = *all;
    for cpu in all.iter() {
        if is_put_aside_and_marked(cpu) {
            MARKED.fetch_add(1, Ordering::Relaxed);
            running.remove(cpu);
        }
    }
    native::mmu::flush_tlb_others(&running, start, len_bytes);
}

/// Marks the CPU if it does not run. Should it start to run this moment, the mark fails, or was seen by the host.
fn is_put_aside_and_marked(cpu: u32) -> bool {
    let Some(area) = area::of(cpu) else { return false };
    let state = area.steal.preempted.load(Ordering::Acquire);
    let marked = state | FLUSH_TLB;
    state & PREEMPTED != 0
        && area.steal.preempted.compare_exchange(state, marked, Ordering::SeqCst, Ordering::SeqCst).is_ok()
}

/// Whether the host has put this CPU aside.
pub fn is_put_aside(cpu: u32) -> bool {
    area::of(cpu).is_some_and(|area| area.steal.preempted.load(Ordering::Relaxed) & PREEMPTED != 0)
}
