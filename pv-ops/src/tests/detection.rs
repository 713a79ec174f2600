//! Detection against recorded and documented CPUID answers (`cpuid/*.txt`: leaf, EAX, EBX, ECX, EDX).

use crate::{
    Environment,
    detect::{Detection, Hypervisors, OverrideError, detect},
    signature::{HYPER_V, KNOWN, KVM, Signature, XEN},
};
use core::arch::x86_64::CpuidResult;
use proptest::prelude::*;
use std::{cell::Cell, collections::BTreeMap, string::ToString, vec::Vec};

/// What a CPU answers.
struct Dump {
    leaves: BTreeMap<u32, CpuidResult>,
    /// For a leaf that it does not have.
    otherwise: CpuidResult,
}

const ZERO: CpuidResult = CpuidResult { eax: 0, ebx: 0, ecx: 0, edx: 0 };

impl Dump {
    fn parse(text: &str) -> Self {
        let mut dump = Dump { leaves: BTreeMap::new(), otherwise: ZERO };
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if line == "highest-basic-leaf" {
                let highest = dump.leaves[&0].eax;
                dump.otherwise = dump.leaves[&highest];
                continue;
            }
            let words: Vec<u32> =
                line.split_whitespace().map(|word| u32::from_str_radix(word, 16).unwrap()).collect();
            let [leaf, eax, ebx, ecx, edx] = words[..] else { panic!("bad line: {line}") };
            dump.leaves.insert(leaf, CpuidResult { eax, ebx, ecx, edx });
        }
        dump
    }

    fn detect(&self, pv: Option<&str>) -> Detection {
        let cpuid = |leaf, _| self.leaves.get(&leaf).copied().unwrap_or(self.otherwise);
        detect(&Environment { cpuid: &cpuid, ..Environment::NATIVE }, pv)
    }
}

macro_rules! dump {
    ($name:literal) => {
        Dump::parse(include_str!(concat!("cpuid/", $name, ".txt")))
    };
}

fn found(detection: &Detection) -> Vec<(u32, Option<&'static str>)> {
    detection.hypervisors.iter().map(|found| (found.base, found.vendor().map(|vendor| vendor.name))).collect()
}

#[test]
fn one_hypervisor_is_found_by_its_signature() {
    for (dump, name, backend) in [
        (dump!("kvm"), "KVM", "kvm"),
        (dump!("kvm-old"), "KVM", "kvm"),
        (dump!("l4re"), "KVM", "kvm"),
        (dump!("tcg"), "QEMU TCG", "native"),
        (dump!("xen"), "Xen", "xen-pvh"),
        (dump!("hyperv"), "Microsoft Hyper-V", "native"),
        (dump!("vmware"), "VMware", "native"),
    ] {
        let detection = dump.detect(None);
        assert!(detection.hypervisors.present_bit, "{name}");
        assert_eq!(found(&detection), [(0x4000_0000, Some(name))]);
        assert_eq!(detection.backend.name, backend);
        assert_eq!(detection.refused, None);
    }
}

#[test]
fn a_hypervisor_behind_another_s_leaves_is_found() {
    let xen = dump!("xen-viridian").detect(None).hypervisors;
    assert_eq!(xen.find(HYPER_V).unwrap().base, 0x4000_0000);
    assert_eq!(xen.find(XEN).unwrap().base, 0x4000_0100);
    assert_eq!(xen.find(XEN).unwrap().max_leaf, 0x4000_0105);
    assert_eq!(dump!("xen-viridian").detect(None).backend.name, "xen-pvh");
    let kvm = dump!("kvm-hyperv").detect(None).hypervisors;
    assert_eq!(kvm.find(KVM).unwrap().base, 0x4000_0100);
}

#[test]
fn bare_metal_has_no_hypervisor_even_where_absent_leaves_answer_garbage() {
    for dump in [dump!("intel-bare"), dump!("amd-bare"), Dump::parse("")] {
        let detection = dump.detect(None);
        assert!(!detection.hypervisors.present_bit);
        assert_eq!(found(&detection), []);
        assert_eq!(detection.backend.name, "native");
    }
}

#[test]
fn a_known_signature_counts_without_the_presence_bit() {
    let detection = dump!("tcg-hidden").detect(None);
    assert!(!detection.hypervisors.present_bit);
    assert_eq!(found(&detection), [(0x4000_0000, Some("QEMU TCG"))]);
}

#[test]
fn an_unknown_hypervisor_is_reported_by_its_text() {
    let detection = dump!("unknown").detect(None);
    assert_eq!(found(&detection), [(0x4000_0000, Some("Project ACRN")), (0x4000_0100, None)]);
    assert_eq!(detection.hypervisors.iter().last().unwrap().signature.to_string(), "Network VMMD");
    assert_eq!(detection.backend.name, "native");
}

/// The same leaf 0 behind every address: only so many are kept, the rest is counted.
#[test]
fn a_hypervisor_everywhere_is_counted_not_followed() {
    let kvm = |_, _| CpuidResult { eax: 0x4000_0001, ebx: 0x4b4d_564b, ecx: 0x564b_4d56, edx: 0x4d };
    let hypervisors = Hypervisors::scan(&kvm);
    assert_eq!(hypervisors.iter().count() + usize::from(hypervisors.dropped), 257);
}

/// Each CPUID is an exit of microseconds: the leaf of the presence bit, every interface, and two places
/// behind the last.
#[test]
fn the_scan_ends_behind_the_last_interface() {
    for (dump, reads) in [
        (dump!("kvm"), 1 + 1 + 2),
        (dump!("xen-viridian"), 1 + 2 + 2),
        (dump!("kvm-hyperv"), 1 + 2 + 2),
        (dump!("amd-bare"), 1 + 1),
        (dump!("intel-bare"), 1 + 1),
    ] {
        let count = Cell::new(0);
        Hypervisors::scan(&|leaf, _| {
            count.set(count.get() + 1);
            dump.leaves.get(&leaf).copied().unwrap_or(dump.otherwise)
        });
        assert_eq!(count.get(), reads);
    }
}

/// A hypervisor that keeps its name to itself (QEMU's `kvm=off` does) hides no interface behind its first leaf.
#[test]
fn an_interface_behind_an_empty_place_is_found() {
    let mut xen = dump!("xen-viridian");
    xen.leaves.insert(0x4000_0000, ZERO);
    assert_eq!(found(&xen.detect(None)), [(0x4000_0100, Some("Xen"))]);
}

#[test]
fn a_wish_is_followed_where_its_backend_can_serve_and_else_refused_by_name() {
    let kvm = dump!("kvm");
    assert_eq!(kvm.detect(Some("native")).refused, None);
    assert_eq!(kvm.detect(Some("native")).backend.name, "native");
    assert_eq!((kvm.detect(Some("kvm")).backend.name, kvm.detect(Some("kvm")).refused), ("kvm", None));
    for (wish, refusal) in [
        ("xen", OverrideError::NotHere("xen")),
        ("vmware", OverrideError::Unknown),
        ("", OverrideError::Unknown),
    ] {
        let detection = kvm.detect(Some(wish));
        assert_eq!(detection.refused, Some(refusal));
        assert_eq!(detection.backend.name, "kvm", "chosen as if nothing had been asked");
    }
    assert_eq!(dump!("tcg").detect(Some("kvm")).refused, Some(OverrideError::NotHere("kvm")));
    let xen = dump!("xen");
    assert_eq!((xen.detect(Some("xen")).backend.name, xen.detect(Some("xen")).refused), ("xen-pvh", None));
    assert_eq!(xen.detect(Some("native")).backend.name, "native", "against better knowledge");
}

#[test]
fn every_known_signature_is_its_own_vendor_s() {
    for vendor in KNOWN {
        assert!((8..=12).contains(&vendor.signature.len()), "{}", vendor.name);
        let mut bytes = [0; 12];
        bytes[..vendor.signature.len()].copy_from_slice(vendor.signature);
        assert_eq!(Signature(bytes).vendor(), Some(vendor));
        assert!(Signature(bytes).is_printable(), "{}", vendor.name);
    }
}

/// Whatever CPUID says: where Xen's PV loader entered, nothing else can serve.
#[test]
fn a_pv_guest_of_xen_has_no_choice() {
    for cpuid in [dump!("xen"), dump!("kvm"), dump!("amd-bare")] {
        let read = |leaf, _| cpuid.leaves.get(&leaf).copied().unwrap_or(cpuid.otherwise);
        let environment =
            Environment { cpuid: &read, xen_start_info: Some(0xffff_ffff_8040_0000), ..Environment::NATIVE };
        for wish in [None, Some("native"), Some("xen")] {
            assert_eq!(detect(&environment, wish).backend.name, "xen-pv");
        }
        assert_eq!(detect(&environment, Some("native")).refused, Some(OverrideError::NotHere("native")));
    }
}

proptest! {
    /// Any CPU whatever: detection ends, keeps its limits, and gives a backend.
    #[test]
    fn any_reader_gives_a_backend(seed: u64, mask: u32, pv in proptest::option::of(".*")) {
        let read = |leaf: u32, subleaf: u32| {
            let mix = |n: u64| ((u64::from(leaf) << 32 | u64::from(subleaf)) ^ seed ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let word = |n| (mix(n) >> 32) as u32 & mask;
            CpuidResult { eax: word(1), ebx: word(2), ecx: word(3), edx: word(4) }
        };
        let detection = detect(&Environment { cpuid: &read, ..Environment::NATIVE }, pv.as_deref());
        let announced = |signature| detection.hypervisors.find(signature).is_some();
        prop_assert!(detection.backend.name == "native" || announced(XEN) || announced(KVM));
        prop_assert!(detection.hypervisors.iter().all(|found| (0x4000_0000..=0x4001_0000).contains(&found.base)));
    }
}
