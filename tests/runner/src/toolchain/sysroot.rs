//! A private sysroot: links into a real one, plus `core` and `alloc` built once for the guest target.
//!
//! `-Zbuild-std` and `RUSTC_BOOTSTRAP` are used here and nowhere else for guests: from then on the compiler itself
//! rejects unstable features, and a kernel is built with plain cargo.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::Candidate;
use crate::host::cache;
use crate::host::paths::{self, GUEST_TARGET, in_path};
use crate::host::process::{clean, run_with_progress};
use crate::host::progress::Step;

/// The file in a private sysroot that holds its libraries' identity.
const IDENTITY: &str = "identity";
const OBJECT_TOOLS: [&str; 7] =
    ["llvm-ar", "llvm-nm", "llvm-objcopy", "llvm-objdump", "llvm-readobj", "llvm-size", "llvm-strip"];

/// A crate whose only job is to make cargo build `core` and `alloc`; the profile is the one of the guests, save for
/// the copying of memory, which is small anyway.
const SEED_MANIFEST: &str = "\
[package]
name = \"seed\"
version = \"0.0.0\"
edition = \"2021\"
[lib]
[workspace]
[profile.release]
panic = \"abort\"
opt-level = \"s\"
debug = 1
[profile.release.package.compiler_builtins]
opt-level = 3
";
const SEED_SOURCE: &str = "#![no_std]\nextern crate alloc;\n";
/// Without bitcode in the libraries, guests could not be optimised across crates when they are linked.
const SEED_FLAGS: &str = "-Cforce-frame-pointers=yes -Cembed-bitcode=yes";
/// Of the library's two bodies for one thing, the smaller.
const SEED_FEATURES: &str = "-Zbuild-std-features=optimize_for_size";

/// The sysroot in the cache for this compiler, made if it is not there (about 30 s).
///
/// # Errors
/// The library source does not compile, or the cache cannot be written.
pub(super) fn get_or_make(candidate: &Candidate, id: &str, cargo: &Path) -> Result<PathBuf> {
    let recipe = cache::digest(&[SEED_MANIFEST, SEED_SOURCE, SEED_FLAGS, SEED_FEATURES].map(str::as_bytes));
    let key = format!("{id}-{}", &recipe[..8]);
    let done = paths::cache_directory().join("sysroot").join(&key);
    cache::get_or_make("sysroot", &key, |unfinished| {
        let step = Step::new(format!("building core and alloc for {GUEST_TARGET} (once, about 30 s)"));
        make(candidate, cargo, unfinished, &step)?;
        // The compiler script holds its own place.
        write_compiler(unfinished, &candidate.sysroot, &done)
    })
    .with_context(|| format!("cannot make a sysroot for {GUEST_TARGET} from {}", candidate.sysroot.display()))
}

fn make(candidate: &Candidate, cargo: &Path, sysroot: &Path, step: &Step) -> Result<()> {
    let real = candidate.sysroot.join("lib/rustlib");
    let host = &candidate.version.host;
    let own = sysroot.join("lib/rustlib");
    fs::create_dir_all(own.join(host).join("bin"))?;
    fs::create_dir_all(sysroot.join("bin"))?;
    symlink(real.join("src"), own.join("src"))?;
    symlink(real.join(host).join("lib"), own.join(host).join("lib"))?;
    // `lld` is the generic driver: the compiler passes `-flavor gnu`.
    let Some(linker) = own_linker(&candidate.sysroot, host).or_else(|| in_path("lld")) else {
        bail!("no rust-lld in {} and no lld in PATH", real.display());
    };
    symlink(linker, own.join(host).join("bin/rust-lld"))?;
    write_compiler(sysroot, &candidate.sysroot, sysroot)?;

    let seed = sysroot.join("seed");
    fs::create_dir_all(seed.join("src"))?;
    fs::write(seed.join("Cargo.toml"), SEED_MANIFEST)?;
    fs::write(seed.join("src/lib.rs"), SEED_SOURCE)?;
    let mut build = clean(cargo);
    build
        .current_dir(&seed)
        .env("RUSTC", sysroot.join("bin/rustc"))
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_DIR", seed.join("target"))
        // The environment outranks every config file between here and the root directory.
        .env("RUSTFLAGS", format!("{SEED_FLAGS} {}", remap(&own.join("src/rust"), "rust")))
        .args(["build", "--release", "-Zbuild-std=core,alloc", SEED_FEATURES, "--target", GUEST_TARGET]);
    let vendored = real.join("src/rust/library/vendor");
    if vendored.is_dir() {
        build.args(["--config", r#"source.crates-io.replace-with="pliant-vendored""#, "--config"]);
        build.arg(format!(r#"source.pliant-vendored.directory="{}""#, vendored.display()));
    }
    run_with_progress(&mut build, step, compiling)?;

    let libraries = own.join(GUEST_TARGET).join("lib");
    fs::create_dir_all(&libraries)?;
    for entry in fs::read_dir(seed.join("target").join(GUEST_TARGET).join("release/deps"))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".rlib") && !name.starts_with("libseed") {
            fs::copy(entry.path(), libraries.join(&name))?;
        }
    }
    cache::remove(&seed)?;
    fs::write(sysroot.join(IDENTITY), identity(&libraries)?)?;
    link_object_tools(sysroot)
}

/// The compiler's flag that writes `short` instead of `place` into programs: their panics name their sources, and the
/// same sources shall make the same program wherever they are. None where it could not be told from its neighbours.
pub(super) fn remap(place: &Path, short: &str) -> String {
    let place = place.display().to_string();
    if place.contains(char::is_whitespace) {
        return String::new();
    }
    format!("--remap-path-prefix={place}={short}")
}

/// What tells these libraries from others under the same names. Cargo does not look into a sysroot: it would offer a
/// program that was compiled against other libraries as fresh, and the compiler would refuse it.
fn identity(libraries: &Path) -> Result<String> {
    let mut files: Vec<_> = fs::read_dir(libraries)?.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let digests = files.iter().map(|file| cache::file_sha256(file)).collect::<Result<Vec<_>>>()?;
    Ok(cache::sha256(digests.concat().as_bytes())[..16].to_owned())
}

/// The identity of a private sysroot's libraries; none for other sysroots, which change with their compiler.
pub(super) fn read_identity(sysroot: &Path) -> Option<String> {
    fs::read_to_string(sysroot.join(IDENTITY)).ok()
}

/// Writes `bin/rustc` into `sysroot`: the real compiler, told that `place` is its sysroot.
fn write_compiler(sysroot: &Path, real: &Path, place: &Path) -> Result<()> {
    let script = sysroot.join("bin/rustc");
    let real = real.join("bin/rustc");
    let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
    fs::write(&script, format!("#!/bin/sh\nexec {} --sysroot {} \"$@\"\n", quoted(&real), quoted(place)))?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// The name of the crate that cargo says it compiles.
pub fn compiling(line: &str) -> Option<String> {
    let at = line.find("Compiling ").or_else(|| line.find("Installing "))?;
    Some(line[at..].split_whitespace().take(3).collect::<Vec<_>>().join(" "))
}

/// Whether the toolchain has its own linker.
pub(super) fn has_own_linker(sysroot: &Path) -> bool {
    host_tools(sysroot).iter().any(|bin| bin.join("rust-lld").exists())
}

/// Whether `rustc --print sysroot` leads to the object tools that the `bootloader` crate looks for.
pub(super) fn has_own_object_tools(sysroot: &Path) -> bool {
    host_tools(sysroot).iter().any(|bin| bin.join("llvm-objcopy").exists())
}

/// Links the object tools found in `PATH` into a private sysroot.
///
/// # Errors
/// The sysroot cannot be written.
pub(super) fn link_object_tools(sysroot: &Path) -> Result<()> {
    for bin in host_tools(sysroot) {
        for tool in OBJECT_TOOLS {
            if let Some(found) = in_path(tool).filter(|_| !bin.join(tool).exists()) {
                cache::remove(&bin.join(tool))?;
                symlink(found, bin.join(tool))?;
            }
        }
    }
    Ok(())
}

fn own_linker(sysroot: &Path, host: &str) -> Option<PathBuf> {
    Some(sysroot.join("lib/rustlib").join(host).join("bin/rust-lld")).filter(|path| path.exists())
}

/// `lib/rustlib/*/bin` of a sysroot.
fn host_tools(sysroot: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(sysroot.join("lib/rustlib"));
    let entries = entries.into_iter().flatten().flatten();
    entries.map(|entry| entry.path().join("bin")).filter(|bin| bin.is_dir()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_names_the_crate() {
        assert_eq!(
            compiling("   Compiling core v0.0.0 (/usr/lib/...)").as_deref(),
            Some("Compiling core v0.0.0")
        );
        let inner = "[bootloader 0.11.15]    Compiling x86_64 v0.15.2";
        assert_eq!(compiling(inner).as_deref(), Some("Compiling x86_64 v0.15.2"));
        assert_eq!(compiling("     Running `rustc --crate-name core`"), None);
    }
}
