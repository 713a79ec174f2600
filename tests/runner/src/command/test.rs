//! `test`: all tests of the workspace, by the cargo that runs us.

use std::env;
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

use crate::host::paths;

/// Which tests.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Only tests whose name contains this
    pub filter: Option<String>,
}

/// Runs `cargo test`.
///
/// # Errors
/// Cargo cannot be started.
pub fn run(arguments: &Arguments) -> Result<u8> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(&cargo);
    command.current_dir(paths::checkout()).arg("test").args(&arguments.filter);
    let status = command.status().with_context(|| format!("cannot start {}", cargo.to_string_lossy()))?;
    Ok(u8::try_from(status.code().unwrap_or(101)).unwrap_or(101))
}
