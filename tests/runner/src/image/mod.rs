//! The file that a machine boots a guest from, for each way in; always the same ELF, which is checked.
//!
//! Neighbours: `disk` (the `bootloader` crate's BIOS and UEFI images), `iso` (GRUB), `ramdisk` (how those disk images
//! carry the command line).

mod disk;
mod iso;
mod ramdisk;

use std::path::PathBuf;

use anyhow::Result;

use crate::guest::Guest;
use crate::host::packages::{self, DEBIAN, GRUB, Need, OVMF, QEMU};
use crate::qemu::{Line, Options, Platform, Serial};
use crate::toolchain::Toolchain;
use crate::xen::{self, Rig};

/// The directory in the cache that images lie in.
const KIND: &str = "images";

/// The file to boot `guest` from on `platform`, with its command line where the platform keeps it in that file.
///
/// # Errors
/// The image cannot be built, or does not hold the guest's ELF byte for byte.
pub fn for_platform(
    toolchain: &Toolchain,
    guest: &Guest,
    platform: Platform,
    command_line: &str,
) -> Result<PathBuf> {
    match platform {
        Platform::Pvh | Platform::Kvm | Platform::KvmNested => Ok(guest.elf.clone()),
        Platform::Bios => disk::make(toolchain, guest, "bios", command_line),
        Platform::Uefi => disk::make(toolchain, guest, "uefi", command_line),
        Platform::Multiboot2 | Platform::Multiboot2Uefi => iso::make(guest, command_line),
        // Xen loads ELF files itself.
        Platform::XenPv | Platform::XenPvh | Platform::XenPvDom0 | Platform::XenPvhDom0 => {
            Ok(guest.elf.clone())
        }
    }
}

/// The QEMU line that boots `guest`, and with it what it boots from.
///
/// # Errors
/// As [`for_platform`]; or a Linux that QEMU boots runs the guest ([`crate::xen::Dom0`], [`crate::nested::Host`]).
pub fn line(toolchain: &Toolchain, guest: &Guest, options: &Options, serial: Serial) -> Result<Line> {
    let file = for_platform(toolchain, guest, options.platform, &options.append)?;
    if options.platform.is_xen() && !options.platform.is_xen_domu() {
        return xen::alone(&Rig::get()?, &file, options, serial);
    }
    Line::new(options, &file, serial)
}

/// Makes sure that what running on `platform` takes is on this machine.
///
/// # Errors
/// Something is missing and cannot be installed.
pub fn require(platform: Platform) -> Result<()> {
    packages::require(&needs(platform))
}

/// What running on `platform` takes besides a toolchain.
pub fn needs(platform: Platform) -> Vec<Need> {
    let mut needs = vec![QEMU];
    if platform.is_uefi() {
        needs.push(OVMF);
    }
    if matches!(platform, Platform::Multiboot2 | Platform::Multiboot2Uefi) {
        needs.extend(GRUB);
    }
    if platform.is_xen() || platform.is_beside_linux() {
        needs.extend(DEBIAN);
    }
    needs
}

/// Builds the disk image builder if it is not in the cache, which takes minutes.
///
/// # Errors
/// It does not compile.
pub fn prepare_disk_builder(toolchain: &Toolchain) -> Result<()> {
    disk::builder(toolchain).map(|_| ())
}
