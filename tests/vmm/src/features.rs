//! KVM's features by name: the bits of CPUID leaf 0x4000_0001 (Linux `Documentation/virt/kvm/x86/cpuid.rst`).

use anyhow::{Context, Result};

/// Messages with long destinations, which a monitor grants.
pub(crate) const MSI_EXT_DEST_ID: u32 = 1 << 15;

/// Bits of EAX.
const FEATURES: [(&str, u32); 17] = [
    ("clocksource", 0),
    ("nop-io-delay", 1),
    ("mmu-op", 2),
    ("clocksource2", 3),
    ("async-pf", 4),
    ("steal-time", 5),
    ("pv-eoi", 6),
    ("pv-unhalt", 7),
    ("pv-tlb-flush", 9),
    ("async-pf-vmexit", 10),
    ("pv-send-ipi", 11),
    ("poll-control", 12),
    ("pv-sched-yield", 13),
    ("async-pf-int", 14),
    ("msi-ext-dest-id", 15),
    ("hc-map-gpa-range", 16),
    ("clocksource-stable", 24),
];
/// The one bit of EDX: the CPUs are never put aside.
const REALTIME: (&str, u32) = ("realtime", 0);

/// The bits of a list of names.
///
/// # Errors
/// There is no such feature.
pub(crate) fn bits(names: &str) -> Result<u32> {
    if names == "all" {
        return Ok(u32::MAX);
    }
    names.split(',').try_fold(0, |bits, name| Ok(bits | bit(name)?))
}

/// As [`bits`], with the hints apart: (EAX, EDX).
///
/// # Errors
/// There is no such feature.
pub(crate) fn granted(names: &str) -> Result<(u32, u32)> {
    names.split(',').try_fold((0, 0), |(bits, hints), name| {
        if name == REALTIME.0 { Ok((bits, hints | 1 << REALTIME.1)) } else { Ok((bits | bit(name)?, hints)) }
    })
}

fn bit(name: &str) -> Result<u32> {
    let found = FEATURES.iter().find(|(known, _)| *known == name);
    found.map(|(_, bit)| 1 << bit).with_context(|| {
        let known: Vec<&str> = FEATURES.iter().map(|(name, _)| *name).collect();
        format!("KVM has no feature {name:?}; it has {}, {}", known.join(", "), REALTIME.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bits() {
        assert_eq!(bits("steal-time,clocksource-stable").unwrap(), 1 << 5 | 1 << 24);
        assert_eq!(bits("all").unwrap(), u32::MAX);
        assert_eq!(granted("realtime,msi-ext-dest-id").unwrap(), (1 << 15, 1));
        assert!(bits("steal").is_err() && granted("").is_err() && bits("realtime").is_err());
    }
}
