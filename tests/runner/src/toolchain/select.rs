//! Which of the compilers on this machine builds the guests: decided by looking at files only.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::host::paths::GUEST_TARGET;

/// The oldest release whose stable features suffice: naked functions, and what the crates we use ask for.
const OLDEST: (u32, u32) = (1, 91);

/// A compiler found on this machine.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Where it comes from, in one word.
    pub name: &'static str,
    /// The directory with `bin/rustc` and `lib/rustlib`.
    pub sysroot: PathBuf,
    /// What it says of itself; the default when it cannot be asked.
    pub version: Version,
}

/// What `rustc -vV` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// For example `1.96.0`.
    pub release: String,
    /// The commit it was built from, or empty.
    pub commit: String,
    /// The target it runs on.
    pub host: String,
}

/// How a chosen compiler is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It ships the guest target.
    Prebuilt,
    /// It has the library source: `core` and `alloc` are built from it once.
    PrivateSysroot,
}

/// The compiler that builds the guests.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The compiler.
    pub candidate: Candidate,
    /// How it is used.
    pub kind: Kind,
}

/// Why a compiler cannot build guests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    name: &'static str,
    sysroot: PathBuf,
    why: String,
}

/// Takes the first usable candidate; one that ships the target wins over one of the same origin that must be completed.
///
/// # Errors
/// No candidate is usable: the reason for each.
pub(super) fn choose(candidates: &[Candidate]) -> Result<Choice, Vec<Refusal>> {
    let mut refusals = Vec::new();
    for candidate in candidates {
        match suits(candidate) {
            Ok(kind) => return Ok(Choice { candidate: candidate.clone(), kind }),
            Err(why) => {
                refusals.push(Refusal { name: candidate.name, sysroot: candidate.sysroot.clone(), why });
            }
        }
    }
    Err(refusals)
}

fn suits(candidate: &Candidate) -> Result<Kind, String> {
    if !candidate.sysroot.join("bin/rustc").exists() {
        return Err("has no bin/rustc".into());
    }
    match candidate.version.major_minor() {
        None => return Err("does not tell its version".into()),
        Some(found) if found < OLDEST => {
            return Err(format!("is {}, older than {}.{}", candidate.version.release, OLDEST.0, OLDEST.1));
        }
        Some(_) => {}
    }
    if has_target(&candidate.sysroot) {
        Ok(Kind::Prebuilt)
    } else if has_source(&candidate.sysroot) {
        Ok(Kind::PrivateSysroot)
    } else {
        Err(format!("has neither the target {GUEST_TARGET} nor the library source"))
    }
}

/// Whether the sysroot holds a compiled `core` for guests.
pub(super) fn has_target(sysroot: &Path) -> bool {
    let libraries = sysroot.join("lib/rustlib").join(GUEST_TARGET).join("lib");
    std::fs::read_dir(libraries).is_ok_and(|entries| {
        entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
    })
}

/// Whether the sysroot holds the source of `core`.
pub(super) fn has_source(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/Cargo.lock").exists()
}

impl Version {
    /// Reads the output of `rustc -vV`.
    ///
    /// # Errors
    /// A line that is needed is not there.
    pub fn parse(text: &str) -> Result<Self> {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        Ok(Self {
            release: field("release:").context("rustc -vV names no release")?.to_owned(),
            host: field("host:").context("rustc -vV names no host")?.to_owned(),
            commit: field("commit-hash:").filter(|hash| *hash != "unknown").unwrap_or_default().to_owned(),
        })
    }

    /// A file name for everything that depends on this very compiler.
    pub fn id(&self) -> String {
        let commit: String = self.commit.chars().take(9).collect();
        if commit.is_empty() { self.release.clone() } else { format!("{}-{commit}", self.release) }
    }

    fn major_minor(&self) -> Option<(u32, u32)> {
        let mut parts = self.release.split('.');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {}", self.name, self.sysroot.display(), self.why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A directory tree that looks like a toolchain; removed at the end of the test.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("pliant-select-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&root);
            Self(root).with("bin/rustc")
        }
        fn with(self, file: &str) -> Self {
            let path = self.0.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
            self
        }
        fn with_target(self) -> Self {
            self.with("lib/rustlib/x86_64-unknown-none/lib/libcore-0123.rlib")
        }
        fn with_source(self) -> Self {
            self.with("lib/rustlib/src/rust/library/Cargo.lock")
        }
        fn named(&self, name: &'static str, release: &str) -> Candidate {
            let version = Version { release: release.into(), ..Version::default() };
            Candidate { name, sysroot: self.0.clone(), version }
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_active_toolchain_is_taken_as_it_is_when_it_ships_the_target() {
        let active = Tree::new("prebuilt").with_target().with_source();
        let distribution = Tree::new("prebuilt-d").with_target();
        let choice =
            choose(&[active.named("active", "1.95.0"), distribution.named("distribution", "1.96.0")])
                .unwrap();
        assert_eq!((choice.candidate.name, choice.kind), ("active", Kind::Prebuilt));
    }

    #[test]
    fn library_source_is_the_second_best() {
        let active = Tree::new("source").with_source();
        let distribution = Tree::new("source-d").with_target();
        let choice =
            choose(&[active.named("active", "1.95.0"), distribution.named("distribution", "1.96.0")])
                .unwrap();
        assert_eq!((choice.candidate.name, choice.kind), ("active", Kind::PrivateSysroot));
    }

    #[test]
    fn a_bare_active_toolchain_leaves_the_distributions() {
        let active = Tree::new("bare");
        let distribution = Tree::new("bare-d").with_source();
        let choice =
            choose(&[active.named("active", "1.95.0"), distribution.named("distribution", "1.96.0")])
                .unwrap();
        assert_eq!((choice.candidate.name, choice.kind), ("distribution", Kind::PrivateSysroot));
    }

    #[test]
    fn refusals_say_why() {
        let old = Tree::new("old").with_target();
        let gone = Candidate { name: "active", sysroot: "/nowhere".into(), version: Version::default() };
        let refusals = choose(&[gone, old.named("distribution", "1.85.0")]).unwrap_err();
        let text: Vec<String> = refusals.iter().map(ToString::to_string).collect();
        assert_eq!(text[0], "active: /nowhere has no bin/rustc");
        assert!(text[1].ends_with("is 1.85.0, older than 1.91"), "{}", text[1]);
    }

    #[test]
    fn versions_name_compiler_builds_apart() {
        let said = "rustc 1.96.0 (ac68faa20 2026-05-25)\ncommit-hash: ac68faa20c58cbcc\nhost: x86_64-unknown-linux-gnu\nrelease: 1.96.0\n";
        let version = Version::parse(said).unwrap();
        assert_eq!(version.id(), "1.96.0-ac68faa20");
        assert_eq!(version.host, "x86_64-unknown-linux-gnu");
        assert!(Version::parse("rustc 1.96.0").is_err());
    }
}
