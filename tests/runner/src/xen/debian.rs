//! Debian's packages of Xen, of a Linux that can be its dom0, and of what the tools need: fetched and unpacked, never installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::host::packages::is_root;
use crate::host::paths::in_path;
use crate::host::process::{clean, output, run_with_progress};
use crate::host::progress::Step;

/// The packages whose names hold on any Debian 12; the kernel's is asked for by [`KERNEL`].
pub(super) const PACKAGES: [&str; 23] = [
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
/// Depends on the kernel package of the day. The cloud flavour cannot be dom0.
const KERNEL: &str = "linux-image-amd64";

/// A package in the version that would be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
}

/// The packages of a rig as this machine's package lists have them; fetches the lists when there are none.
///
/// # Errors
/// This is no Debian, or its release has no such packages.
pub(super) fn candidates() -> Result<Vec<Package>> {
    for tool in ["apt-get", "apt-cache", "dpkg-deb"] {
        if in_path(tool).is_none() {
            bail!("the Xen rig is made of Debian's packages, and {tool} is not here");
        }
    }
    match listed() {
        Ok(packages) => Ok(packages),
        Err(error) if !is_root() => {
            Err(error.context("if the package lists are missing: sudo apt-get update, then again"))
        }
        Err(_) => {
            let step = Step::new("fetching the package lists");
            run_with_progress(apt("apt-get").arg("update"), &step, progress)?;
            listed()
        }
    }
}

fn listed() -> Result<Vec<Package>> {
    let kernel = output(apt("apt-cache").args(["depends", KERNEL]))?;
    let kernel = kernel_package(&kernel).with_context(|| format!("{KERNEL} depends on no kernel"))?;
    let names: Vec<&str> = PACKAGES.into_iter().chain([kernel.as_str()]).collect();
    let shown = output(apt("apt-cache").args(["show", "--no-all-versions"]).args(&names))?;
    let found = versions(&shown);
    let pick = |name: &&str| {
        let package = found.iter().find(|package| package.name == **name);
        package.cloned().with_context(|| format!("this release has no package {name}"))
    };
    names.iter().map(pick).collect()
}

/// The kernel's package in what `apt-cache depends` says.
fn kernel_package(depends: &str) -> Option<String> {
    let package = |line: &str| line.trim().strip_prefix("Depends: ").map(str::to_owned);
    depends.lines().filter_map(package).find(|name| name.starts_with("linux-image-"))
}

/// Names and versions in what `apt-cache show` says.
fn versions(shown: &str) -> Vec<Package> {
    let field = |paragraph: &str, name: &str| {
        paragraph.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
    };
    let package = |paragraph| {
        Some(Package { name: field(paragraph, "Package:")?, version: field(paragraph, "Version:")? })
    };
    shown.split("\n\n").filter_map(package).collect()
}

/// Downloads `packages` and unpacks them, all over one another, below `root`.
///
/// # Errors
/// A package cannot be fetched or unpacked.
pub(super) fn unpack(packages: &[Package], root: &Path, step: &Step) -> Result<()> {
    let archives = root.with_extension("archives");
    fs::create_dir_all(&archives).with_context(|| format!("cannot create {}", archives.display()))?;
    let mut download = apt("apt-get");
    download.current_dir(&archives).arg("download");
    download.args(packages.iter().map(|package| format!("{}={}", package.name, package.version)));
    run_with_progress(&mut download, step, progress)?;
    for archive in archives_in(&archives)? {
        step.note(&format!("unpacking {}", archive.file_name().unwrap_or_default().to_string_lossy()));
        output(clean(Path::new("dpkg-deb")).arg("--extract").arg(&archive).arg(root))?;
    }
    fs::remove_dir_all(&archives).with_context(|| format!("cannot remove {}", archives.display()))
}

fn archives_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut archives = Vec::new();
    for entry in fs::read_dir(directory)? {
        archives.push(entry?.path());
    }
    archives.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
    archives.sort();
    Ok(archives)
}

fn apt(program: &str) -> Command {
    let mut command = clean(Path::new(program));
    command.env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// What apt says, but for its errors, is progress.
fn progress(line: &str) -> Option<String> {
    (!line.starts_with("E:")).then(|| line.chars().take(70).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_the_image_that_the_metapackage_depends_on() {
        let depends = "linux-image-amd64\n  Depends: linux-image-6.1.0-56-amd64\n  Breaks: x\n";
        assert_eq!(kernel_package(depends).as_deref(), Some("linux-image-6.1.0-56-amd64"));
        assert_eq!(kernel_package("linux-image-amd64\n"), None);
    }

    #[test]
    fn versions_are_read_paragraph_by_paragraph() {
        let shown = "Package: a\nSource: b (9)\nVersion: 1:2-3\n\nPackage: c\nVersion: 4\n";
        let package = |name: &str, version: &str| Package { name: name.into(), version: version.into() };
        assert_eq!(versions(shown), [package("a", "1:2-3"), package("c", "4")]);
    }
}
