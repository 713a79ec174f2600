//! Waiting for a lock asleep (hypercalls.rst, KVM_HC_KICK_CPU; cpuid.rst, KVM_FEATURE_PV_UNHALT).
//! Neighbours: `hypercall` (the kick), the kernel's locks (who wait).

use super::hypercall;
use crate::native;
use core::sync::atomic::{AtomicU8, Ordering};

/// RFLAGS.IF.
const IF: u64 = 1 << 9;

/// Wakes the CPU, whether or not it takes interrupts: KVM keeps a kick for a CPU that is about to halt.
pub(super) extern "sysv64" fn lock_kick(cpu: u32) {
    if let Some(apic_id) = native::irq::apic_id(cpu) {
        hypercall::kick_cpu(apic_id);
    }
}

/// Halts while the lock is as it was seen, until the kick or an interrupt. Interrupts are off from the look to the halt, so
/// that none that changes the lock slips in; who waits with interrupts disabled stays so, and only the kick wakes it.
///
/// # Safety
/// `lock` is valid.
pub(super) unsafe extern "sysv64" fn lock_wait(lock: *const AtomicU8, seen: u8) {
    let flags = crate::irq_flags();
    crate::irq_disable();
    // SAFETY: the op's argument is a reference.
    if unsafe { &*lock }.load(Ordering::Acquire) == seen {
        if flags & IF != 0 {
            crate::safe_halt();
        } else {
            crate::halt();
        }
    }
    crate::irq_restore(flags);
}
