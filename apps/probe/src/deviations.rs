//! What is not as the specifications say, or does not fit together.
#![forbid(unsafe_code)]

use alloc::{format, vec::Vec};

use kernel::{
    cpu::{self, Feature},
    hypervisor, pv_ops,
    pv_ops::signature::{KVM, XEN},
    time,
};

use crate::document::{Value, object};

/// Each with the specification that it is measured by.
pub(crate) fn find() -> Value {
    let mut found = Vec::new();
    let mut tell = |what: alloc::string::String, specification: &'static str| {
        found.push(object! { what: what, specification: specification });
    };
    let hypervisors = &hypervisor::detection().hypervisors;
    if hypervisors.iter().next().is_some() && !hypervisors.present_bit {
        tell("a hypervisor announces itself, but the presence bit is clear".into(), "AMD APM vol. 3 §E.3.2");
    }
    if hypervisors.iter().next().is_none() && hypervisors.present_bit {
        tell("the presence bit is set, but no hypervisor announces itself".into(), "AMD APM vol. 3 §E.3.2");
    }
    for hypervisor in hypervisors.iter() {
        let (base, last) = (hypervisor.base, hypervisor.max_leaf);
        if !(base..base + 0x100).contains(&last) {
            tell(format!("leaf {base:#x} tells {last:#x} as the highest of its block"), "Linux cpuid.rst");
        }
    }
    if let Some(kvm) = hypervisors.find(KVM) {
        let features = pv_ops::cpuid(kvm.base + 1, 0).eax;
        let bit = |number: u32| features >> number & 1 != 0;
        if bit(24) && !bit(3) && !bit(0) {
            tell("CLOCKSOURCE_STABLE without a clock".into(), "Linux cpuid.rst");
        }
        if bit(9) && !bit(5) {
            tell("PV_TLB_FLUSH without STEAL_TIME, which tells who runs".into(), "Linux cpuid.rst");
        }
        if bit(14) && !bit(4) {
            tell("ASYNC_PF_INT without ASYNC_PF".into(), "Linux msr.rst");
        }
        if bit(11) && !cpu::features().has(Feature::X2Apic) {
            tell("PV_SEND_IPI without x2APIC, which is its fall-back".into(), "Linux hypercalls.rst");
        }
    }
    if let Some(xen) = hypervisors.find(XEN)
        && xen.max_leaf < xen.base + 2
    {
        tell("Xen without the leaf of its hypercall page".into(), "arch-x86/cpuid.h");
    }
    for feature in hypervisor::features() {
        if feature.offered && !feature.refused && !feature.used {
            tell(format!("{} is offered, but could not be used", feature.name), "docs/kvm.md");
        }
    }
    if hypervisor::detection().backend.name == "kvm-pvm" {
        tell("the host is kvm-pvm, which no CPUID leaf tells".into(), "docs/kvm.md");
    }
    if time::wall().is_none() {
        tell("nothing tells the date".into(), "-");
    }
    Value::List(found)
}
