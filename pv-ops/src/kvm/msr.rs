//! KVM's model-specific registers (Linux `Documentation/virt/kvm/x86/msr.rst`).
//! Neighbours: the files that write them.

/// Takes the address of the wall clock, and writes it (the older number).
#[doc(alias = "MSR_KVM_WALL_CLOCK")]
pub(super) const WALL_CLOCK: u32 = 0x11;
/// Takes the address of a CPU's clock page (the older number).
#[doc(alias = "MSR_KVM_SYSTEM_TIME")]
pub(super) const SYSTEM_TIME: u32 = 0x12;
/// As [`WALL_CLOCK`].
#[doc(alias = "MSR_KVM_WALL_CLOCK_NEW")]
pub(super) const WALL_CLOCK_NEW: u32 = 0x4b56_4d00;
/// As [`SYSTEM_TIME`].
#[doc(alias = "MSR_KVM_SYSTEM_TIME_NEW")]
pub(super) const SYSTEM_TIME_NEW: u32 = 0x4b56_4d01;
/// Takes the address of a CPU's record of page faults.
#[doc(alias = "MSR_KVM_ASYNC_PF_EN")]
pub(super) const ASYNC_PF_EN: u32 = 0x4b56_4d02;
/// Takes the address of a CPU's steal time.
#[doc(alias = "MSR_KVM_STEAL_TIME")]
pub(super) const STEAL_TIME: u32 = 0x4b56_4d03;
/// Takes the address of a CPU's end-of-interrupt word.
#[doc(alias = "MSR_KVM_PV_EOI_EN")]
pub(super) const PV_EOI_EN: u32 = 0x4b56_4d04;

/// 1: the host polls for a while before it takes a CPU that halted for idle; 0: it does not.
#[doc(alias = "MSR_KVM_POLL_CONTROL")]
pub(super) const POLL_CONTROL: u32 = 0x4b56_4d05;
/// Takes the vector of the interrupt that tells of a page.
#[doc(alias = "MSR_KVM_ASYNC_PF_INT")]
pub(super) const ASYNC_PF_INT: u32 = 0x4b56_4d06;
/// Takes 1 when the interrupt's word was read.
#[doc(alias = "MSR_KVM_ASYNC_PF_ACK")]
pub(super) const ASYNC_PF_ACK: u32 = 0x4b56_4d07;

/// Bit 0 of the addresses: the host is to use the memory.
pub(super) const ENABLE: u64 = 1;

/// Writes one of them, before and after there are ops.
///
/// # Safety
/// The feature that has the register is offered, and what the host then does with memory is sound.
pub(super) unsafe fn write(msr: u32, value: u64) {
    // SAFETY: the caller's promises; in KVM's guests, which run in ring 0, the op is this instruction.
    unsafe {
        core::arch::asm!("wrmsr", in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32,
            options(nostack, preserves_flags));
    }
}
