//! Debian's packages: fetched and unpacked, never installed.
//!
//! `<cache>/packages/` keeps the archives, since more than one rig is made of the kernel's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::host::packages::is_root;
use crate::host::paths::in_path;
use crate::host::process::{clean, output, run_with_progress};
use crate::host::progress::Step;
use crate::host::{cache, paths};

/// Depends on the kernel package of the day. The cloud flavour cannot be dom0.
const KERNEL: &str = "linux-image-amd64";
/// The directory of archives in the cache.
const KIND: &str = "packages";

/// A package in the version that would be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
}

/// The kernel's package and the named ones as this machine's package lists have them; fetches the lists when there are
/// none.
///
/// # Errors
/// This is no Debian, or its release has no such packages.
pub(super) fn candidates(names: &[&str]) -> Result<Vec<Package>> {
    for tool in ["apt-get", "apt-cache", "dpkg-deb"] {
        if in_path(tool).is_none() {
            bail!("the rig is made of Debian's packages, and {tool} is not here");
        }
    }
    match listed(names) {
        Ok(packages) => Ok(packages),
        Err(error) if !is_root() => {
            Err(error.context("if the package lists are missing: sudo apt-get update, then again"))
        }
        Err(_) => {
            let step = Step::new("fetching the package lists");
            run_with_progress(apt("apt-get").arg("update"), &step, progress)?;
            listed(names)
        }
    }
}

fn listed(names: &[&str]) -> Result<Vec<Package>> {
    let kernel = output(apt("apt-cache").args(["depends", KERNEL]))?;
    let kernel = kernel_package(&kernel).with_context(|| format!("{KERNEL} depends on no kernel"))?;
    let names: Vec<&str> = names.iter().copied().chain([kernel.as_str()]).collect();
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

/// Unpacks `packages`, all over one another, below `root`; downloads those that are not in the cache.
///
/// # Errors
/// A package cannot be fetched or unpacked.
pub(super) fn unpack(packages: &[Package], root: &Path, step: &Step) -> Result<()> {
    let archives = paths::cache_directory().join(KIND);
    let _lock = cache::lock(&archives, "download")?;
    let missing: Vec<&Package> =
        packages.iter().filter(|package| archive(&archives, package).is_none()).collect();
    if !missing.is_empty() {
        download(&missing, &archives, step)?;
    }
    for package in packages {
        let archive = archive(&archives, package)
            .with_context(|| format!("apt-get fetched no {} {}", package.name, package.version))?;
        step.note(&format!("unpacking {}", archive.file_name().unwrap_or_default().to_string_lossy()));
        output(clean(Path::new("dpkg-deb")).arg("--extract").arg(&archive).arg(root))?;
    }
    Ok(())
}

/// The archive of `package` in `directory`: `NAME_VERSION_ARCHITECTURE.deb`, with a colon as `%3a`.
fn archive(directory: &Path, package: &Package) -> Option<PathBuf> {
    let start = format!("{}_{}_", package.name, package.version.replace(':', "%3a"));
    archives_of(directory, &start).into_iter().next()
}

/// The archives in `directory` whose names begin with `start`.
fn archives_of(directory: &Path, start: &str) -> Vec<PathBuf> {
    let is_one = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(start) && name.ends_with(".deb")
    };
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(is_one).collect()
}

/// Downloads `packages` beside `archives` first, so that what is in there is whole; other versions of them go.
fn download(packages: &[&Package], archives: &Path, step: &Step) -> Result<()> {
    let unfinished = archives.join("unfinished");
    cache::remove(&unfinished)?;
    fs::create_dir_all(&unfinished).with_context(|| format!("cannot create {}", unfinished.display()))?;
    let mut download = apt("apt-get");
    download.current_dir(&unfinished).arg("download");
    download.args(packages.iter().map(|package| format!("{}={}", package.name, package.version)));
    run_with_progress(&mut download, step, progress)?;
    for package in packages {
        for old in archives_of(archives, &format!("{}_", package.name)) {
            cache::remove(&old)?;
        }
        let new = archive(&unfinished, package)
            .with_context(|| format!("apt-get fetched no {} {}", package.name, package.version))?;
        let to = archives.join(new.file_name().unwrap_or_default());
        fs::rename(&new, &to).with_context(|| format!("cannot write {}", to.display()))?;
    }
    cache::remove(&unfinished)
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
    fn an_archive_is_known_by_name_and_version() {
        let scratch = crate::qemu::Scratch::new().unwrap();
        fs::write(scratch.0.join("libx_1%3a2-3_amd64.deb"), "").unwrap();
        let package = |name: &str, version: &str| Package { name: name.into(), version: version.into() };
        assert!(archive(&scratch.0, &package("libx", "1:2-3")).is_some());
        assert!(archive(&scratch.0, &package("libx", "1:2")).is_none());
        assert!(archive(&scratch.0, &package("lib", "1:2-3")).is_none());
    }

    #[test]
    fn versions_are_read_paragraph_by_paragraph() {
        let shown = "Package: a\nSource: b (9)\nVersion: 1:2-3\n\nPackage: c\nVersion: 4\n";
        let package = |name: &str, version: &str| Package { name: name.into(), version: version.into() };
        assert_eq!(versions(shown), [package("a", "1:2-3"), package("c", "4")]);
    }
}
