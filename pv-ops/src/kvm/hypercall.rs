//! The calls that a guest makes to KVM (Linux `Documentation/virt/kvm/x86/hypercalls.rst`).
//! Neighbours: `mod` (has the instruction, which is an op), `irq`, `lock` (who call).

/// Wakes a CPU that halted, whether or not it takes interrupts. Arguments: 0, APIC ID.
#[doc(alias = "KVM_HC_KICK_CPU")]
const KICK_CPU: u64 = 5;
/// Sends an interrupt to many. Arguments: two words of bits, the APIC ID of the lowest, interrupt command register.
#[doc(alias = "KVM_HC_SEND_IPI")]
const SEND_IPI: u64 = 10;
/// Gives the rest of this CPU's time to another. Argument: its APIC ID.
#[doc(alias = "KVM_HC_SCHED_YIELD")]
const SCHED_YIELD: u64 = 11;

/// Wakes the CPU with this APIC ID from its halt.
pub(super) fn kick_cpu(apic_id: u32) {
    // SAFETY: a CPU that wakes for nothing looks again.
    unsafe { crate::hypercall(KICK_CPU, 0, apic_id.into(), 0, 0) };
}

/// Sends a fixed interrupt to the CPUs whose bits are set, bit 0 for the APIC ID `lowest`. Whether the host did.
///
/// # Safety
/// The vector has a handler there.
pub(super) unsafe fn send_ipi(bits: [u64; 2], lowest: u32, vector: u8) -> bool {
    // SAFETY: the caller's promise.
    let answer = unsafe { crate::hypercall(SEND_IPI, bits[0], bits[1], lowest.into(), vector.into()) };
    answer as i64 >= 0
}

/// Lets the CPU with this APIC ID run in this one's place.
pub(super) fn sched_yield(apic_id: u32) {
    // SAFETY: nothing happens but that this CPU waits.
    unsafe { crate::hypercall(SCHED_YIELD, apic_id.into(), 0, 0, 0) };
}
