//! Our own machine monitor (tests/vmm): built once, as a static program that runs in any Linux.

use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::{Result, anyhow};

use crate::host::paths;
use crate::host::process::run_with_progress;
use crate::host::progress::Step;
use crate::toolchain::{self, Toolchain};

/// The target it is built for; named, so that its flags are not those of build scripts.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// The profile it is built with: quickly.
const PROFILE: &str = "quick";
const FLAGS: [&str; 2] =
    ["CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", "-Ctarget-feature=+crt-static -Cstrip=symbols"];

/// Where it is; builds it first if it is not there or not new.
///
/// # Errors
/// It does not compile.
pub(crate) fn get() -> Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    built.clone().map_err(|error| anyhow!(error))
}

fn build() -> Result<PathBuf> {
    let toolchain = Toolchain::find()?;
    let step = Step::new("building the machine monitor");
    let mut cargo = toolchain.cargo();
    cargo.current_dir(paths::checkout()).args(["build", "--package", "monitor", "--target", TARGET]);
    cargo.args(["--profile", PROFILE]).env(FLAGS[0], FLAGS[1]);
    run_with_progress(&mut cargo, &step, toolchain::compiling)?;
    Ok(paths::target_directory().join(TARGET).join(PROFILE).join("vmm"))
}
