//! The parts of the Xen machine, assembled once and kept in the cache.
//!
//! `<cache>/xen-rig/<key>/` holds `xen` (the hypervisor), `vmlinuz` and `dom0.cpio` (Linux as dom0 and what it lives in),
//! `versions` (where they come from).

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::initramfs;
use crate::host::process::output;
use crate::linux::{Parts, Recipe, the_one_in};

/// The packages whose names hold on any Debian 12.
const PACKAGES: [&str; 23] = [
    "xen-hypervisor-4.17-amd64",
    "xen-utils-4.17",
    "libxenmisc4.17",
    "xenstore-utils",
    "libxenstore4",
    "libxencall1",
    "libxendevicemodel1",
    "libxenevtchn1",
    "libxenforeignmemory1",
    "libxengnttab1",
    "libxentoollog1",
    "libxentoolcore1",
    "libxenhypfs1",
    "busybox-static",
    "libyajl2",
    "libuuid1",
    "liblzma5",
    "libzstd1",
    "zlib1g",
    "libc6",
    "libncurses6",
    "libtinfo6",
    "libgcc-s1",
];

/// An assembled rig.
#[derive(Clone, Debug)]
pub struct Rig(Parts);

impl Rig {
    /// The rig in the cache; assembles it first if it is not there.
    ///
    /// # Errors
    /// A package cannot be had.
    pub fn get() -> Result<Self> {
        recipe().get().map(Self)
    }

    /// The newest rig in the cache that is made of our files as they are now.
    pub fn look() -> Option<Self> {
        recipe().look().map(Self)
    }

    /// One that is not there, for its lines.
    #[cfg(test)]
    pub(super) fn at(directory: PathBuf) -> Self {
        Self(Parts::at(directory))
    }

    pub(super) fn parts(&self) -> &Parts {
        &self.0
    }

    /// The hypervisor, an ELF file that QEMU boots by multiboot.
    pub(super) fn hypervisor(&self) -> PathBuf {
        self.0.file("xen")
    }

    /// Linux, to be dom0.
    pub(super) fn kernel(&self) -> PathBuf {
        self.0.file("vmlinuz")
    }

    /// What Linux as dom0 lives in.
    pub(super) fn initramfs(&self) -> PathBuf {
        self.0.file("dom0.cpio")
    }

    /// The versions of Xen and of dom0's Linux.
    ///
    /// # Errors
    /// The rig is damaged.
    pub fn describe(&self) -> Result<String> {
        self.0.versions(&["xen-hypervisor", "linux-image"])
    }
}

fn recipe() -> Recipe {
    let own = initramfs::OWN_FILES.iter().map(|(_, text)| (*text).to_owned());
    let own = own.chain([include_str!("initramfs.rs").to_owned()]).collect();
    Recipe { kind: "xen-rig", name: "the Xen rig", packages: &PACKAGES, own, assemble }
}

fn assemble(root: &Path, directory: &Path) -> Result<()> {
    fs::write(directory.join("dom0.cpio"), initramfs::build(root)?).context("cannot write dom0.cpio")?;
    let kernel = the_one_in(&root.join("boot"), "vmlinuz-", "")?;
    fs::copy(&kernel, directory.join("vmlinuz")).context("cannot copy the kernel")?;
    // Beside it are its configuration and an EFI program. QEMU boots it as an ELF file only.
    let packed = the_one_in(&root.join("boot"), "xen-", ".gz")?;
    let unpacked = directory.join("xen.gz");
    fs::copy(&packed, &unpacked).context("cannot copy the hypervisor")?;
    output(std::process::Command::new("gzip").arg("--decompress").arg(&unpacked)).map(|_| ())
}
