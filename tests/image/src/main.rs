//! Puts one kernel ELF and one ramdisk into a disk image, by the `bootloader` crate.
//!
//! Neighbour: `tests/runner/src/image/disk.rs`, which builds, caches and calls this program and checks the image.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bootloader::DiskImageBuilder;
use bootloader_boot_config::{BootConfig, LevelFilter};

const USAGE: &str = "usage: image bios|uefi KERNEL RAMDISK OUT";

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    match create(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("image: {error}");
            ExitCode::FAILURE
        }
    }
}

fn create(arguments: &[PathBuf]) -> Result<(), String> {
    let [firmware, kernel, ramdisk, out] = arguments else { return Err(USAGE.into()) };
    let mut builder = DiskImageBuilder::new(kernel.clone());
    builder.set_ramdisk(ramdisk.clone());
    builder.set_boot_config(&quiet());
    let out: &Path = out;
    match firmware.to_str() {
        Some("bios") => builder.create_bios_image(out),
        Some("uefi") => builder.create_uefi_image(out),
        _ => return Err(USAGE.into()),
    }
    .map_err(|error| format!("{}: {error:#}", out.display()))
}

/// The loader speaks on the serial line only when something is wrong: the console belongs to the kernel.
fn quiet() -> BootConfig {
    let mut config = BootConfig::default();
    config.log_level = LevelFilter::Warn;
    config.frame_buffer_logging = true;
    config.serial_logging = true;
    config
}
