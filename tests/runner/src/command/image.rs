//! `image`: writes the file that boots a guest elsewhere.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::guest::{self, Profile};
use crate::host::{cache, paths};
use crate::image;
use crate::qemu::Platform;
use crate::toolchain::Toolchain;

/// What to write and where.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// The application, a directory under apps/
    pub app: String,
    /// The kind of file
    #[arg(long, value_enum)]
    pub format: Format,
    /// The kernel command line inside the image (an ELF gets it from its loader)
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    pub append: String,
    /// Where to write it [default: target/pliant/APP.FORMAT]
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// The kinds of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// The ELF itself: PVH and multiboot2
    Elf,
    /// A disk for BIOS machines
    Bios,
    /// A disk for UEFI machines
    Uefi,
    /// A CD with GRUB for both
    Iso,
}

/// Builds the guest and the file.
///
/// # Errors
/// Something is missing, the guest does not build, or the file cannot be written.
pub fn run(arguments: &Arguments) -> Result<u8> {
    let (platform, extension) = match arguments.format {
        Format::Elf => (Platform::Pvh, "elf"),
        Format::Bios => (Platform::Bios, "bios.img"),
        Format::Uefi => (Platform::Uefi, "uefi.img"),
        Format::Iso => (Platform::Multiboot2, "iso"),
    };
    if arguments.format == Format::Iso {
        image::require(platform)?;
    }
    let toolchain = Toolchain::find()?;
    let guest = guest::build(&toolchain, &arguments.app, Profile::Release)?;
    let made = image::for_platform(&toolchain, &guest, platform, &arguments.append)?;
    let default = || paths::output_directory().join(format!("{}.{extension}", arguments.app));
    let out = arguments.out.clone().unwrap_or_else(default);
    if made != out {
        fs::copy(&made, &out).with_context(|| format!("cannot write {}", out.display()))?;
    }
    println!("{}  {}", cache::file_sha256(&out)?, out.display());
    println!("{}  kernel ELF inside it", guest.sha256);
    Ok(0)
}
