//! `size`: what a guest's ELF is made of, and whether it keeps the budget.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::guest::elf::{Item, Linked, SYMBOLS};
use crate::guest::{self, Guest, Profile};
use crate::toolchain::Toolchain;

/// What the `hello` guest may weigh: the ELF that boots, without the names of its functions, in bytes.
pub const HELLO_BUDGET_BYTES: u64 = 300 * 1024;
/// How many of the biggest are shown.
const SHOWN: usize = 12;

/// What to look at.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// The application, a directory under apps/
    #[arg(default_value = "hello")]
    pub app: String,
}

/// Prints sections, the biggest functions and the biggest crates.
///
/// # Errors
/// The guest does not build, or is `hello` and exceeds its budget.
pub fn run(arguments: &Arguments) -> Result<u8> {
    let toolchain = Toolchain::find()?;
    let guest = guest::build(&toolchain, &arguments.app, Profile::Release)?;
    let linked = Linked::parse(&fs::read(&guest.debug)?)?;
    let stripped = stripped_bytes(&guest)?;
    println!("{:>9}  {} (the file that boots)", fs::metadata(&guest.elf)?.len(), guest.elf.display());
    println!("{stripped:>9}  without the names of its functions");
    println!("{:>9}  {} (as linked)", fs::metadata(&guest.debug)?.len(), guest.debug.display());
    let finished = Linked::parse(&fs::read(&guest.elf)?)?;
    println!("\nsections");
    for section in &finished.sections {
        let kind = if section.bytes.is_empty() { " (not in the file)" } else { "" };
        println!("{:>9}  {:#x}  {}{kind}", section.len_bytes, section.address, section.name);
    }
    println!("\nbiggest functions and variables");
    let mut items: Vec<&Item> = linked.items.iter().collect();
    items.sort_by_key(|item| std::cmp::Reverse(item.len_bytes));
    for item in items.iter().take(SHOWN) {
        println!("{:>9}  {}", item.len_bytes, item.name);
    }
    println!("\ncode by crate");
    for (name, len_bytes) in by_crate(&linked.items).into_iter().take(SHOWN) {
        println!("{len_bytes:>9}  {name}");
    }
    if arguments.app == "hello" && stripped >= HELLO_BUDGET_BYTES {
        bail!("hello is {stripped} bytes, over its budget of {HELLO_BUDGET_BYTES}");
    }
    Ok(0)
}

/// The size of the ELF that boots without its table of function names, which nothing but backtraces needs, in bytes.
///
/// # Errors
/// The file is gone, or is no ELF of ours.
pub fn stripped_bytes(guest: &Guest) -> Result<u64> {
    let file = fs::read(&guest.elf)?;
    let sections = Linked::parse(&file)?.sections;
    let names = sections.iter().find(|section| section.name == SYMBOLS);
    let names = names.with_context(|| format!("no section {SYMBOLS}"))?;
    Ok(file.len() as u64 - names.bytes.len() as u64)
}

/// Bytes of code per crate, the biggest first.
fn by_crate(items: &[Item]) -> Vec<(String, u64)> {
    let mut crates: BTreeMap<String, u64> = BTreeMap::new();
    for item in items.iter().filter(|item| item.code) {
        *crates.entry(crate_of(&item.name).to_owned()).or_default() += item.len_bytes;
    }
    let mut crates: Vec<_> = crates.into_iter().collect();
    crates.sort_by_key(|(name, len_bytes)| (std::cmp::Reverse(*len_bytes), name.clone()));
    crates
}

/// The crate in a demangled name: `<kernel::log::Sink as log::Log>::log` is the kernel's.
fn crate_of(name: &str) -> &str {
    let start = name.trim_start_matches(['<', '&', '*', '[', '(']);
    // Of a type without a path, `<T as core::fmt::Debug>`, the trait's crate counts.
    let first = start.split_once("::").map(|(first, _)| first.rsplit(' ').next().unwrap_or(first));
    let first = first.filter(|first| first.chars().all(|c| c.is_alphanumeric() || c == '_'));
    first.unwrap_or("(no crate)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trait_implementations_count_for_the_implementing_crate() {
        assert_eq!(crate_of("kernel::mm::frame::alloc"), "kernel");
        assert_eq!(crate_of("<kernel::log::Sink as log::Log>::log"), "kernel");
        assert_eq!(crate_of("<&mut core::fmt::Formatter as Write>::write"), "core");
        assert_eq!(crate_of("<&T as core::fmt::Debug>::fmt"), "core");
        assert_eq!(crate_of("pvh_start32"), "(no crate)");
    }

    #[test]
    fn crates_are_sorted_by_weight() {
        let item = |name: &str, len_bytes| Item {
            name: name.into(),
            address: 0,
            len_bytes,
            code: true,
            function: true,
        };
        let items = [item("a::x", 1), item("b::x", 5), item("a::y", 2)];
        assert_eq!(by_crate(&items), [("b".to_owned(), 5), ("a".to_owned(), 3)]);
    }
}
