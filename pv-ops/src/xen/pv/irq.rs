//! Events in the place of interrupts: the flag is a byte in the shared page, sleep is a hypercall.
//! Neighbours: `xen::shared_info` (the byte), `start` (maps it at a fixed address), `trap` (how events arrive).
//!
//! Each CPU's bytes are in its own data, at a fixed distance from GS, so that to disable events and to ask for the flag
//! are patched in as what they are: a store and a load. To enable them takes a look at what came meanwhile, and is a
//! call of a few instructions that keep every register. A thread may be moved to another CPU between the two: whoever
//! interrupts it there or here has looked, and a look too many does no harm.

use crate::{
    percpu::HOST_WORDS,
    xen::{
        self,
        abi::{sched, vcpu},
        hypercall::{self, Number},
        shared_info::VcpuInfo,
    },
};
use core::{arch::naked_asm, mem::offset_of};

/// Where `start` maps the shared page a second time: the page below the one that natively has the local APIC. GS of the
/// boot CPU leads there until the kernel gives it data of its own.
pub(super) const SHARED_PAGE: u64 = crate::native::LOCAL_APIC - 4096;
/// The mask and pending bytes, from GS.
pub(super) const MASK: usize = HOST_WORDS + offset_of!(VcpuInfo, evtchn_upcall_mask);
pub(super) const PENDING: usize = HOST_WORDS + offset_of!(VcpuInfo, evtchn_upcall_pending);
const _: () = {
    assert!(
        MASK == 65 && HOST_WORDS + offset_of!(VcpuInfo, cr2) == 80,
        "the instructions in `OPS` have it in their text"
    );
};

/// RFLAGS.IF, and its bit number.
pub(super) const IF: u64 = 1 << IF_BIT;
const IF_BIT: u64 = 9;

/// Lets events in. One that came while they were held back is delivered on the way out of the next hypercall,
/// whichever, so one is made. An event that comes between the store and the look interrupts this CPU, and Xen, which
/// then finds the mask clear, delivers it: none is lost.
#[unsafe(naked)]
pub(super) unsafe extern "sysv64" fn irq_enable() {
    naked_asm!(
        "mov byte ptr gs:[{mask}], 0",
        "cmp byte ptr gs:[{pending}], 0",
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
        mask = const MASK,
        pending = const PENDING,
        version = const Number::XenVersion as u64,
    )
}

/// Lets events in if IF is set in rdi, else holds them back.
#[unsafe(naked)]
pub(super) unsafe extern "sysv64" fn irq_restore() {
    naked_asm!(
        "bt rdi, {bit}",
        "jc {enable}",
        "mov byte ptr gs:[{mask}], 1",
        "ret",
        bit = const IF_BIT,
        enable = sym irq_enable,
        mask = const MASK,
    )
}

/// With events held back nothing can wake this virtual CPU, so it goes down.
pub(super) extern "sysv64" fn halt() {
    if crate::irq_flags() & IF != 0 {
        return safe_halt();
    }
    // SAFETY: takes this CPU off, as was asked for.
    let _ = unsafe { hypercall::call3(Number::VcpuOp, vcpu::DOWN.into(), xen::vcpu::current(), 0) };
}

/// Xen lets events in and looks for one before it puts the CPU to sleep: none is lost.
pub(super) extern "sysv64" fn safe_halt() {
    // SAFETY: sleeps.
    let _ = unsafe { hypercall::call2(Number::SchedOp, sched::BLOCK.into(), 0) };
}

/// There is no local APIC that could send.
pub(super) unsafe extern "sysv64" fn send_ipi(_apic_id: u32, _icr_low: u32) {}
