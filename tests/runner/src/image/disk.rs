//! BIOS and UEFI disk images by the `bootloader` crate, through the program in `tests/image`.
//!
//! That program takes minutes to build (its build script compiles the boot stages from source), so it is built once per
//! compiler and lock file, outside the checkout.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::{KIND, ramdisk};
use crate::guest::Guest;
use crate::host::process::{clean, output, run_with_progress};
use crate::host::progress::Step;
use crate::host::{cache, paths};
use crate::toolchain::{self, Toolchain};

/// Files on the images' FAT volumes begin at multiples of this.
const SECTOR_BYTES: usize = 512;

/// The image for `firmware` (`bios` or `uefi`), made if it is not in the cache.
pub(super) fn make(
    toolchain: &Toolchain,
    guest: &Guest,
    firmware: &str,
    command_line: &str,
) -> Result<PathBuf> {
    let builder = builder(toolchain)?;
    let ramdisk = ramdisk::encode(command_line)?;
    let name = builder.to_string_lossy();
    let key = cache::digest(&[name.as_bytes(), guest.sha256.as_bytes(), firmware.as_bytes(), &ramdisk]);
    let key = format!("{}-{}.{firmware}.img", guest.name, &key[..16]);
    let image = cache::get_or_make(KIND, &key, |path| {
        let ramdisk_file = path.with_extension("ramdisk");
        fs::write(&ramdisk_file, &ramdisk)?;
        let made = output(clean(&builder).arg(firmware).arg(&guest.elf).arg(&ramdisk_file).arg(path));
        cache::remove(&ramdisk_file)?;
        made.map(|_| ())
    })?;
    cache::prune(KIND, cache::IMAGES_KEPT);
    holds_the_same_elf(&image, guest)?;
    Ok(image)
}

/// The program that makes images.
pub(super) fn builder(toolchain: &Toolchain) -> Result<PathBuf> {
    let source = paths::checkout().join("tests/image");
    let read = |name: &str| {
        let path = source.join(name);
        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let (manifest, lock, main) = (read("Cargo.toml")?, read("Cargo.lock")?, read("src/main.rs")?);
    let place = format!("{}-{}", toolchain.id, &cache::sha256(&lock)[..12]);
    let kind = format!("image-builder/{place}");
    let key = format!("image-{}", &cache::digest(&[&manifest, &lock, &main])[..16]);
    let target = paths::cache_directory().join(&kind).join("target");
    cache::get_or_make(&kind, &key, |path| {
        // Versions of the program share the target directory: one build at a time.
        let _lock = cache::lock(&paths::cache_directory().join(&kind), "target")?;
        build(toolchain, &source, &target, path)
    })
}

fn build(toolchain: &Toolchain, source: &Path, target: &Path, binary: &Path) -> Result<()> {
    let mut cargo = toolchain.cargo_for_bootloader()?;
    let step = Step::new("building the disk image builder (once, about 5 minutes)");
    // Twice verbose, cargo shows what the build script of `bootloader` compiles.
    cargo.current_dir(source).args(["build", "--release", "--locked", "-vv", "--target-dir"]).arg(target);
    run_with_progress(&mut cargo, &step, toolchain::compiling)?;
    fs::copy(target.join("release/image"), binary).context("cargo built no image builder")?;
    Ok(())
}

/// The file in the image is the ELF that every other way in boots, byte for byte.
fn holds_the_same_elf(image: &Path, guest: &Guest) -> Result<()> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let (disk, elf) = (read(image)?, read(&guest.elf)?);
    let found = (0..disk.len()).step_by(SECTOR_BYTES).any(|at| disk[at..].starts_with(&elf));
    ensure!(found, "{} does not hold {} (sha256 {})", image.display(), guest.elf.display(), guest.sha256);
    Ok(())
}
