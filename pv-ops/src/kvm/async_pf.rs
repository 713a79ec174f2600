//! Pages that the host is still fetching: the guest is told, and does something else meanwhile (msr.rst,
//! MSR_KVM_ASYNC_PF_EN, MSR_KVM_ASYNC_PF_INT, MSR_KVM_ASYNC_PF_ACK).
//! Neighbours: `area` (the words), the kernel's `irq::page_ready` (who waits).
//!
//! "Not here yet" comes as a page fault with a word set beside it, and a token in CR2. "Here" comes as an interrupt with
//! the token in another word.

use super::{area, features::ASYNC_PF, msr};
use crate::{backend::PAGE_READY_VECTOR, percpu::CpuArea};
use core::sync::atomic::{AtomicU32, Ordering};

/// 64 bytes at a multiple of 64.
#[repr(C)]
#[derive(Debug)]
#[doc(alias = "kvm_vcpu_pv_apf_data")]
pub(super) struct PageFaults {
    /// Not 0: the page fault that is being taken is one of these.
    flags: AtomicU32,
    /// Which page is here; 0 when the guest has seen it.
    token: AtomicU32,
    _pad: [AtomicU32; 14],
}

const _: () = assert!(size_of::<PageFaults>() == 64);

/// In the address: the kernel wants it too, not only the user's code.
#[doc(alias = "KVM_ASYNC_PF_SEND_ALWAYS")]
const SEND_ALWAYS: u64 = 1 << 1;
/// In the address: "here" comes as an interrupt.
#[doc(alias = "KVM_ASYNC_PF_DELIVERY_AS_INT")]
const DELIVERY_AS_INT: u64 = 1 << 3;

/// Registers a CPU's words.
pub(super) fn register(words: &'static CpuArea) {
    let physical = area::physical(words, &area::within(words).page_faults);
    let Some(physical) = physical.filter(|_| ASYNC_PF.is_wanted()) else { return };
    // SAFETY: it is offered; the kernel has a handler at this vector.
    unsafe { msr::write(msr::ASYNC_PF_INT, PAGE_READY_VECTOR.into()) };
    // SAFETY: it is offered; the host writes 64 bytes of atomics, which are nothing but its record, and page faults of this
    // kind are recognised.
    unsafe { msr::write(msr::ASYNC_PF_EN, physical | msr::ENABLE | SEND_ALWAYS | DELIVERY_AS_INT) };
    ASYNC_PF.set_used();
}

/// The token of the page fault that this CPU is taking, if the page is the host's to fetch.
pub(super) fn take_fault() -> Option<u32> {
    if !ASYNC_PF.is_used() || this_cpu().flags.swap(0, Ordering::AcqRel) == 0 {
        return None;
    }
    Some(crate::read_cr2() as u32)
}

/// The token of the page that is here now, in the interrupt's handler. The host may tell of the next one from then on.
pub(super) fn take_ready() -> Option<u32> {
    let token = Some(this_cpu().token.swap(0, Ordering::AcqRel)).filter(|&token| token != 0);
    // SAFETY: the register is offered with the feature, which raised the interrupt.
    unsafe { msr::write(msr::ASYNC_PF_ACK, 1) };
    token
}

/// Exceptions and interrupts come once this CPU has its own data.
fn this_cpu() -> &'static PageFaults {
    // SAFETY: see above: GS leads to the data of this CPU.
    &area::within(unsafe { crate::percpu::current() }).page_faults
}
