//! The parts of the machine with nested KVM, assembled once and kept in the cache.
//!
//! `<cache>/kvm-rig/<key>/` holds `vmlinuz` and `host.cpio` (Linux and what it lives in), `versions` (where they come
//! from). Linux and busybox come from Debian's packages; QEMU, which is the guest's machine in there, is this machine's own.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::host::packages::QEMU;
use crate::host::process::{clean, output};
use crate::linux::{Parts, Recipe, Root, the_one_in};

const PACKAGES: [&str; 1] = ["busybox-static"];
const INIT: &str = include_str!("init");
const BUSYBOX_APPLETS: &str = "sh awk base64 blockdev cat chmod date dd dmesg echo env free grep insmod kill ln ls mkdir mount mv ps \
    rm sed sleep stat sync tail test top tr true uname xargs";
/// The devices that the host talks by, and KVM by page tables in hardware.
const MODULES: [&str; 4] = ["kvm_amd", "virtio_pci", "virtio_blk", "virtio_console"];
/// Where Debian keeps firmware, and what QEMU needs of it to boot by PVH.
const FIRMWARE_IN: [&str; 2] = ["usr/share/qemu", "usr/share/seabios"];
const FIRMWARE: [&str; 5] =
    ["bios-256k.bin", "bios-microvm.bin", "kvmvapic.bin", "linuxboot_dma.bin", "pvh.bin"];
/// The directory of firmware in there.
pub(super) const FIRMWARE_AT: &str = "/usr/share/qemu";

/// An assembled rig.
#[derive(Clone, Debug)]
pub struct Rig(Parts);

impl Rig {
    /// The rig in the cache; assembles it first if it is not there.
    ///
    /// # Errors
    /// A package cannot be had, or QEMU is not here.
    pub fn get() -> Result<Self> {
        recipe()?.get().map(Self)
    }

    /// The newest rig in the cache that is made of our files and of this QEMU.
    pub fn look() -> Option<Self> {
        recipe().ok()?.look().map(Self)
    }

    /// One that is not there, for its lines.
    #[cfg(test)]
    pub(super) fn at(directory: PathBuf) -> Self {
        Self(Parts::at(directory))
    }

    pub(super) fn parts(&self) -> &Parts {
        &self.0
    }

    /// Linux, to have KVM.
    pub(super) fn kernel(&self) -> PathBuf {
        self.0.file("vmlinuz")
    }

    /// What Linux lives in.
    pub(super) fn initramfs(&self) -> PathBuf {
        self.0.file("host.cpio")
    }

    /// The version of its Linux.
    ///
    /// # Errors
    /// The rig is damaged.
    pub fn describe(&self) -> Result<String> {
        self.0.versions(&["linux-image"])
    }
}

fn recipe() -> Result<Recipe> {
    let qemu = output(clean(Path::new(QEMU.what)).arg("--version"))?;
    let own = vec![INIT.to_owned(), include_str!("rig.rs").to_owned(), qemu];
    Ok(Recipe { kind: "kvm-rig", name: "the rig of nested KVM", packages: &PACKAGES, own, assemble })
}

fn assemble(packages: &Path, directory: &Path) -> Result<()> {
    let mut root = Root::new(packages);
    root.busybox(BUSYBOX_APPLETS)?;
    root.modules(&MODULES)?;
    let qemu = QEMU.find().context("there is no QEMU")?;
    let from = qemu.strip_prefix("/").unwrap_or(&qemu).display().to_string();
    root.program_below(Path::new("/"), &from, &format!("bin/{}", QEMU.what))?;
    for name in FIRMWARE {
        let paths = FIRMWARE_IN.map(|directory| Path::new("/").join(directory).join(name));
        let path = paths.iter().find(|path| path.exists());
        let path = path.with_context(|| format!("QEMU's firmware {name} is not here"))?;
        let data = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        root.archive.file(&format!("{FIRMWARE_AT}/{name}"), 0o644, data);
    }
    root.archive.file("init", 0o755, INIT.into());
    fs::write(directory.join("host.cpio"), root.bytes()).context("cannot write host.cpio")?;
    let kernel = the_one_in(&packages.join("boot"), "vmlinuz-", "")?;
    fs::copy(&kernel, directory.join("vmlinuz")).context("cannot copy the kernel")?;
    Ok(())
}
