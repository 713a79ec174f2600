//! What CPUID tells the guest: all that KVM can do, less what was asked to be left out (Linux
//! `Documentation/virt/kvm/x86/cpuid.rst`; SDM vol. 2A, CPUID).

use anyhow::{Context, Result};
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::{Cap, Kvm};

use crate::options::Options;

const FEATURES: u32 = 1;
const TOPOLOGY: [u32; 2] = [0xb, 0x1f];
const AMD_TOPOLOGY: u32 = 0x8000_001e;
/// KVM's signature and features, and those of hypervisors that it can play besides.
const HYPERVISORS: std::ops::RangeInclusive<u32> = 0x4000_0000..=0x4000_ffff;
const KVM_FEATURES: u32 = 0x4000_0001;
/// Bits of leaf 1, ECX.
const TSC_DEADLINE: u32 = 1 << 24;
const HYPERVISOR: u32 = 1 << 31;

/// The leaves of one CPU.
///
/// # Errors
/// KVM does not tell.
pub(crate) fn leaves(kvm: &Kvm, options: &Options, apic_id: u32) -> Result<CpuId> {
    let mut cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).context("KVM tells no CPUID leaves")?;
    if options.hide_kvm {
        let kept: Vec<_> =
            cpuid.as_slice().iter().filter(|leaf| !HYPERVISORS.contains(&leaf.function)).copied().collect();
        cpuid = CpuId::from_entries(&kept).context("too many CPUID leaves")?;
    }
    let deadline = kvm.check_extension(Cap::TscDeadlineTimer);
    cpuid.as_mut_slice().iter_mut().for_each(|leaf| adapt(leaf, options, apic_id, deadline));
    Ok(cpuid)
}

fn adapt(leaf: &mut kvm_cpuid_entry2, options: &Options, apic_id: u32, deadline: bool) {
    match leaf.function {
        FEATURES => {
            leaf.ebx = leaf.ebx & 0x00ff_ffff | apic_id << 24;
            leaf.ecx |= if deadline { TSC_DEADLINE } else { 0 };
            leaf.ecx = if options.hide_kvm { leaf.ecx & !HYPERVISOR } else { leaf.ecx | HYPERVISOR };
        }
        function if TOPOLOGY.contains(&function) => leaf.edx = apic_id,
        AMD_TOPOLOGY => leaf.eax = apic_id,
        KVM_FEATURES => {
            leaf.eax = leaf.eax & !options.without | options.with;
            leaf.edx = options.hints;
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapted(function: u32, line: &str) -> kvm_cpuid_entry2 {
        let words: Vec<String> = format!("{line} k").split_whitespace().map(str::to_owned).collect();
        let mut leaf = kvm_cpuid_entry2 { function, eax: u32::MAX, ..Default::default() };
        adapt(&mut leaf, &Options::parse(&words).unwrap(), 300, true);
        leaf
    }

    #[test]
    fn features_go_and_come() {
        assert_eq!(adapted(KVM_FEATURES, "--without pv-eoi").eax, !(1 << 6));
        let leaf = adapted(KVM_FEATURES, "--without all --with msi-ext-dest-id,realtime");
        assert_eq!((leaf.eax, leaf.edx), (1 << 15, 1));
    }

    #[test]
    fn every_place_has_the_apic_id() {
        assert_eq!(adapted(1, "").ebx, 300 << 24);
        assert_eq!(adapted(0xb, "").edx, 300);
        assert_eq!(adapted(AMD_TOPOLOGY, "").eax, 300);
    }

    #[test]
    fn a_hidden_hypervisor_is_no_hypervisor() {
        assert_eq!(adapted(1, "--hide-kvm").ecx, TSC_DEADLINE);
        assert_eq!(adapted(1, "").ecx, TSC_DEADLINE | HYPERVISOR);
    }
}
