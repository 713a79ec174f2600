//! TLB flushes that take more than one instruction (SDM vol. 3A §4.10.4).
//! Neighbours: `native` (the other mmu ops).

use crate::cpu_set::CpuSet;
use core::sync::atomic::{AtomicPtr, Ordering};

/// CR4.PGE, page global enable: changing it flushes everything (SDM vol. 3A §2.5, §4.10.4.1).
const CR4_PGE: u64 = 1 << 7;

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

pub(super) extern "sysv64" fn flush_tlb() {
    let flags = crate::irq_flags();
    crate::irq_disable();
    let cr4 = crate::read_cr4();
    if cr4 & CR4_PGE != 0 {
        // SAFETY: CR4 as it was but for PGE, which changes nothing that a program sees.
        unsafe { crate::write_cr4(cr4 & !CR4_PGE) };
        // SAFETY: CR4 as it was.
        unsafe { crate::write_cr4(cr4) };
    } else {
        // SAFETY: the same tables again.
        unsafe { crate::write_cr3(crate::read_cr3()) };
    }
    crate::irq_restore(flags);
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
