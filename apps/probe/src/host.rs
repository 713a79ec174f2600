//! How the guest was booted, which hypervisors announce themselves, and what it uses of them.
#![forbid(unsafe_code)]

use alloc::{format, string::ToString, vec::Vec};

use kernel::{
    app, hypervisor, pv_ops,
    pv_ops::{signature::Vendor, sites::Installed},
    stages,
};

use crate::document::{Value, object};

/// Leaves of one hypervisor that are told at most: its own block has 256, and none uses as many.
const MAX_LEAVES: u32 = 32;

pub(crate) fn boot() -> Value {
    let info = app::boot_info();
    let problems: Vec<Value> = info.problems.iter().map(|problem| problem.to_string().into()).collect();
    let stages = stages::all().map(|(name, end)| object! { name: name, end_us: end.as_micros() as u64 });
    object! {
        protocol: info.protocol.to_string(),
        loader: info.loader.as_str(),
        command_line: info.cmdline.as_str(),
        memory_kib: info.memory.usable_bytes() >> 10,
        regions: info.memory.iter().count() as u64,
        rsdp: info.rsdp,
        problems: Value::List(problems),
        entry_to_probe_us: pv_ops::monotonic_ns() / 1000,
        stages: Value::List(stages.collect()),
    }
}

/// Every announcement in CPUID, in order, with its leaves.
pub(crate) fn hypervisors() -> Value {
    let found = hypervisor::detection().hypervisors.iter().map(|found| {
        let last = found.max_leaf.max(found.base + 1).min(found.base + MAX_LEAVES);
        let leaves = (found.base..=last).map(|leaf| {
            let answer = pv_ops::cpuid(leaf, 0);
            let registers = [answer.eax, answer.ebx, answer.ecx, answer.edx];
            object! {
                leaf: format!("{leaf:#010x}"),
                registers: Value::List(registers.map(|word| format!("{word:08x}").into()).into()),
            }
        });
        object! {
            signature: found.signature.to_string(),
            name: found.vendor().map(|vendor| vendor.name),
            documented_in: found.vendor().and_then(Vendor::source),
            base: format!("{:#010x}", found.base),
            max_leaf: format!("{:#010x}", found.max_leaf),
            leaves: Value::List(leaves.collect()),
        }
    });
    Value::List(found.collect())
}

/// The backend that serves, the features that it knows of, and what stands at its call sites.
pub(crate) fn backend() -> Value {
    let features = hypervisor::features().into_iter().map(|feature| {
        object! {
            name: feature.name,
            offered: feature.offered,
            refused: feature.refused,
            used: feature.used,
        }
    });
    let (mut inline, mut direct) = (0u64, 0u64);
    for op in pv_ops::ops() {
        match op.form {
            Installed::Inline(_) => inline += op.sites as u64,
            _ => direct += op.sites as u64,
        }
    }
    object! {
        name: hypervisor::detection().backend.name,
        present_bit: hypervisor::detection().hypervisors.present_bit,
        sites_inline: inline,
        sites_called: direct,
        features: Value::List(features.collect()),
    }
}
