//! What KVM offers, what the command line leaves of it, and what this guest uses.
//! Leaf base + 1, EAX (Linux cpuid.rst). Neighbours: `mod` (chooses ops by it), every file here (uses one).

use crate::backend::{self, Environment};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// A feature, by its bit or, where two bits stand for the same thing in two versions, by either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Bits of EAX; any of them offers it.
    bits: u32,
    /// Its name on the command line: QEMU's, without `kvm-`.
    name: &'static str,
}

const fn feature(bits: u32, name: &'static str) -> Feature {
    Feature { bits, name }
}

/// The clock at the older MSRs 0x11 and 0x12.
pub(super) const CLOCKSOURCE: u32 = 1 << 0;
/// The clock at MSRs of KVM's own range.
pub(super) const CLOCKSOURCE2: u32 = 1 << 3;

/// A clock page for each CPU, and the wall clock (msr.rst, MSR_KVM_SYSTEM_TIME_NEW, MSR_KVM_WALL_CLOCK_NEW).
#[doc(alias("KVM_FEATURE_CLOCKSOURCE", "KVM_FEATURE_CLOCKSOURCE2"))]
pub const CLOCK: Feature = feature(CLOCKSOURCE | CLOCKSOURCE2, "clock");
/// The flag in the clock page, that the pages of all CPUs agree, can be believed.
#[doc(alias = "KVM_FEATURE_CLOCKSOURCE_STABLE_BIT")]
pub const CLOCK_STABLE: Feature = feature(1 << 24, "clock-stable");
/// Time that was stolen from a CPU, and whether it runs (msr.rst, MSR_KVM_STEAL_TIME).
#[doc(alias = "KVM_FEATURE_STEAL_TIME")]
pub const STEAL_TIME: Feature = feature(1 << 5, "steal-time");
/// The end of an interrupt without an exit (msr.rst, MSR_KVM_PV_EOI_EN).
#[doc(alias = "KVM_FEATURE_PV_EOI")]
pub const PV_EOI: Feature = feature(1 << 6, "pv-eoi");

/// A lock's waiter halts until it is kicked (hypercalls.rst, KVM_HC_KICK_CPU).
#[doc(alias = "KVM_FEATURE_PV_UNHALT")]
pub const PV_UNHALT: Feature = feature(1 << 7, "pv-unhalt");
/// CPUs that do not run are flushed by the host; goes with [`STEAL_TIME`].
#[doc(alias = "KVM_FEATURE_PV_TLB_FLUSH")]
pub const PV_TLB_FLUSH: Feature = feature(1 << 9, "pv-tlb-flush");
/// Interrupts to many CPUs by one call (hypercalls.rst, KVM_HC_SEND_IPI).
#[doc(alias = "KVM_FEATURE_PV_SEND_IPI")]
pub const PV_IPI: Feature = feature(1 << 11, "pv-ipi");
/// The host polls before it takes a CPU that halted for idle; `kvm=-host-poll` has it not do so (msr.rst,
/// MSR_KVM_POLL_CONTROL).
#[doc(alias = "KVM_FEATURE_POLL_CONTROL")]
pub const HOST_POLL: Feature = feature(1 << 12, "host-poll");
/// A CPU that an interrupt went to, and that does not run, gets the sender's time (hypercalls.rst, KVM_HC_SCHED_YIELD).
#[doc(alias = "KVM_FEATURE_PV_SCHED_YIELD")]
pub const SCHED_YIELD: Feature = feature(1 << 13, "sched-yield");
/// Pages that the host fetches while the guest does something else, told by an interrupt (msr.rst, MSR_KVM_ASYNC_PF_INT).
#[doc(alias = "KVM_FEATURE_ASYNC_PF_INT")]
pub const ASYNC_PF: Feature = feature(1 << 14, "async-pf");
/// Devices' messages name CPUs by 15 bits of APIC ID instead of 8 (cpuid.rst, KVM_FEATURE_MSI_EXT_DEST_ID).
#[doc(alias = "KVM_FEATURE_MSI_EXT_DEST_ID")]
pub const MSI_EXT_DEST_ID: Feature = feature(1 << 15, "msi-ext-dest-id");

/// Bits that a guest of kvm-pvm cannot use: what takes a hypercall, which does not reach that host, and what was never
/// seen to work there (docs/kvm.md).
pub(crate) const BEYOND_PVM: u32 =
    PV_EOI.bits | PV_UNHALT.bits | PV_TLB_FLUSH.bits | PV_IPI.bits | SCHED_YIELD.bits | ASYNC_PF.bits;
/// What `kvm=-pvm` takes away: not a feature bit, but the registration with such a host.
const PVM: &str = "-pvm";

/// Whether the command line does not want the guest to register.
pub(crate) fn refuses_pvm(environment: &Environment<'_>) -> bool {
    let mut refuses = false;
    (environment.option)("kvm", &mut |wish| refuses = wish.split(',').any(|word| word == PVM));
    refuses
}

/// All that this backend knows of, in the order of their bits.
pub const ALL: [Feature; 11] = [
    CLOCK,
    STEAL_TIME,
    PV_EOI,
    PV_UNHALT,
    PV_TLB_FLUSH,
    PV_IPI,
    HOST_POLL,
    SCHED_YIELD,
    ASYNC_PF,
    MSI_EXT_DEST_ID,
    CLOCK_STABLE,
];

/// What is offered and wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// EAX of the feature leaf.
    pub offered: u32,
    /// Bits that the command line does not want.
    pub refused: u32,
    /// A word of the command line names no feature.
    pub misspelt: bool,
}

impl Choice {
    /// From the feature leaf and the value of `kvm=`: names with `-` before them, between commas.
    pub fn new(offered: u32, wish: &str) -> Self {
        let mut choice = Self { offered, ..Self::default() };
        for word in wish.split(',').filter(|word| !word.is_empty() && *word != PVM) {
            let named = word.strip_prefix('-').and_then(|name| ALL.iter().find(|known| known.name == name));
            match named {
                Some(feature) => choice.refused |= feature.bits,
                None => choice.misspelt = true,
            }
        }
        choice
    }

    /// Bits that are there to be used.
    #[cfg(test)]
    fn wanted(self) -> u32 {
        self.offered & !self.refused
    }
}

static OFFERED: AtomicU32 = AtomicU32::new(0);
static REFUSED: AtomicU32 = AtomicU32::new(0);
static USED: AtomicU32 = AtomicU32::new(0);

static MISSPELT: AtomicBool = AtomicBool::new(false);

/// This is what there is; nothing is used yet.
pub(super) fn set(choice: Choice) {
    OFFERED.store(choice.offered, Ordering::Relaxed);
    REFUSED.store(choice.refused, Ordering::Relaxed);
    USED.store(0, Ordering::Relaxed);
    MISSPELT.store(choice.misspelt, Ordering::Relaxed);
}

/// What is wrong with `kvm=`.
pub(super) fn complaint() -> Option<&'static str> {
    MISSPELT.load(Ordering::Relaxed).then_some("kvm=: a word is not the name of a feature with `-` before it")
}

impl Feature {
    /// Whether it can be used: offered and not refused.
    pub(super) fn is_wanted(self) -> bool {
        self.is_offered() && REFUSED.load(Ordering::Relaxed) & self.bits == 0
    }

    /// Whether the host has it.
    pub(super) fn is_offered(self) -> bool {
        OFFERED.load(Ordering::Relaxed) & self.bits != 0
    }

    /// It is in use from now on.
    pub(super) fn set_used(self) {
        USED.fetch_or(self.bits, Ordering::Release);
    }

    /// Whether it is in use.
    pub fn is_used(self) -> bool {
        USED.load(Ordering::Acquire) & self.bits != 0
    }
}

/// Tells each.
pub(super) fn tell(each: &mut dyn FnMut(backend::Feature)) {
    let (offered, refused) = (OFFERED.load(Ordering::Relaxed), REFUSED.load(Ordering::Relaxed));
    for feature in ALL {
        each(backend::Feature {
            name: feature.name,
            offered: offered & feature.bits != 0,
            refused: refused & feature.bits != 0,
            used: feature.is_used(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_takes_features_away_one_by_one() {
        let all = Choice::new(0x0100_7efb, "");
        assert_eq!((all.wanted(), all.misspelt), (0x0100_7efb, false));
        let some = Choice::new(0x0100_7efb, "-pv-eoi,-clock");
        assert_eq!((some.wanted(), some.misspelt), (0x0100_7eb2, false));
        let none = Choice::new(0, "-steal-time");
        assert_eq!((none.wanted(), none.refused), (0, STEAL_TIME.bits));
    }

    #[test]
    fn a_word_that_names_no_feature_is_told_and_changes_nothing() {
        for wish in ["-pv-eio", "pv-eoi", "-", "-pv-eoi,nonsense"] {
            assert!(Choice::new(!0, wish).misspelt, "{wish}");
        }
        assert_eq!(Choice::new(!0, "-pv-eio").refused, 0);
        assert_eq!(Choice::new(!0, "-pv-eoi,nonsense").refused, PV_EOI.bits);
    }

    #[test]
    fn every_feature_has_a_name_and_bits_of_its_own() {
        for (index, feature) in ALL.iter().enumerate() {
            for other in &ALL[index + 1..] {
                assert!(feature.name != other.name && feature.bits & other.bits == 0);
            }
        }
    }
}
