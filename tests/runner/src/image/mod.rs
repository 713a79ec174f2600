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
use crate::host::packages::{self, GRUB, Need, OVMF, QEMU};
use crate::qemu::Platform;
use crate::toolchain::Toolchain;

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
        Platform::Pvh => Ok(guest.elf.clone()),
        Platform::Bios => disk::make(toolchain, guest, "bios", command_line),
        Platform::Uefi => disk::make(toolchain, guest, "uefi", command_line),
        Platform::Multiboot2 | Platform::Multiboot2Uefi => iso::make(guest, command_line),
    }
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
    needs
}

/// Builds the disk image builder if it is not in the cache, which takes minutes.
///
/// # Errors
/// It does not compile.
pub fn prepare_disk_builder(toolchain: &Toolchain) -> Result<()> {
    disk::builder(toolchain).map(|_| ())
}
