//! `matrix`: every virtio device over every transport with every ring, tried and printed as a table.

use std::env;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::host::paths;

/// Rows of the tests whose lines are the table's, and those of network cards, which need a network of their own.
const ROWS: &str = "matrix::";
const NET_ROWS: &str = "net::";

/// Runs the rows, and prints what each has told.
///
/// # Errors
/// Cargo cannot be started.
pub fn run() -> Result<u8> {
    let (text, status) = rows(ROWS)?;
    let mut table: Vec<&str> = text.lines().filter(|line| line.starts_with("| ")).collect();
    table.sort_unstable();
    println!(
        "| transport | ring | events | descriptors | disk: 4 MiB rewritten in blocks of 4 KiB | port: 64 KiB echoed |"
    );
    println!("|---|---|---|---|---|---|");
    table.iter().for_each(|line| println!("{line}"));
    let (net_text, net_status) = rows(NET_ROWS)?;
    let mut cards: Vec<_> = net_text.lines().filter_map(|line| line.split_once(": net: ")).collect();
    cards.sort_unstable();
    println!("\n| network card | frames |\n|---|---|");
    cards.iter().for_each(|(name, counts)| println!("| {name} | {counts} |"));
    for (text, status) in [(&text, status), (&net_text, net_status)] {
        if status != 0 {
            text.lines().filter(|line| !line.starts_with("| ")).for_each(|line| println!("{line}"));
        }
    }
    Ok(status.max(net_status))
}

/// What the rows whose names contain `filter` print, and cargo's exit status.
fn rows(filter: &str) -> Result<(String, u8)> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(&cargo);
    command.current_dir(paths::checkout()).args(["test", "-q", "-p", "runner", "--test", "vm", "--", filter]);
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot start {}", cargo.to_string_lossy()))?;
    let status = u8::try_from(output.status.code().unwrap_or(101)).unwrap_or(101);
    Ok((String::from_utf8_lossy(&output.stdout).into_owned(), status))
}
