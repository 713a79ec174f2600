//! TLB flushes that take more than one CPU (SDM vol. 3A §4.10.4), and lists of entries.
//! Neighbours: `native` (the other mmu ops).

use crate::cpu_set::CpuSet;
use core::sync::atomic::{AtomicPtr, Ordering};

/// Flushes `len_bytes` bytes from `start`, or everything if they are `u64::MAX`, on the CPUs of the set, and returns when
/// no CPU uses an entry from before.
pub type Shootdown = fn(cpus: &CpuSet, start: u64, len_bytes: u64);

static SHOOTDOWN: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// The kernel's way to flush other CPUs, natively an inter-processor interrupt of its own.
/// To be set before a second CPU starts.
pub fn set_shootdown(shootdown: Shootdown) {
    SHOOTDOWN.store(shootdown as *mut (), Ordering::Release);
}

/// # Safety
/// As for [`set_ptes`](crate::set_ptes()).
pub(super) unsafe extern "sysv64" fn set_ptes(first: *mut u64, values: *const u64, count: u64) {
    for index in 0..count as usize {
        // SAFETY: one of the caller's words.
        let value = unsafe { values.add(index).read() };
        // SAFETY: an entry of the caller's table, which the CPU reads at any time: hence volatile.
        unsafe { first.add(index).write_volatile(value) };
    }
}

/// # Panics
/// For CPUs that nobody has told how to reach.
pub(crate) extern "sysv64" fn flush_tlb_others(cpus: *const CpuSet, start: u64, len_bytes: u64) {
    // SAFETY: the op's argument is a reference.
    let cpus = unsafe { &*cpus };
    if cpus.is_empty() {
        return;
    }
    let shootdown = SHOOTDOWN.load(Ordering::Acquire);
    assert!(!shootdown.is_null(), "TLB flush on other CPUs before native::mmu::set_shootdown");
    // SAFETY: only `set_shootdown` stores here, a function pointer of this type.
    let shootdown = unsafe { core::mem::transmute::<*mut (), Shootdown>(shootdown) };
    shootdown(cpus, start, len_bytes);
}
