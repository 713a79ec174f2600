//! Who is who: the CPUID signatures of hypervisors.
//! Neighbour: `detect` (finds them).
//!
//! The signatures come from what each vendor documents or does in public source, where there is such a thing; those
//! without are marked "collected": they are in several independent lists (stress-ng, VMAware, Wikipedia's "CPUID").

use core::fmt;

/// The twelve bytes in EBX, ECX, EDX of a hypervisor's first leaf.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signature(pub [u8; 12]);

/// A hypervisor that is known by its signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vendor {
    /// What its signature begins with: all twelve bytes, but where the rest may be anything.
    pub signature: &'static [u8],
    /// Its name for people.
    pub name: &'static str,
}

/// Makes two lists of one: who never asks for sources does not carry them.
macro_rules! vendors {
    ($(($signature:expr, $name:literal, $source:literal),)*) => {
        /// Every signature known to us.
        pub const KNOWN: &[Vendor] = &[$(Vendor { signature: $signature, name: $name }),*];
        const SOURCES: &[&str] = &[$($source),*];
    };
}

/// KVM's own interface (Linux cpuid.rst). L4Re's uvmm has it too, with the clock as its only feature: what there is
/// tell the feature bits, never the name.
pub const KVM: Signature = Signature(*b"KVMKVMKVM\0\0\0");
/// Xen (arch-x86/cpuid.h, `XEN_CPUID_SIGNATURE_EBX` ..).
pub const XEN: Signature = Signature(*b"XenVMMXenVMM");
/// Hyper-V, and whoever offers its interface (Hyper-V TLFS §2.4).
pub const HYPER_V: Signature = Signature(*b"Microsoft Hv");

vendors! {
    (&KVM.0, "KVM", "Linux cpuid.rst"),
    (&XEN.0, "Xen", "xen/include/public/arch-x86/cpuid.h"),
    (&HYPER_V.0, "Microsoft Hyper-V", "Hyper-V TLFS §2.4"),
    (b"Linux KVM Hv", "KVM with Hyper-V interface", "QEMU docs/system/i386/hyperv.rst"),
    (b"VMwareVMware", "VMware", "Linux arch/x86/kernel/cpu/vmware.c"),
    (b"VBoxVBoxVBox", "Oracle VirtualBox", "VirtualBox manual, paravirtualization provider \"minimal\""),
    (b"TCGTCGTCGTCG", "QEMU TCG", "QEMU target/i386/cpu.c; recorded from QEMU 7.2"),
    (b"bhyve bhyve ", "FreeBSD bhyve", "FreeBSD sys/amd64/vmm/x86.c"),
    (b"BHyVE BHyVE ", "FreeBSD bhyve, before 10.0", "FreeBSD sys/amd64/vmm/x86.c, history"),
    (b"ACRNACRNACRN", "Project ACRN", "Linux Documentation/virt/acrn/cpuid.rst"),
    (b"Jailhouse\0\0\0", "Jailhouse", "Linux arch/x86/kernel/jailhouse.c"),
    (b"OpenBSDVMM58", "OpenBSD vmm", "OpenBSD sys/arch/amd64/include/vmmvar.h"),
    (b"___ NVMM ___", "NetBSD NVMM", "NetBSD sys/dev/nvmm/x86"),
    (b"HAXMHAXMHAXM", "Intel HAXM", "intel/haxm core/cpuid.c"),
    (b"EVMMEVMMEVMM", "Intel KGT (Trusty)", "minigbm i915.c asks for it; collected"),
    (b" lrpepyh  vr", "Parallels", "systemd, util-linux lscpu"),
    (b" prl hyperv ", "Parallels", "collected"),
    (b"prl hyperv  ", "Parallels", "collected"),
    // The vendor's own check compares byte-swapped EBX and ECX with "QNXQVMBS" and ignores EDX.
    (b"QXNQSBMV", "QNX Hypervisor", "QNX Hypervisor manual, \"Checking the guest's environment\""),
    (b" QNXQVMBSQG ", "QNX Hypervisor", "collected"),
    (b"QNXQVMBSQG", "QNX Hypervisor", "systemd src/basic/virt.c"),
    (b"UnisysSpar64", "Unisys s-Par", "Linux drivers/visorbus; util-linux lscpu"),
    (b"SRESRESRESRE", "Lockheed Martin LMHS", "systemd src/basic/virt.c"),
    (b"Apple VZ", "Apple Virtualization", "systemd src/basic/virt.c"),
    (b"LKVMLKVMLKVM", "kvmtool", "collected"),
    (b"FEXIFEXIEMU\0", "FEX-Emu", "FEX docs/CPUID.md"),
    (b"NoirVisor ZT", "NoirVisor", "collected"),
    (b"Napocahv    ", "Bitdefender Napoca", "collected"),
    (b"Barevisor!\0\0", "Barevisor", "collected"),
    (b"MiniVisor\0\0\0", "MiniVisor", "collected"),
}

impl Vendor {
    /// Where its signature is documented.
    pub fn source(&self) -> Option<&'static str> {
        let place = KNOWN.iter().position(|known| known == self)?;
        SOURCES.get(place).copied()
    }
}

impl Signature {
    /// Puts the registers in the order of the text: EBX, ECX, EDX (arch-x86/cpuid.h).
    pub fn of_registers(ebx: u32, ecx: u32, edx: u32) -> Self {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&ebx.to_le_bytes());
        bytes[4..8].copy_from_slice(&ecx.to_le_bytes());
        bytes[8..].copy_from_slice(&edx.to_le_bytes());
        Self(bytes)
    }

    /// Whose it is, if known.
    pub fn vendor(&self) -> Option<&'static Vendor> {
        KNOWN.iter().find(|vendor| self.0.starts_with(vendor.signature))
    }

    /// Text as signatures are: at least four printable ASCII characters, perhaps zero bytes after them.
    pub fn is_printable(&self) -> bool {
        let text = self.text();
        text.len() >= 4 && text.iter().all(|byte| (0x20..0x7f).contains(byte))
    }

    /// The bytes without the zeroes at the end.
    fn text(&self) -> &[u8] {
        let end = self.0.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        &self.0[..end]
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.text().escape_ascii())
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}
