//! Which CPUs there are: from the hypervisor, ACPI's MADT or the tables before ACPI, with the boot CPU first.
//! Neighbours: `acpi::madt`, `mp_table` (the sources), `smp` (who brings them up).
#![forbid(unsafe_code)]

use super::{mp_table, physical::PhysicalMemory};
use crate::{
    acpi::{self, madt::Processor},
    hypervisor,
};
use alloc::vec::Vec;
use pv_ops::{
    MAX_CPUS,
    native::irq::{ApicMode, apic_mode},
};

/// The CPUs that can be used, by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    apic_ids: Vec<u32>,
}

impl Topology {
    /// How many there are.
    pub fn count(&self) -> u32 {
        self.apic_ids.len() as u32
    }

    /// The ID of a CPU's local APIC; where the hypervisor counts CPUs, its number of the CPU.
    pub fn apic_id(&self, cpu: u32) -> Option<u32> {
        self.apic_ids.get(cpu as usize).copied()
    }
}

/// Finds out which CPUs there are; `limit` is what the command line says of their number.
pub(super) fn find(limit: Option<&str>) -> Topology {
    let boot = super::current().apic_id();
    let most = hypervisor::services().max_cpus.min(MAX_CPUS as u32);
    let limit = match limit.map(str::parse::<u32>) {
        None => most,
        Some(Ok(limit)) if limit > 0 => limit.min(most),
        Some(_) => {
            log::warn!("cpus= wants a number above 0: ignored");
            most
        }
    };
    if let Some(count) = (hypervisor::services().cpu_count)() {
        let apic_ids = core::iter::once(boot).chain(1..count).take(limit as usize).collect();
        return Topology { apic_ids };
    }
    let told;
    let processors = match &acpi::tables().madt {
        Some(madt) => madt.processors.as_slice(),
        None => {
            told = mp_table::processors(&PhysicalMemory::default());
            &told
        }
    };
    let reachable = if apic_mode() == ApicMode::X2Apic { u32::MAX } else { 0xff };
    number(boot, processors, reachable, limit)
}

/// Gives the boot CPU number 0 and the others the next, in the firmware's order. Only IDs below `reachable` can be sent
/// to, which a broadcast is not.
fn number(boot: u32, processors: &[Processor], reachable: u32, limit: u32) -> Topology {
    let others = processors.iter().filter(|other| other.enabled && other.apic_id != boot);
    let (near, far): (Vec<&Processor>, Vec<&Processor>) = others.partition(|other| other.apic_id < reachable);
    if !far.is_empty() {
        log::warn!("{} CPUs have APIC IDs that are out of reach without x2APIC: left alone", far.len());
    }
    let ids = core::iter::once(boot).chain(near.iter().map(|other| other.apic_id));
    let apic_ids: Vec<u32> = ids.take(limit as usize).collect();
    let left = 1 + near.len() - apic_ids.len();
    if left > 0 {
        log::info!("{left} further CPU{} left alone", if left == 1 { " is" } else { "s are" });
    }
    Topology { apic_ids }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processors(ids: &[u32]) -> Vec<Processor> {
        ids.iter().map(|&apic_id| Processor { apic_id, enabled: true }).collect()
    }

    #[test]
    fn the_boot_cpu_is_number_0_wherever_the_firmware_lists_it() {
        let topology = number(4, &processors(&[0, 2, 4, 6]), 255, 128);
        assert_eq!(topology.apic_ids, [4, 0, 2, 6]);
        assert_eq!((topology.count(), topology.apic_id(3), topology.apic_id(4)), (4, Some(6), None));
    }

    #[test]
    fn a_machine_that_tells_nothing_has_one_cpu() {
        assert_eq!(number(9, &[], 255, 128).apic_ids, [9]);
    }

    #[test]
    fn no_more_are_used_than_are_allowed_enabled_and_in_reach() {
        assert_eq!(number(0, &processors(&[0, 1, 2, 3]), 255, 2).apic_ids, [0, 1]);
        assert_eq!(number(0, &processors(&[0, 255, 256, 7]), 255, 128).apic_ids, [0, 7]);
        let mut some = processors(&[0, 1, 2]);
        some[1].enabled = false;
        assert_eq!(number(0, &some, u32::MAX, 128).apic_ids, [0, 2]);
    }
}
