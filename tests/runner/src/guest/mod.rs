//! A guest: an application linked with the kernel into one ELF file, and what is done to it after linking.
//!
//! Neighbours: `manifest` (what its `Cargo.toml` asks for), `elf` (the rewritten file), `symbols` (the table in it).

pub mod bare;
pub mod elf;
mod manifest;
pub mod symbols;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::host::cache;
use crate::host::paths::{self, GUEST_TARGET};
use crate::host::process::run_with_progress;
use crate::host::progress::Step;
use crate::toolchain::Toolchain;

pub use manifest::served_ports;

const QUICK: &str = "quick";

/// A built guest. Its SHA-256 is its identity: every way in boots exactly these bytes.
#[derive(Clone, Debug)]
pub struct Guest {
    /// The binary's name.
    pub name: String,
    /// The ELF file that boots: symbol table filled in, everything else that is not loaded stripped.
    pub elf: PathBuf,
    /// The same program as the linker left it, for gdb and for looking into.
    pub debug: PathBuf,
    /// SHA-256 of `elf`, in hex.
    pub sha256: String,
}

/// How a guest is compiled: by which profile of the workspace's `Cargo.toml`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// As it ships and as it is tested: small, or fast if its manifest says so.
    #[default]
    Release,
    /// While it is being written: compiled again within seconds, somewhat larger.
    Quick,
}

impl Profile {
    /// The name that `package` is compiled with, which is also that of cargo's output directory.
    fn name(self, package: &str) -> Result<&'static str> {
        Ok(match self {
            Self::Release if manifest::ships_fast(package)? => "fast",
            Self::Release => "release",
            Self::Quick => QUICK,
        })
    }

    /// Where finished guests go.
    fn output_directory(self) -> PathBuf {
        match self {
            Self::Release => paths::output_directory(),
            Self::Quick => paths::output_directory().join(QUICK),
        }
    }
}

/// Builds the binary `name` of the workspace for the guest target and finishes its ELF.
///
/// # Errors
/// It does not compile or link; the message is the compiler's.
pub fn build(toolchain: &Toolchain, name: &str, profile: Profile) -> Result<Guest> {
    let mut guests = build_package(toolchain, &package_of(name)?, &[name], profile)?;
    guests.pop().with_context(|| format!("{name} was not built"))
}

/// Builds several binaries as they ship, those of one package together. Packages go one by one: cargo would otherwise give all of
/// them the features that one of them asks for.
///
/// # Errors
/// One of them does not compile or link.
pub fn build_all(toolchain: &Toolchain, names: &[&str]) -> Result<Vec<Guest>> {
    let mut packages: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for name in names {
        packages.entry(package_of(name)?).or_default().push(name);
    }
    let built =
        packages.iter().map(|(package, names)| build_package(toolchain, package, names, Profile::Release));
    Ok(built.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

fn build_package(
    toolchain: &Toolchain,
    package: &str,
    names: &[&str],
    profile: Profile,
) -> Result<Vec<Guest>> {
    let profile_name = profile.name(package)?;
    {
        let step = Step::new(format!("building {}", names.join(" ")));
        let mut cargo = toolchain.cargo();
        cargo.current_dir(paths::checkout()).args(["build", "--target", GUEST_TARGET]);
        cargo.args(["--profile", profile_name]);
        cargo.args(["--package", package]).args(names.iter().flat_map(|name| ["--bin", name]));
        let said = run_with_progress(&mut cargo, &step, crate::toolchain::compiling)?;
        if said.contains("warning:") {
            step.clear();
            eprintln!("{}", said.trim_end());
        }
    }
    let linked = paths::target_directory().join(GUEST_TARGET).join(profile_name);
    let out = profile.output_directory();
    fs::create_dir_all(&out).with_context(|| format!("cannot create {}", out.display()))?;
    names.iter().map(|name| finish(name, &linked.join(name), &out)).collect()
}

/// Fills the symbol table, strips, and writes `<name>.elf` and `<name>.debug` to `out`.
///
/// # Errors
/// The linked file is not a guest.
pub fn finish(name: &str, linked: &Path, out: &Path) -> Result<Guest> {
    let bytes = fs::read(linked).with_context(|| format!("cannot read {}", linked.display()))?;
    let finished = elf::finish(&bytes).with_context(|| format!("{} is not a guest", linked.display()))?;
    let (elf, debug) = (out.join(format!("{name}.elf")), out.join(format!("{name}.debug")));
    write_if_new(&elf, &finished)?;
    write_if_new(&debug, &bytes)?;
    Ok(Guest { name: name.to_owned(), elf, debug, sha256: cache::sha256(&finished) })
}

/// Another invocation may be booting the file: it is replaced in one step, and only when it changes.
fn write_if_new(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let unfinished = path.with_extension(format!("new{}", std::process::id()));
    fs::write(&unfinished, bytes).with_context(|| format!("cannot write {}", unfinished.display()))?;
    fs::rename(&unfinished, path).with_context(|| format!("cannot write {}", path.display()))
}

/// The package a guest's binary is in: an application's, or the one of the kernels under `tests/kernels`.
fn package_of(name: &str) -> Result<String> {
    let root = paths::checkout();
    let is_package = |directory: &str| root.join(directory).join(name).join("Cargo.toml").is_file();
    if is_package("apps") || is_package("tests/kernels") {
        return Ok(name.to_owned());
    }
    for entry in fs::read_dir(root.join("tests/kernels"))?.flatten() {
        if entry.path().join("src/bin").join(format!("{name}.rs")).is_file() {
            return Ok(entry.file_name().to_string_lossy().into_owned());
        }
    }
    bail!("there is no guest called {name:?}; there are: {}", all().join(", "))
}

/// The names of all guests in the checkout.
pub fn all() -> Vec<String> {
    let root = paths::checkout();
    let mut names = Vec::new();
    for directory in ["apps", "tests/kernels"] {
        for entry in fs::read_dir(root.join(directory)).into_iter().flatten().flatten() {
            let package = entry.path();
            if package.join("src/main.rs").is_file() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
            for bin in fs::read_dir(package.join("src/bin")).into_iter().flatten().flatten() {
                names.extend(bin.path().file_stem().map(|stem| stem.to_string_lossy().into_owned()));
            }
        }
    }
    names.sort();
    names
}
