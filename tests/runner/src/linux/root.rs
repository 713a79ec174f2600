//! A root file system in memory: programs with the libraries they need, modules, and our own first process.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::cpio::Archive;
use super::libraries::{self, Libraries};
use super::modules::Modules;

const LOADER: &str = "ld-linux-x86-64.so.2";
/// Asked for by name at run time: the C library ends a thread with the first.
const LOADED_LATER: [&str; 2] = ["libgcc_s.so.1", LOADER];
const LIBRARIES_IN: &str = "lib/x86_64-linux-gnu";
const DIRECTORIES: [&str; 6] = ["proc", "sys", "dev", "tmp", "guest", "root"];

/// A root file system under construction, from packages unpacked somewhere.
pub(crate) struct Root<'a> {
    packages: &'a Path,
    /// What is in it besides libraries.
    pub(crate) archive: Archive,
    libraries: Libraries,
}

impl<'a> Root<'a> {
    /// One with the directories and devices that every Linux needs.
    pub(crate) fn new(packages: &'a Path) -> Self {
        let mut archive = Archive::default();
        DIRECTORIES.iter().for_each(|directory| archive.directory(directory));
        archive.device("dev/console", 5, 1);
        archive.device("dev/null", 1, 3);
        Self { packages, archive, libraries: Libraries::new() }
    }

    /// Adds busybox, and its `applets` by name.
    ///
    /// # Errors
    /// No package brought it.
    pub(crate) fn busybox(&mut self, applets: &str) -> Result<()> {
        self.archive.file("bin/busybox", 0o755, read(self.packages, "bin/busybox")?);
        for applet in applets.split_ascii_whitespace() {
            self.archive.link(&format!("bin/{applet}"), "busybox");
        }
        Ok(())
    }

    /// Adds a program of a package, at the place `to`, and the libraries it needs.
    ///
    /// # Errors
    /// No package brought it or one of the libraries.
    pub(crate) fn program(&mut self, from: &str, to: &str) -> Result<()> {
        self.program_below(self.packages, from, to)
    }

    /// As [`Self::program`], but program and libraries come from below `root`.
    ///
    /// # Errors
    /// It or one of the libraries is not there.
    pub(crate) fn program_below(&mut self, root: &Path, from: &str, to: &str) -> Result<()> {
        let data = read(root, from)?;
        let mut needed = libraries::needed(&data).with_context(|| format!("{from} is no program"))?;
        needed.extend(LOADED_LATER.map(str::to_owned));
        libraries::close(root, needed, &mut self.libraries)?;
        self.archive.file(to, 0o755, data);
        Ok(())
    }

    /// Adds modules, what they depend on, and the file `lib/modules/order` that lists them for `insmod`.
    ///
    /// # Errors
    /// The kernel's package has no such module.
    pub(crate) fn modules(&mut self, names: &[&str]) -> Result<()> {
        let modules = Modules::below(&self.packages.join("lib/modules"))?.in_order(names)?;
        let mut order = String::new();
        for module in modules {
            order.extend([module.name.as_str(), "\n"]);
            self.archive.file(&format!("lib/modules/{}.ko", module.name), 0o644, module.data);
        }
        self.archive.file("lib/modules/order", 0o644, order.into_bytes());
        Ok(())
    }

    /// The archive that Linux unpacks.
    pub(crate) fn bytes(mut self) -> Vec<u8> {
        for (name, data) in self.libraries {
            self.archive.file(&format!("{LIBRARIES_IN}/{name}"), 0o755, data);
        }
        self.archive.link(&format!("lib64/{LOADER}"), &format!("/{LIBRARIES_IN}/{LOADER}"));
        self.archive.file("lib/rig.sh", 0o644, super::RIG.into());
        self.archive.bytes()
    }
}

fn read(root: &Path, path: &str) -> Result<Vec<u8>> {
    let path = root.join(path);
    fs::read(&path).with_context(|| format!("{} is not there", path.display()))
}
