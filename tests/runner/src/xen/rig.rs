//! The parts of the Xen machine, assembled once and kept in the cache.
//!
//! `<cache>/xen-rig/<our files>-<versions>/` holds `xen` (the hypervisor), `vmlinuz` and `dom0.cpio` (Linux as dom0 and
//! what it lives in), `versions` (where they come from). A rig made of the same files of ours is used as it is, without
//! a question to the network; remove the directory to get Debian's newest packages.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::debian::{self, Package};
use super::initramfs;
use crate::host::cache;
use crate::host::paths;
use crate::host::process::output;
use crate::host::progress::Step;

/// The directory of rigs in the cache.
const KIND: &str = "xen-rig";
/// Digits of a digest that make up half of a key.
const DIGITS: usize = 12;

/// An assembled rig.
#[derive(Clone, Debug)]
pub struct Rig {
    directory: PathBuf,
}

impl Rig {
    /// The rig in the cache; assembles it first if it is not there.
    ///
    /// # Errors
    /// A package cannot be had.
    pub fn get() -> Result<Self> {
        if let Some(rig) = Self::look() {
            return Ok(rig);
        }
        let packages = debian::candidates()?;
        let key = format!("{}-{}", own_files(), short(&versions(&packages)));
        let directory = cache::get_or_make(KIND, &key, |directory| assemble(&packages, directory))?;
        Ok(Self { directory })
    }

    /// The newest rig in the cache that is made of our files as they are now.
    pub fn look() -> Option<Self> {
        let own = format!("{}-", own_files());
        let entries = fs::read_dir(paths::cache_directory().join(KIND)).ok()?;
        let rigs = entries.flatten().filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.starts_with(&own) && !name.contains('.')
        });
        let newest = rigs.max_by_key(|entry| entry.metadata().and_then(|found| found.modified()).ok())?;
        Some(Self { directory: newest.path() })
    }

    /// One that is not there, for its lines.
    #[cfg(test)]
    pub(super) fn at(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// The hypervisor, an ELF file that QEMU boots by multiboot.
    pub(super) fn hypervisor(&self) -> PathBuf {
        self.directory.join("xen")
    }

    /// Linux, to be dom0.
    pub(super) fn kernel(&self) -> PathBuf {
        self.directory.join("vmlinuz")
    }

    /// What Linux as dom0 lives in.
    pub(super) fn initramfs(&self) -> PathBuf {
        self.directory.join("dom0.cpio")
    }

    /// What tells this rig from others.
    pub(super) fn key(&self) -> String {
        self.directory.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The versions of Xen and of dom0's Linux.
    ///
    /// # Errors
    /// The rig is damaged.
    pub fn describe(&self) -> Result<String> {
        let path = self.directory.join("versions");
        let versions =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let is_named = |line: &&str| line.starts_with("xen-hypervisor") || line.starts_with("linux-image");
        Ok(versions.lines().filter(is_named).collect::<Vec<_>>().join(", "))
    }
}

fn assemble(packages: &[Package], directory: &Path) -> Result<()> {
    let step = Step::new("assembling the Xen rig");
    let root = directory.join("root");
    fs::create_dir_all(&root).with_context(|| format!("cannot create {}", root.display()))?;
    debian::unpack(packages, &root, &step)?;

    step.note("dom0's root file system");
    write(&directory.join("dom0.cpio"), &initramfs::build(&root)?)?;
    let kernel = the_one_in(&root.join("boot"), "vmlinuz-")?;
    fs::copy(&kernel, directory.join("vmlinuz")).context("cannot copy the kernel")?;
    // QEMU boots it as an ELF file only.
    let packed = the_one_in(&root.join("boot"), "xen-")?;
    let unpacked = directory.join("xen.gz");
    fs::copy(&packed, &unpacked).context("cannot copy the hypervisor")?;
    output(std::process::Command::new("gzip").arg("--decompress").arg(&unpacked))?;
    write(&directory.join("versions"), versions(packages).as_bytes())?;
    cache::remove(&root)
}

/// The file in `directory` that begins with `start`; Xen's directory also has its configuration and an EFI program.
fn the_one_in(directory: &Path, start: &str) -> Result<PathBuf> {
    let is_wanted = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(start) && (start != "xen-" || name.ends_with(".gz"))
    };
    let entries =
        fs::read_dir(directory).with_context(|| format!("no package brought {}", directory.display()))?;
    let found = entries.flatten().map(|entry| entry.path()).find(is_wanted);
    found.with_context(|| format!("no package brought {start}* in {}", directory.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

fn versions(packages: &[Package]) -> String {
    packages.iter().map(|package| format!("{} {}\n", package.name, package.version)).collect()
}

/// Stands for everything of ours that a rig is made of or made by.
fn own_files() -> String {
    let makers = concat!(include_str!("debian.rs"), include_str!("initramfs.rs"), include_str!("cpio.rs"));
    let makers = format!("{makers}{}{}", include_str!("modules.rs"), include_str!("libraries.rs"));
    let parts: Vec<&[u8]> =
        initramfs::OWN_FILES.iter().map(|(_, text)| text.as_bytes()).chain([makers.as_bytes()]).collect();
    cache::digest(&parts)[..DIGITS].to_owned()
}

fn short(text: &str) -> String {
    cache::digest(&[text.as_bytes()])[..DIGITS].to_owned()
}
