//! `matrix`: every virtio device over every transport with every ring, tried and printed as a table.

use std::env;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::host::paths;

/// Rows of the tests whose lines are the table's.
const ROWS: &str = "matrix::";

/// Runs the rows, and prints what each has told.
///
/// # Errors
/// Cargo cannot be started.
pub fn run() -> Result<u8> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(&cargo);
    command.current_dir(paths::checkout()).args(["test", "-q", "-p", "runner", "--test", "vm", "--", ROWS]);
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot start {}", cargo.to_string_lossy()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut table: Vec<&str> = text.lines().filter(|line| line.starts_with("| ")).collect();
    table.sort_unstable();
    println!(
        "| transport | ring | events | descriptors | disk: 4 MiB rewritten in blocks of 4 KiB | port: 64 KiB echoed |"
    );
    println!("|---|---|---|---|---|---|");
    table.iter().for_each(|line| println!("{line}"));
    if !output.status.success() {
        text.lines().filter(|line| !line.starts_with("| ")).for_each(|line| println!("{line}"));
    }
    Ok(u8::try_from(output.status.code().unwrap_or(101)).unwrap_or(101))
}
