//! What the CPU does while no task is ready.
//! Neighbours: `executor` (who asks), `pv_ops::safe_halt` (how a halt misses no wake-up).
#![forbid(unsafe_code)]

/// Halts until an interrupt has been handled, unless `ready` already holds.
///
/// A wake-up cannot be lost: interrupts are off from the question to the halt, and `safe_halt` lets them in
/// only once the CPU is as good as halted.
#[cfg(target_os = "none")]
pub(super) fn halt_unless(ready: &dyn Fn() -> bool) {
    pv_ops::irq_disable();
    if ready() {
        pv_ops::irq_enable();
    } else {
        crate::cpu::sleep();
    }
}

/// A halt with interrupts disabled by the caller would break the caller's lock or last for ever.
#[cfg(target_os = "none")]
#[track_caller]
pub(super) fn check() {
    /// RFLAGS.IF.
    const IF: u64 = 1 << 9;
    assert!(pv_ops::irq_flags() & IF != 0, "block_on with interrupts disabled");
}

/// On the host other threads play the interrupt handlers.
#[cfg(not(target_os = "none"))]
pub(super) fn halt_unless(ready: &dyn Fn() -> bool) {
    if !ready() {
        core::hint::spin_loop();
    }
}

/// A host thread may always wait.
#[cfg(not(target_os = "none"))]
pub(super) fn check() {}
