//! The parts of a rig, assembled once and kept in the cache.
//!
//! `<cache>/<kind>/<our files>-<versions>/` holds the parts and `versions` (where they come from). A rig made of the same
//! files of ours is used as it is, without a question to the network; remove the directory to get Debian's newest packages.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::debian::{self, Package};
use crate::host::cache;
use crate::host::paths;
use crate::host::progress::Step;

/// Digits of a digest that make up half of a key.
const DIGITS: usize = 12;
/// What every rig is made by.
const MAKERS: [&str; 6] = [
    include_str!("debian.rs"),
    include_str!("root.rs"),
    include_str!("cpio.rs"),
    include_str!("modules.rs"),
    include_str!("libraries.rs"),
    super::RIG,
];

/// How a rig is made.
pub(crate) struct Recipe {
    /// The directory of such rigs in the cache.
    pub(crate) kind: &'static str,
    /// Its name in words.
    pub(crate) name: &'static str,
    /// The packages it takes besides the kernel's.
    pub(crate) packages: &'static [&'static str],
    /// The texts of ours it is made of or made by.
    pub(crate) own: Vec<String>,
    /// Makes the parts in the second directory from packages unpacked in the first.
    pub(crate) assemble: fn(&Path, &Path) -> Result<()>,
}

/// How many rigs of a kind stay in the cache, for checkouts whose files differ.
const RIGS_KEPT: usize = 4;

/// An assembled rig.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    directory: PathBuf,
}

impl Recipe {
    /// The rig in the cache; assembles it first if it is not there.
    ///
    /// # Errors
    /// A package cannot be had.
    pub(crate) fn get(&self) -> Result<Parts> {
        if let Some(parts) = self.look() {
            return Ok(parts);
        }
        let packages = debian::candidates(self.packages)?;
        let key = format!("{}-{}", self.own_digest(), short(&versions(&packages)));
        let directory = cache::get_or_make(self.kind, &key, |directory| self.make(&packages, directory))?;
        cache::prune(self.kind, RIGS_KEPT);
        Ok(Parts { directory })
    }

    /// The newest rig in the cache that is made of our files as they are now.
    pub(crate) fn look(&self) -> Option<Parts> {
        let own = format!("{}-", self.own_digest());
        let entries = fs::read_dir(paths::cache_directory().join(self.kind)).ok()?;
        let rigs = entries.flatten().filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.starts_with(&own) && !name.contains('.')
        });
        let newest = rigs.max_by_key(|entry| entry.metadata().and_then(|found| found.modified()).ok())?;
        Some(Parts { directory: newest.path() })
    }

    fn make(&self, packages: &[Package], directory: &Path) -> Result<()> {
        let step = Step::new(format!("assembling {}", self.name));
        let root = directory.join("root");
        fs::create_dir_all(&root).with_context(|| format!("cannot create {}", root.display()))?;
        debian::unpack(packages, &root, &step)?;
        step.note("its root file system");
        (self.assemble)(&root, directory)?;
        let path = directory.join("versions");
        fs::write(&path, versions(packages)).with_context(|| format!("cannot write {}", path.display()))?;
        cache::remove(&root)
    }

    /// Stands for everything of ours that a rig is made of or made by.
    fn own_digest(&self) -> String {
        let own = self.own.iter().map(String::as_bytes);
        let parts: Vec<&[u8]> = own.chain(MAKERS.map(str::as_bytes)).collect();
        cache::digest(&parts)[..DIGITS].to_owned()
    }
}

impl Parts {
    /// Some that are not there, for their lines.
    #[cfg(test)]
    pub(crate) fn at(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// One part.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// What tells this rig from others.
    pub(crate) fn key(&self) -> String {
        self.directory.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The packages whose names begin with one of `names`, with their versions.
    ///
    /// # Errors
    /// The rig is damaged.
    pub(crate) fn versions(&self, names: &[&str]) -> Result<String> {
        let path = self.file("versions");
        let versions =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let is_named = |line: &&str| names.iter().any(|name| line.starts_with(name));
        Ok(versions.lines().filter(is_named).collect::<Vec<_>>().join(", "))
    }
}

/// The file in `directory` that begins with `start` and ends with `end`.
///
/// # Errors
/// There is none.
pub(crate) fn the_one_in(directory: &Path, start: &str, end: &str) -> Result<PathBuf> {
    let is_wanted = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(start) && name.ends_with(end)
    };
    let entries =
        fs::read_dir(directory).with_context(|| format!("no package brought {}", directory.display()))?;
    let found = entries.flatten().map(|entry| entry.path()).find(is_wanted);
    found.with_context(|| format!("no package brought {start}*{end} in {}", directory.display()))
}

fn versions(packages: &[Package]) -> String {
    packages.iter().map(|package| format!("{} {}\n", package.name, package.version)).collect()
}

fn short(text: &str) -> String {
    cache::digest(&[text.as_bytes()])[..DIGITS].to_owned()
}
