//! The end of an interrupt without an exit (msr.rst, MSR_KVM_PV_EOI_EN), and interrupts to many CPUs by one call
//! (hypercalls.rst, KVM_HC_SEND_IPI, KVM_HC_SCHED_YIELD).
//! Neighbours: `mod` (has the instructions), `area` (the word), `native` (the registers that are written else).
//!
//! The host sets a bit in a word of this CPU when the interrupt that it injects needs no end of its own; the guest
//! clears the bit, and where it was set leaves the local APIC's register alone. The host looks and changes while the
//! CPU is stopped, so that no locked instruction is needed.

use super::{
    area,
    features::{PV_EOI, SCHED_YIELD},
    hypercall, mmu, msr,
};
use crate::{CpuSet, native, percpu::CpuArea};
use core::sync::atomic::Ordering;

/// Registers a CPU's word.
pub(super) fn register(words: &'static CpuArea) {
    let physical = area::physical(words, &area::within(words).eoi);
    let Some(physical) = physical.filter(|_| PV_EOI.is_wanted()) else { return };
    // SAFETY: it is offered; the host changes 4 bytes, which are an atomic for nothing else.
    unsafe { msr::write(msr::PV_EOI_EN, physical | msr::ENABLE) };
    PV_EOI.set_used();
}

/// Whether the interrupt in service on `cpu`, which is to be the CPU that asks, needs no end: the next
/// [`eoi`](crate::eoi) will be a change of memory and nothing else.
pub fn needs_no_end(cpu: u32) -> bool {
    area::of(cpu).is_some_and(|area| area.eoi.load(Ordering::Relaxed) & 1 != 0)
}

/// CPUs that one call can name.
const CLUSTER: u32 = 128;

/// By calls, each to as many CPUs as have APIC IDs in one range of 128; natively to those that the host did not serve.
///
/// # Safety
/// As for [`send_ipi_many`](crate::send_ipi_many).
pub(super) unsafe extern "sysv64" fn send_ipi_many(cpus: *const CpuSet, vector: u8) {
    // SAFETY: the op's argument is a reference.
    let all = unsafe { *cpus };
    let mut left = all;
    while let Some(first) = left.iter().next() {
        let lowest = native::irq::apic_id(first).map(|apic_id| apic_id / CLUSTER * CLUSTER);
        let mut bits = [0; 2];
        let mut named = CpuSet::EMPTY;
        for cpu in left.iter() {
            let offset =
                native::irq::apic_id(cpu).zip(lowest).and_then(|(id, lowest)| id.checked_sub(lowest));
            match offset {
                Some(offset @ 0..CLUSTER) => bits[(offset / 64) as usize] |= 1 << (offset % 64),
                // One that cannot be reached is done with too.
                None if cpu == first => {}
                _ => continue,
            }
            named.insert(cpu);
        }
        left = left.without(&named);
        // SAFETY: the caller's promise.
        if !lowest.is_some_and(|lowest| unsafe { hypercall::send_ipi(bits, lowest, vector) }) {
            // SAFETY: the caller's promise.
            unsafe { native::irq::send_ipi_many_x2apic(&named, vector) };
        }
    }
    if SCHED_YIELD.is_used() {
        let waiting = all.iter().find(|&cpu| mmu::is_put_aside(cpu));
        waiting.and_then(native::irq::apic_id).into_iter().for_each(hypercall::sched_yield);
    }
}
