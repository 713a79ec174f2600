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

/// What one call says, and whom it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Call {
    /// The APIC ID of bit 0; none if the first CPU's is not known, and then nobody is called.
    lowest: Option<u32>,
    bits: [u64; 2],
    cpus: CpuSet,
}

/// The call for the first of `cpus`, and for all others that it can name too.
fn next_call(cpus: &CpuSet, apic_id: impl Fn(u32) -> Option<u32>) -> Option<Call> {
    let first = cpus.iter().next()?;
    let lowest = apic_id(first).map(|apic_id| apic_id / CLUSTER * CLUSTER);
    let mut call = Call { lowest, bits: [0; 2], cpus: CpuSet::one(first) };
    for cpu in cpus.iter() {
        let offset = apic_id(cpu).zip(lowest).and_then(|(id, lowest)| id.checked_sub(lowest));
        if let Some(offset @ 0..CLUSTER) = offset {
            call.bits[(offset / 64) as usize] |= 1 << (offset % 64);
            call.cpus.insert(cpu);
        }
    }
    Some(call)
}

/// By calls, each to as many CPUs as have APIC IDs in one range of 128; natively to those that the host did not serve.
///
/// # Safety
/// As for [`send_ipi_many`](crate::send_ipi_many).
pub(super) unsafe extern "sysv64" fn send_ipi_many(cpus: *const CpuSet, vector: u8) {
    // SAFETY: the op's argument is a reference.
    let all = unsafe { *cpus };
    let mut left = all;
    while let Some(Call { lowest, bits, cpus }) = next_call(&left, native::irq::apic_id) {
        left = left.without(&cpus);
        // SAFETY: the caller's promise.
        if !lowest.is_some_and(|lowest| unsafe { hypercall::send_ipi(bits, lowest, vector) }) {
            // SAFETY: the caller's promise.
            unsafe { native::irq::send_ipi_many_x2apic(&cpus, vector) };
        }
    }
    if SCHED_YIELD.is_used() {
        let waiting = all.iter().find(|&cpu| mmu::is_put_aside(cpu));
        waiting.and_then(native::irq::apic_id).into_iter().for_each(hypercall::sched_yield);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{collections::BTreeMap, vec::Vec};

    proptest! {
        /// Whatever APIC IDs the CPUs have: each that has one is named by exactly one call, and nobody else is.
        #[test]
        fn every_cpu_is_called_once(ids in prop::collection::btree_map(0..128_u32, 0..1000_u32, 0..40)) {
            let mut left: CpuSet = ids.keys().copied().collect();
            let mut called = Vec::new();
            while let Some(call) = next_call(&left, |cpu| ids.get(&cpu).copied()) {
                let lowest = call.lowest.unwrap();
                let bits = u128::from(call.bits[1]) << 64 | u128::from(call.bits[0]);
                called.extend((0..128).filter(|bit| bits >> bit & 1 != 0).map(|bit| lowest + bit));
                prop_assert!(!call.cpus.is_empty());
                left = left.without(&call.cpus);
            }
            called.sort_unstable();
            let by_id: BTreeMap<u32, u32> = ids.iter().map(|(&cpu, &id)| (id, cpu)).collect();
            prop_assert_eq!(called, by_id.into_keys().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_cpu_whose_id_is_not_known_is_left_out_and_holds_up_nobody() {
        let cpus: CpuSet = [1, 2, 5].into_iter().collect();
        let id = |cpu| (cpu != 1).then_some(cpu + 300);
        let first = next_call(&cpus, id).unwrap();
        assert_eq!((first.lowest, first.cpus), (None, CpuSet::one(1)));
        let second = next_call(&cpus.without(&first.cpus), id).unwrap();
        assert_eq!((second.lowest, second.bits), (Some(256), [1 << (302 - 256) | 1 << (305 - 256), 0]));
        assert_eq!(next_call(&CpuSet::EMPTY, id), None);
    }
}
