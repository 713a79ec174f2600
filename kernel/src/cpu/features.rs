//! What this CPU can do (Intel SDM vol. 2A, CPUID), and the switching on of what protects the kernel.
//! Neighbours: `irq::apic` and `time` (who ask), `pv_ops` (cpuid and the control registers).

use crate::sync::OnceCell;
use core::{arch::x86_64::CpuidResult, fmt};

/// Declares [`Feature`]: the name, as the manual writes it, and where its bit is.
macro_rules! features {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $leaf:literal, $register:ident, $bit:literal;)*) => {
        /// A feature that the kernel uses or shows.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Feature { $($(#[$doc])* $name),* }

        impl Feature {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The manual's name.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }

            /// Whether the leaves (subleaf 0 of each) offer it.
            fn is_offered(self, leaf: impl Fn(u32) -> CpuidResult) -> bool {
                match self { $(Self::$name => leaf($leaf).$register >> $bit & 1 != 0),* }
            }
        }
    };
}

features! {
    /// Pages of 4 MiB and, in long mode, of 2 MiB.
    PageSizeExtension = "PSE", 1, edx, 3;
    /// Time stamp counter.
    TimeStampCounter = "TSC", 1, edx, 4;
    /// RDMSR and WRMSR.
    Msr = "MSR", 1, edx, 5;
    /// Machine check exception.
    MachineCheck = "MCE", 1, edx, 7;
    /// Local APIC.
    Apic = "APIC", 1, edx, 9;
    /// Page attribute table.
    PageAttributeTable = "PAT", 1, edx, 16;
    /// Global pages.
    GlobalPages = "PGE", 1, edx, 13;
    /// Process-context identifiers.
    Pcid = "PCID", 1, ecx, 17;
    /// x2APIC mode of the local APIC.
    X2Apic = "X2APIC", 1, ecx, 21;
    /// The local APIC's timer takes a TSC value as deadline.
    TscDeadline = "TSC-DEADLINE", 1, ecx, 24;
    /// XSAVE and its relatives.
    Xsave = "XSAVE", 1, ecx, 26;
    /// RDRAND.
    RdRand = "RDRAND", 1, ecx, 30;
    /// A hypervisor is there and says so.
    Hypervisor = "HYPERVISOR", 1, ecx, 31;
    /// RDFSBASE and its relatives.
    FsGsBase = "FSGSBASE", 7, ebx, 0;
    /// No execution of user pages by the kernel.
    Smep = "SMEP", 7, ebx, 7;
    /// RDSEED.
    RdSeed = "RDSEED", 7, ebx, 18;
    /// No access to user pages by the kernel.
    Smap = "SMAP", 7, ebx, 20;
    /// No SGDT and the like for user code.
    Umip = "UMIP", 7, ecx, 2;
    /// Pages that cannot be executed.
    NoExecute = "NX", 0x8000_0001, edx, 20;
    /// Pages of 1 GiB.
    HugePages = "PAGE1GB", 0x8000_0001, edx, 26;
    /// RDTSCP.
    RdTscp = "RDTSCP", 0x8000_0001, edx, 27;
    /// The time stamp counter runs at one rate in every power state.
    InvariantTsc = "INVARIANT-TSC", 0x8000_0007, edx, 8;
}

const NOTHING: CpuidResult = CpuidResult { eax: 0, ebx: 0, ecx: 0, edx: 0 };

/// A set of [`Feature`]s. Its text is their names with blanks between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(u32);

impl Features {
    /// Asks `cpuid`, which gets a leaf and a subleaf. Leaves beyond the highest are not asked: their answer is
    /// that of another leaf.
    pub fn read(cpuid: impl Fn(u32, u32) -> CpuidResult) -> Self {
        // Each leaf once: under a hypervisor a CPUID costs a microsecond or more.
        let highest = [cpuid(0, 0).eax, cpuid(0x8000_0000, 0).eax];
        let leaves = [1, 7, 0x8000_0001, 0x8000_0007].map(|leaf: u32| {
            let highest = highest[(leaf >> 31) as usize];
            let known = leaf <= highest && highest >> 16 == leaf >> 16;
            (leaf, if known { cpuid(leaf, 0) } else { NOTHING })
        });
        let leaf =
            |wanted| leaves.iter().find(|(leaf, _)| *leaf == wanted).map_or(NOTHING, |(_, bits)| *bits);
        let offered = Feature::ALL.iter().filter(|feature| feature.is_offered(leaf));
        Self(offered.fold(0, |set, &feature| set | 1 << feature as u32))
    }

    /// Whether `feature` is in the set.
    pub fn has(self, feature: Feature) -> bool {
        self.0 >> feature as u32 & 1 != 0
    }
}

impl fmt::Display for Features {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        let mut names =
            Feature::ALL.iter().filter(|&&feature| self.has(feature)).map(|feature| feature.name());
        out.write_str(names.next().unwrap_or("no features"))?;
        names.try_for_each(|name| write!(out, " {name}"))
    }
}

/// The features of this machine's CPUs.
pub fn features() -> Features {
    static FEATURES: OnceCell<Features> = OnceCell::uninit();
    let _ = FEATURES.try_init_once(|| Features::read(pv_ops::cpuid));
    // Another CPU may be at it this moment: reading twice does no harm.
    FEATURES.try_get().copied().unwrap_or_else(|_| Features::read(pv_ops::cpuid))
}

/// The CPU's brand string (leaves 0x80000002 to 0x80000004).
pub fn brand() -> heapless::String<48> {
    brand_of(pv_ops::cpuid)
}

fn brand_of(cpuid: impl Fn(u32, u32) -> CpuidResult) -> heapless::String<48> {
    if !(0x8000_0004..0x8001_0000).contains(&cpuid(0x8000_0000, 0).eax) {
        return text("CPU without a name".bytes());
    }
    let mut bytes = [0; 48];
    for (leaf, chunk) in (0x8000_0002..).zip(bytes.chunks_exact_mut(16)) {
        let CpuidResult { eax, ebx, ecx, edx } = cpuid(leaf, 0);
        for (register, place) in [eax, ebx, ecx, edx].into_iter().zip(chunk.chunks_exact_mut(4)) {
            place.copy_from_slice(&register.to_le_bytes());
        }
    }
    let name = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    text(name.trim_ascii().iter().copied().filter(|byte| (b' '..=b'~').contains(byte)))
}

/// At most 48 characters of ASCII.
fn text(bytes: impl Iterator<Item = u8>) -> heapless::String<48> {
    let mut text = heapless::String::new();
    for byte in bytes {
        let _ = text.push(char::from(byte));
    }
    text
}

mod bit {
    use x86_64::registers::control::{Cr0Flags, Cr4Flags};

    pub(super) const CR0_WRITE_PROTECT: u64 = Cr0Flags::WRITE_PROTECT.bits();
    pub(super) const CR4: [(super::Feature, u64); 5] = [
        (super::Feature::MachineCheck, Cr4Flags::MACHINE_CHECK_EXCEPTION.bits()),
        (super::Feature::Umip, Cr4Flags::USER_MODE_INSTRUCTION_PREVENTION.bits()),
        (super::Feature::Smep, Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION.bits()),
        (super::Feature::Smap, Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION.bits()),
        (super::Feature::FsGsBase, Cr4Flags::FSGSBASE.bits()),
    ];
    pub(super) const MSR_EFER: u32 = 0xc000_0080;
    pub(super) const EFER_NO_EXECUTE: u64 = 1 << 11;
}

/// Switches on what the CPU offers of write protection, no-execute, SMEP, SMAP, UMIP, machine
/// checks and FSGSBASE, on the CPU that runs this. Not global pages: there is one address space, and what is global takes two
/// writes of CR4 to flush, each an exit in a guest.
pub(super) fn enable() {
    let features = features();
    let cr0 = pv_ops::read_cr0();
    // SAFETY: write protection makes no mapping disappear; the kernel writes to no read-only page.
    unsafe { pv_ops::write_cr0(cr0 | bit::CR0_WRITE_PROTECT) };
    let wanted = bit::CR4.iter().filter(|(feature, _)| features.has(*feature));
    let cr4 = wanted.fold(pv_ops::read_cr4() | super::fpu::wanted_cr4(), |cr4, (_, bit)| cr4 | bit);
    // SAFETY: each bit is one that CPUID offers or that long mode implies; the kernel has no user pages, which SMEP and SMAP
    // are about, and its handler for machine checks is the report.
    unsafe { pv_ops::write_cr4(cr4) };
    if features.has(Feature::NoExecute) {
        // SAFETY: a CPU in long mode has this register.
        let efer = unsafe { pv_ops::rdmsr(bit::MSR_EFER) };
        if efer & bit::EFER_NO_EXECUTE == 0 {
            // SAFETY: CPUID offers the bit. Until now it was reserved in page tables, so no table uses it.
            unsafe { pv_ops::wrmsr(bit::MSR_EFER, efer | bit::EFER_NO_EXECUTE) };
        }
    }
    super::fpu::enable();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(eax: u32, ebx: u32, ecx: u32, edx: u32) -> CpuidResult {
        CpuidResult { eax, ebx, ecx, edx }
    }

    #[test]
    fn features_are_read_from_their_bits() {
        let features = Features::read(|number, _| match number {
            0 => leaf(7, 0, 0, 0),
            1 => leaf(0, 0, 1 << 21, 1 << 9),
            7 => leaf(0, 1 << 7, 0, 0),
            0x8000_0000 => leaf(0x8000_0001, 0, 0, 0),
            0x8000_0001 => leaf(0, 0, 0, 1 << 20),
            _ => leaf(!0, !0, !0, !0),
        });
        assert_eq!(features.to_string(), "APIC X2APIC SMEP NX");
    }

    #[test]
    fn leaves_beyond_the_highest_are_not_believed() {
        let features = Features::read(|number, _| match number {
            0 => leaf(1, 0, 0, 0),
            0x8000_0000 => leaf(0, 0, 0, 0),
            1 => leaf(0, 0, 0, 0),
            _ => leaf(!0, !0, !0, !0),
        });
        assert_eq!(features, Features::default());
    }

    #[test]
    fn the_brand_is_trimmed_text() {
        let brand = brand_of(|number, _| match number {
            0x8000_0000 => leaf(0x8000_0008, 0, 0, 0),
            0x8000_0002 => {
                leaf(0x2020_2020, u32::from_le_bytes(*b"My C"), u32::from_le_bytes(*b"PU\x07 "), 0)
            }
            _ => leaf(0, 0, 0, 0),
        });
        assert_eq!(brand, "My CPU");
    }
}
