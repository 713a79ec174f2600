//! Finds, or makes, a compiler that can build guests; knows how to call its cargo.
//!
//! In this order: the active toolchain if it ships the target; the active toolchain's own library source, built once
//! into a private sysroot; the distribution's compiler with its library source, likewise. Rustup is never called.
//! Neighbours: `select` (which one), `sysroot` (making one).

mod select;
mod sysroot;

pub use sysroot::compiling;

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

pub use select::{Candidate, Choice, Kind, Refusal, Version};

use crate::host::packages::{self, CLIPPY, LLD, LLVM, RUST};
use crate::host::process::{clean, output};
use crate::host::{cache, paths};

/// A compiler that builds for [`paths::GUEST_TARGET`], and its cargo.
#[derive(Clone, Debug)]
pub struct Toolchain {
    /// Where it comes from, in words.
    pub origin: &'static str,
    /// Whether it is used as it is or through a private sysroot.
    pub kind: Kind,
    /// The compiler to give to cargo.
    pub rustc: PathBuf,
    /// The cargo that belongs to it.
    pub cargo: PathBuf,
    /// `lib/rustlib` of this directory has the target.
    pub sysroot: PathBuf,
    /// What the compiler says of itself: release and commit, for example `1.96.0-ac68faa20`.
    pub id: String,
}

impl Toolchain {
    /// Finds a toolchain; makes the private sysroot or installs the distribution's compiler if that is what it takes.
    ///
    /// # Errors
    /// There is none and none can be installed: the message tells what was found and what to do.
    pub fn find() -> Result<Self> {
        match select::choose(&candidates()) {
            Ok(choice) => Self::prepare(choice),
            Err(refusals) => {
                if let Err(error) = packages::require(&RUST) {
                    bail!("{}\n{error:#}", no_toolchain(&refusals));
                }
                match select::choose(&candidates()) {
                    Ok(choice) => Self::prepare(choice),
                    Err(refusals) => bail!(no_toolchain(&refusals)),
                }
            }
        }
    }

    /// What [`Toolchain::find`] would take, without making or installing anything.
    ///
    /// # Errors
    /// Why each candidate is refused.
    pub fn look() -> Result<Choice, Vec<Refusal>> {
        select::choose(&candidates())
    }

    fn prepare(choice: Choice) -> Result<Self> {
        let Choice { candidate, kind } = choice;
        let bin = candidate.sysroot.join("bin");
        let cargo = Some(bin.join("cargo")).filter(|cargo| cargo.exists());
        let cargo =
            cargo.or_else(|| env::var_os("CARGO").map(PathBuf::from)).unwrap_or_else(|| "cargo".into());
        let id = candidate.version.id();
        let sysroot = match kind {
            Kind::Prebuilt => candidate.sysroot.clone(),
            Kind::PrivateSysroot => {
                if !sysroot::has_own_linker(&candidate.sysroot) {
                    packages::require(&[LLD])?;
                }
                sysroot::get_or_make(&candidate, &id, &cargo)?
            }
        };
        let rustc = sysroot.join("bin/rustc");
        Ok(Self { origin: candidate.name, kind, rustc, cargo, sysroot, id })
    }

    /// Cargo for guests: stable features only.
    pub fn cargo(&self) -> Command {
        let mut command = clean(&self.cargo);
        self.set_compiler(&mut command);
        command
    }

    fn set_compiler(&self, command: &mut Command) {
        command.env("RUSTC", &self.rustc);
        let crates = paths::cargo_home().map(|home| home.join("registry/src"));
        let mut flags = crates.map_or(String::new(), |place| sysroot::remap(&place, "crates"));
        if let Some(identity) = sysroot::read_identity(&self.sysroot) {
            // So that cargo knows one sysroot's programs from another's.
            flags += &format!(" -Cmetadata={identity}");
        }
        // Added to the flags in .cargo/config.toml.
        command.env("CARGO_TARGET_X86_64_UNKNOWN_NONE_RUSTFLAGS", flags);
    }

    /// Cargo for the `bootloader` crate, whose build script calls cargo with unstable options.
    ///
    /// # Errors
    /// The library source or the object tools it needs are missing.
    pub fn cargo_for_bootloader(&self) -> Result<Command> {
        if !select::has_source(&self.sysroot) {
            bail!(
                "BIOS and UEFI images need the Rust library source, which the {} toolchain at {} lacks: \
                 `rustup component add rust-src llvm-tools`",
                self.origin,
                self.sysroot.display()
            );
        }
        if !sysroot::has_own_object_tools(&self.sysroot) {
            packages::require(&[LLVM])?;
            sysroot::link_object_tools(&self.sysroot)?;
        }
        let mut command = self.cargo();
        command.env("RUSTC_BOOTSTRAP", "1");
        // The crate `llvm_tools` asks the `rustc` in PATH, not `$RUSTC`, for its sysroot.
        let path = env::var_os("PATH").unwrap_or_default();
        let first = std::iter::once(self.sysroot.join("bin"));
        command.env("PATH", env::join_paths(first.chain(env::split_paths(&path)))?);
        Ok(command)
    }

    /// `cargo clippy` with the clippy that matches the guest compiler.
    ///
    /// # Errors
    /// There is none and it cannot be installed.
    pub fn clippy(&self) -> Result<Command> {
        let beside = self.cargo.with_file_name("cargo-clippy");
        if !beside.exists() {
            if self.cargo.parent() != Some(Path::new("/usr/bin")) {
                bail!("no clippy at {}: `rustup component add clippy`", beside.display());
            }
            packages::require(&[CLIPPY])?;
        }
        // Called directly: `cargo clippy` would take the one in ~/.cargo/bin, of another compiler.
        let mut command = clean(&beside);
        command
            .env("CARGO", &self.cargo)
            .env("RUSTC", &self.rustc)
            .env("SYSROOT", &self.sysroot)
            .arg("clippy");
        Ok(command)
    }
}

/// The compilers worth a look, best first.
fn candidates() -> Vec<Candidate> {
    let found = |name, sysroot: PathBuf| {
        let rustc = sysroot.join("bin/rustc");
        let version = rustc.is_file().then(|| version(&rustc)).and_then(Result::ok).unwrap_or_default();
        Candidate { name, sysroot, version }
    };
    if let Some(named) = env::var_os("PLIANT_RUSTC").map(PathBuf::from) {
        let sysroot = named.ancestors().nth(2).unwrap_or(Path::new("/")).to_owned();
        return vec![found("PLIANT_RUSTC", sysroot)];
    }
    let mut candidates = Vec::new();
    if let Some(sysroot) = active_sysroot() {
        candidates.push(found("active", sysroot));
    }
    if candidates.iter().all(|candidate| candidate.sysroot != Path::new("/usr")) {
        candidates.push(found("distribution", PathBuf::from("/usr")));
    }
    candidates
}

/// The sysroot of the toolchain that runs us: two levels above the cargo that started this program.
fn active_sysroot() -> Option<PathBuf> {
    let by_cargo = env::var_os("CARGO").map(PathBuf::from).and_then(|cargo| {
        let sysroot = cargo.ancestors().nth(2)?.to_owned();
        sysroot.join("lib/rustlib").is_dir().then_some(sysroot)
    });
    by_cargo.or_else(|| {
        // Started without cargo. `rustc` may be rustup's proxy: it must not install anything.
        let mut ask = clean(Path::new("rustc"));
        ask.env("RUSTUP_AUTO_INSTALL", "0").args(["--print", "sysroot"]);
        output(&mut ask).ok().map(PathBuf::from)
    })
}

/// What `rustc -vV` says, remembered for as long as the file stays the same.
fn version(rustc: &Path) -> Result<Version> {
    use std::os::unix::fs::MetadataExt;
    let stat = std::fs::metadata(rustc)?;
    let state = format!("{} {} {} {}", rustc.display(), stat.len(), stat.mtime(), stat.mtime_nsec());
    let key = &cache::digest(&[state.as_bytes()])[..16];
    let file = cache::get_or_make("rustc-versions", key, |path| {
        let said = output(clean(rustc).arg("-vV"))?;
        Ok(std::fs::write(path, said)?)
    })?;
    Version::parse(&std::fs::read_to_string(file)?)
}

fn no_toolchain(refusals: &[Refusal]) -> String {
    let target = paths::GUEST_TARGET;
    let found: Vec<String> = refusals.iter().map(|refusal| format!("  {refusal}")).collect();
    format!(
        "no Rust toolchain here can build for {target}:\n{}\nDo one of:\n  rustup target add {target}\n  \
         rustup component add rust-src\n  apt-get install rustc-web cargo-web rust-web-src lld   (Debian 12)",
        found.join("\n")
    )
}
