//! Events in the place of interrupts: the flag is a byte in the shared page, sleep is a hypercall.
//! Neighbours: `xen::shared_info` (the byte), `start` (maps it at a fixed address), `trap` (how events arrive).
//!
//! The boot CPU's bytes stand at a fixed address within reach of an absolute 32-bit one, so that to disable events and
//! to ask for the flag are patched in as what they are: a store and a load. To enable them takes a look at what came
//! meanwhile, and is a call of a few instructions that keep every register.

use crate::xen::{
    abi::{sched, vcpu},
    hypercall::{self, Number},
    shared_info::VcpuInfo,
};
use core::{arch::naked_asm, mem::offset_of};

/// Where `start` maps the shared page a second time: the page below the one that natively has the local APIC.
pub(super) const SHARED_PAGE: u64 = crate::native::LOCAL_APIC - 4096;
/// The boot CPU's mask and pending bytes, the first of the page.
const MASK: u64 = SHARED_PAGE + offset_of!(VcpuInfo, evtchn_upcall_mask) as u64;
const PENDING: u64 = SHARED_PAGE + offset_of!(VcpuInfo, evtchn_upcall_pending) as u64;
const _: () = assert!(MASK == 0xffff_ffff_ffdf_e001, "the instructions in `OPS` have it in their text");

/// RFLAGS.IF, and its bit number.
const IF: u64 = 1 << IF_BIT;
const IF_BIT: u64 = 9;

/// Lets events in. One that came while they were held back is delivered on the way out of the next hypercall,
/// whichever, so one is made. An event that comes between the store and the look interrupts this CPU, and Xen, which
/// then finds the mask clear, delivers it: none is lost.
#[unsafe(naked)]
pub(super) unsafe extern "sysv64" fn irq_enable() {
    naked_asm!(
        "mov byte ptr [{mask}], 0",
        "cmp byte ptr [{pending}], 0",
        "jne 2f",
        "ret",
        "2:",
        "push rax",
        "push rcx",
        "push rdx",
        "push rsi",
        "push rdi",
        "push r8",
        "push r9",
        "push r10",
        "push r11",
        "xor edi, edi", // XENVER_version: the cheapest
        "xor esi, esi",
        "mov eax, {version}",
        "syscall",
        "pop r11",
        "pop r10",
        "pop r9",
        "pop r8",
        "pop rdi",
        "pop rsi",
        "pop rdx",
        "pop rcx",
        "pop rax",
        "ret",
        mask = const MASK as i64,
        pending = const PENDING as i64,
        version = const Number::XenVersion as u64,
    )
}

/// Lets events in if IF is set in rdi, else holds them back.
#[unsafe(naked)]
pub(super) unsafe extern "sysv64" fn irq_restore() {
    naked_asm!(
        "bt rdi, {bit}",
        "jc {enable}",
        "mov byte ptr [{mask}], 1",
        "ret",
        bit = const IF_BIT,
        enable = sym irq_enable,
        mask = const MASK as i64,
    )
}

/// With events held back nothing can wake this virtual CPU, so it goes down.
pub(super) extern "sysv64" fn halt() {
    if crate::irq_flags() & IF != 0 {
        return safe_halt();
    }
    // SAFETY: takes this CPU off, as was asked for.
    let _ = unsafe { hypercall::call3(Number::VcpuOp, vcpu::DOWN.into(), 0, 0) };
}

/// Xen lets events in and looks for one before it puts the CPU to sleep: none is lost.
pub(super) extern "sysv64" fn safe_halt() {
    // SAFETY: sleeps.
    let _ = unsafe { hypercall::call2(Number::SchedOp, sched::BLOCK.into(), 0) };
}

/// There is one virtual CPU, and no local APIC that could send.
pub(super) unsafe extern "sysv64" fn send_ipi(_apic_id: u32, _icr_low: u32) {}
