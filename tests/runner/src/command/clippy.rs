//! `clippy`: lints the guest crates for the guest target, with the clippy of the compiler that builds them.

use anyhow::{Context, Result};
use clap::Args;

use crate::host::paths::{self, GUEST_TARGET};
use crate::toolchain::Toolchain;

/// What goes to clippy.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Arguments for clippy's lints, for example `-D warnings`
    #[arg(last = true)]
    pub lints: Vec<String>,
}

/// Runs clippy over everything that is linked into guests.
///
/// # Errors
/// There is no clippy for the guest compiler and it cannot be installed.
pub fn run(arguments: &Arguments) -> Result<u8> {
    let toolchain = Toolchain::find()?;
    let mut clippy = toolchain.clippy()?;
    clippy.current_dir(paths::checkout());
    clippy.args([
        "--workspace",
        "--exclude",
        "runner",
        "--exclude",
        "monitor",
        "--release",
        "--target",
        GUEST_TARGET,
        "--",
    ]);
    clippy.args(&arguments.lints);
    let status = clippy.status().context("cannot start clippy")?;
    Ok(u8::try_from(status.code().unwrap_or(101)).unwrap_or(101))
}
