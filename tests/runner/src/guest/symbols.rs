//! The symbol table that travels inside the image, so that a guest can name the functions of its own backtraces.
//!
//! Layout, little-endian: magic and total length (u64 each), number of entries and length of the names (u32 each), then
//! per entry the function's offset from [`BASE`] and the end of its name in the names blob (u32 each), sorted by
//! offset; then the names, one after the other, UTF-8. The reader is `kernel/src/symbols.rs`.

use anyhow::{Context, Result, bail};

/// "PLNTSYM1" as a little-endian number.
pub const MAGIC: u64 = u64::from_le_bytes(*b"PLNTSYM1");
/// Offsets count from here, the first address of the linked image.
pub const BASE: u64 = 0xffff_ffff_8020_0000;
/// A name that is longer says enough when cut here, in bytes.
const LONGEST_NAME: usize = 120;

/// A function: its address and its name as a reader writes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Symbol {
    /// The virtual address of its first byte.
    pub address: u64,
    /// Demangled, without the compiler's hash.
    pub name: String,
}

impl Symbol {
    /// A symbol under its demangled name.
    pub fn new(address: u64, mangled: &str) -> Self {
        Self { address, name: format!("{:#}", rustc_demangle::demangle(mangled)) }
    }
}

/// Lays the table out. The order of `symbols` does not matter; of several names for one address the first in order wins.
///
/// # Errors
/// An address lies below [`BASE`] or 4 GiB above it, or the names exceed 4 GiB.
pub fn encode(symbols: &[Symbol]) -> Result<Vec<u8>> {
    let mut symbols: Vec<&Symbol> = symbols.iter().collect();
    symbols.sort();
    symbols.dedup_by_key(|symbol| symbol.address);
    let mut entries = Vec::with_capacity(symbols.len() * 8);
    let mut names = Vec::new();
    for symbol in &symbols {
        let Some(offset) = symbol.address.checked_sub(BASE).and_then(|offset| u32::try_from(offset).ok())
        else {
            bail!("symbol {} at {:#x} lies outside the image", symbol.name, symbol.address);
        };
        names.extend_from_slice(shortened(&symbol.name).as_bytes());
        let end = u32::try_from(names.len()).context("symbol names exceed 4 GiB")?;
        entries.extend_from_slice(&offset.to_le_bytes());
        entries.extend_from_slice(&end.to_le_bytes());
    }
    let total = 24 + entries.len() + names.len();
    let mut table = Vec::with_capacity(total);
    table.extend_from_slice(&MAGIC.to_le_bytes());
    table.extend_from_slice(&(total as u64).to_le_bytes());
    table.extend_from_slice(&u32::try_from(symbols.len())?.to_le_bytes());
    table.extend_from_slice(&u32::try_from(names.len())?.to_le_bytes());
    table.append(&mut entries);
    table.append(&mut names);
    Ok(table)
}

fn shortened(name: &str) -> &str {
    if name.len() <= LONGEST_NAME {
        return name;
    }
    let end = (0..=LONGEST_NAME).rev().find(|&at| name.is_char_boundary(at)).unwrap_or(0);
    &name[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn u32_at(table: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(table[at..at + 4].try_into().unwrap())
    }

    #[test]
    fn a_reader_finds_every_name_by_its_offset() {
        let symbols = [
            Symbol { address: BASE + 0x40, name: "second".into() },
            Symbol { address: BASE, name: "first".into() },
        ];
        let table = encode(&symbols).unwrap();
        assert_eq!(&table[..8], b"PLNTSYM1");
        assert_eq!(u64::from_le_bytes(table[8..16].try_into().unwrap()), table.len() as u64);
        assert_eq!((u32_at(&table, 16), u32_at(&table, 20)), (2, 11));
        assert_eq!((u32_at(&table, 24), u32_at(&table, 28)), (0, 5));
        assert_eq!((u32_at(&table, 32), u32_at(&table, 36)), (0x40, 11));
        assert_eq!(&table[40..], b"firstsecond");
    }

    #[test]
    fn the_table_does_not_depend_on_the_linkers_order() {
        let a = Symbol { address: BASE, name: "a".into() };
        let b = Symbol { address: BASE, name: "b".into() };
        assert_eq!(encode(&[a.clone(), b.clone()]).unwrap(), encode(&[b, a]).unwrap());
    }

    #[test]
    fn names_carry_no_hash() {
        let symbol = Symbol::new(BASE, "_ZN6kernel2mm5frame5alloc17h0123456789abcdefE");
        assert_eq!(symbol.name, "kernel::mm::frame::alloc");
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        let name = format!("{}é", "x".repeat(LONGEST_NAME - 1));
        assert_eq!(shortened(&name).len(), LONGEST_NAME - 1);
    }

    #[test]
    fn addresses_outside_the_image_are_refused() {
        assert!(encode(&[Symbol { address: 0x1000, name: "low".into() }]).is_err());
    }
}
