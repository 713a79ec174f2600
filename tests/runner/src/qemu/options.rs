//! What a guest is run on and with.

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

/// How control reaches the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Platform {
    /// QEMU's `-kernel`, by the Xen PVH protocol
    Pvh,
    /// Disk image with the `bootloader` crate's BIOS stages
    Bios,
    /// Disk image with the `bootloader` crate's UEFI loader
    Uefi,
    /// ISO with GRUB, started by a BIOS
    Multiboot2,
    /// The same ISO, started by UEFI firmware
    #[value(name = "multiboot2-uefi")]
    Multiboot2Uefi,
    /// Xen, as a PV guest beside a Linux dom0
    XenPv,
    /// Xen, as a PVH guest beside a Linux dom0
    XenPvh,
    /// Xen, as its first PV guest: dom0, alone
    XenPvDom0,
    /// Xen, as its first PVH guest: dom0, alone
    XenPvhDom0,
    /// The host's /dev/kvm, by PVH
    Kvm,
    /// Real KVM in a Linux that QEMU emulates, by PVH; works everywhere
    KvmNested,
}

/// The machine that QEMU plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Machine {
    /// PCI Express, I/O APIC, ACPI
    Q35,
    /// The i440FX PC
    Pc,
    /// No PCI, no firmware tables but the needed ones
    Microvm,
    /// Our own machine monitor on KVM (tests/vmm): one serial line, and what QEMU does not offer
    Vmm,
}

/// Who executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Accel {
    /// QEMU itself; works everywhere
    Tcg,
    /// The host's /dev/kvm
    Kvm,
}

/// Where the guest's serial line goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serial {
    /// A terminal: Ctrl-A X leaves, Ctrl-A C talks to QEMU.
    Terminal,
    /// A pipe or a file: every byte is the guest's.
    Plain,
}

/// What a guest is run on and with.
#[derive(Clone, Debug)]
pub struct Options {
    /// How control reaches the kernel.
    pub platform: Platform,
    /// The machine.
    pub machine: Machine,
    /// Who executes the instructions.
    pub accel: Accel,
    /// The processor model; the best the accelerator offers when not given.
    pub cpu: Option<String>,
    /// Number of processors.
    pub smp: u32,
    /// Size of memory as QEMU writes it, for example `256M`.
    pub memory: String,
    /// The kernel command line.
    pub append: String,
    /// Wait for gdb on TCP port 1234 before the first instruction.
    pub gdb: bool,
    /// Further options of [`Machine::Vmm`].
    pub vmm: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            platform: Platform::Pvh,
            machine: Machine::Q35,
            accel: Accel::Tcg,
            cpu: None,
            smp: 1,
            memory: "256M".into(),
            append: String::new(),
            gdb: false,
            vmm: Vec::new(),
        }
    }
}

impl Options {
    /// A platform with the machine that it takes when nobody chooses.
    pub fn on(platform: Platform) -> Self {
        Self { platform, machine: platform.machine(), accel: platform.accel(), ..Self::default() }
    }
}

impl Platform {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Pvh,
        Self::Bios,
        Self::Uefi,
        Self::Multiboot2,
        Self::Multiboot2Uefi,
        Self::XenPv,
        Self::XenPvh,
        Self::XenPvDom0,
        Self::XenPvhDom0,
        Self::Kvm,
        Self::KvmNested,
    ];

    /// Whether the firmware is UEFI.
    pub fn is_uefi(self) -> bool {
        matches!(self, Self::Uefi | Self::Multiboot2Uefi)
    }

    /// Whether Xen stands between QEMU and the guest.
    pub fn is_xen(self) -> bool {
        self.is_xen_domu() || matches!(self, Self::XenPvDom0 | Self::XenPvhDom0)
    }

    /// Whether the guest runs beside a Linux dom0.
    pub fn is_xen_domu(self) -> bool {
        matches!(self, Self::XenPv | Self::XenPvh)
    }

    /// Whether a Linux in QEMU runs the guest, so that no QEMU line does.
    pub fn is_beside_linux(self) -> bool {
        self.is_xen_domu() || self == Self::KvmNested
    }

    /// Whether KVM runs the guest.
    pub fn is_kvm(self) -> bool {
        matches!(self, Self::Kvm | Self::KvmNested)
    }

    /// The machine when nobody chooses: the smallest where guests run at the host's speed.
    pub fn machine(self) -> Machine {
        if self == Self::Kvm { Machine::Microvm } else { Machine::Q35 }
    }

    /// Who executes the instructions when nobody chooses.
    pub fn accel(self) -> Accel {
        if self == Self::Kvm { Accel::Kvm } else { Accel::Tcg }
    }

    /// The name on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// The least memory of any machine: the image begins at 2 MiB, and QEMU hangs when that is beyond the end.
const MIN_MEMORY_BYTES: u64 = 4 << 20;

/// `-m` as QEMU reads it: a number of MiB, or a number with its unit. What is not of this form is left to QEMU.
pub(super) fn check_memory(memory: &str) -> Result<()> {
    let digits = memory.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match memory[digits.len()..].to_ascii_uppercase().as_str() {
        "K" => 1 << 10,
        "" | "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return Ok(()),
    };
    match digits.parse::<u64>() {
        Ok(number) if number.saturating_mul(unit) < MIN_MEMORY_BYTES => {
            bail!("--memory {memory} is too little: a guest takes 4M at least")
        }
        _ => Ok(()),
    }
}

/// A size as QEMU writes it, in MiB.
///
/// # Errors
/// It is no size, or no whole number of MiB.
pub(crate) fn megabytes(size: &str) -> Result<u32> {
    let (number, factor) = match size.as_bytes() {
        [.., b'G' | b'g'] => (&size[..size.len() - 1], 1024),
        [.., b'M' | b'm'] => (&size[..size.len() - 1], 1),
        _ => (size, 1),
    };
    let number: u32 = number.parse().with_context(|| format!("{size:?} is no size of memory"))?;
    number.checked_mul(factor).with_context(|| format!("{size} is more than there can be"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_without_room_for_the_image_is_refused() {
        for memory in ["2M", "3", "4095K"] {
            assert!(check_memory(memory).is_err(), "{memory}");
        }
        for memory in ["4M", "4", "1G", "256M", "4096k", "nonsense"] {
            assert!(check_memory(memory).is_ok(), "{memory}");
        }
    }

    #[test]
    fn sizes_are_mebibytes() {
        assert_eq!(
            [megabytes("64M").unwrap(), megabytes("2G").unwrap(), megabytes("7").unwrap()],
            [64, 2048, 7]
        );
        assert!(megabytes("").is_err() && megabytes("9999999G").is_err() && megabytes("M").is_err());
    }
}
