//! The calls that a guest makes to KVM (Linux `Documentation/virt/kvm/x86/hypercalls.rst`).
//! Neighbours: `mod` (has the instruction, which is an op), `irq`, `lock` (who call).

use core::sync::atomic::{AtomicU32, Ordering};

/// Lets the host look for interrupts, which it does at every entry.
#[doc(alias = "KVM_HC_VAPIC_POLL_IRQ")]
const VAPIC_POLL_IRQ: u64 = 1;
/// Wakes a CPU that halted, whether or not it takes interrupts. Arguments: 0, APIC ID.
#[doc(alias = "KVM_HC_KICK_CPU")]
pub const KICK_CPU: u64 = 5;
/// Sends an interrupt to many. Arguments: two words of bits, the APIC ID of the lowest, interrupt command register.
#[doc(alias = "KVM_HC_SEND_IPI")]
pub const SEND_IPI: u64 = 10;
/// Gives the rest of this CPU's time to another. Argument: its APIC ID.
#[doc(alias = "KVM_HC_SCHED_YIELD")]
pub const SCHED_YIELD: u64 = 11;

/// Calls that the host answered without an error, of each number.
static ANSWERED: [AtomicU32; SCHED_YIELD as usize + 1] =
    [const { AtomicU32::new(0) }; SCHED_YIELD as usize + 1];

/// How many calls of this number the host has answered without an error.
pub fn answered(number: u64) -> u32 {
    ANSWERED.get(number as usize).map_or(0, |count| count.load(Ordering::Relaxed))
}

/// Makes a call. Whether the host knows it.
///
/// # Safety
/// What the host does for it is sound.
unsafe fn call(number: u64, [a, b, c, d]: [u64; 4]) -> bool {
    // SAFETY: the caller's promise.
    let known = unsafe { crate::hypercall(number, a, b, c, d) } as i64 >= 0;
    if known {
        ANSWERED[number as usize].fetch_add(1, Ordering::Relaxed);
    }
    known
}

/// Whether calls reach the host: it knows the one that does nothing.
pub fn is_there() -> bool {
    // SAFETY: the call does nothing.
    unsafe { call(VAPIC_POLL_IRQ, [0; 4]) }
}

/// Enters the host and comes back: for measurements.
pub fn nothing() {
    is_there();
}

/// Wakes the CPU with this APIC ID from its halt.
pub(super) fn kick_cpu(apic_id: u32) {
    // SAFETY: a CPU that wakes for nothing looks again.
    unsafe { call(KICK_CPU, [0, apic_id.into(), 0, 0]) };
}

/// Sends a fixed interrupt to the CPUs whose bits are set, bit 0 for the APIC ID `lowest`. Whether the host did.
///
/// # Safety
/// The vector has a handler there.
pub(super) unsafe fn send_ipi(bits: [u64; 2], lowest: u32, vector: u8) -> bool {
    // SAFETY: the caller's promise.
    unsafe { call(SEND_IPI, [bits[0], bits[1], lowest.into(), vector.into()]) }
}

/// Lets the CPU with this APIC ID run in this one's place.
pub(super) fn sched_yield(apic_id: u32) {
    // SAFETY: nothing happens but that this CPU waits.
    unsafe { call(SCHED_YIELD, [apic_id.into(), 0, 0, 0]) };
}
