//! The shared libraries a program needs, and those they need (`DT_NEEDED`; System V ABI, chapter 5 "Dynamic Linking").

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use object::Endianness;
use object::elf::FileHeader64;
use object::read::elf::{Dyn, FileHeader, ProgramHeader};

/// Where Debian keeps libraries, below a root.
const DIRECTORIES: [&str; 3] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "lib64"];

/// Libraries by name, with their bytes.
pub(crate) type Libraries = BTreeMap<String, Vec<u8>>;

/// Adds `names` from below `root`, and everything they need, to `found`.
///
/// # Errors
/// A library is not there or cannot be understood.
pub(crate) fn close(root: &Path, names: Vec<String>, found: &mut Libraries) -> Result<()> {
    close_with(names, found, |name| {
        let path = find(root, name).with_context(|| format!("no package brought the library {name}"))?;
        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    })
}

fn close_with(
    mut open: Vec<String>,
    found: &mut Libraries,
    read: impl Fn(&str) -> Result<Vec<u8>>,
) -> Result<()> {
    while let Some(name) = open.pop() {
        if found.contains_key(&name) {
            continue;
        }
        let data = read(&name)?;
        open.extend(needed(&data).with_context(|| format!("{name} is no ELF file"))?);
        found.insert(name, data);
    }
    Ok(())
}

fn find(root: &Path, name: &str) -> Option<PathBuf> {
    DIRECTORIES.iter().map(|directory| root.join(directory).join(name)).find(|path| path.exists())
}

/// The names a program or library asks its loader for; none for a static program.
///
/// # Errors
/// It is no ELF file for x86-64, or damaged.
pub(crate) fn needed(elf: &[u8]) -> Result<Vec<String>> {
    let header = FileHeader64::<Endianness>::parse(elf)?;
    let endian = header.endian()?;
    let segments = header.program_headers(endian, elf)?;
    let mut entries = None;
    for segment in segments {
        entries = entries.or(segment.dynamic(endian, elf)?);
    }
    let entries = entries.unwrap_or_default();
    let value = |tag: u32| {
        let entry = entries.iter().find(|entry| entry.tag32(endian) == Some(tag));
        entry.map(|entry| entry.d_val(endian))
    };
    let Some(strings) = value(object::elf::DT_STRTAB) else { return Ok(Vec::new()) };
    let size = value(object::elf::DT_STRSZ).context("a string table without a size")?;
    let mut table = None;
    for segment in segments {
        table = table.or(segment.data_range(endian, elf, strings, size).ok().flatten());
    }
    let table = table.context("the string table is in no segment")?;
    let name = |entry: &object::elf::Dyn64<Endianness>| {
        let at = usize::try_from(entry.d_val(endian))?;
        let name = table.get(at..).and_then(|rest| rest.split(|byte| *byte == 0).next());
        Ok(String::from_utf8(name.context("a name outside of the string table")?.to_vec())?)
    };
    let is_name =
        |entry: &&object::elf::Dyn64<Endianness>| entry.tag32(endian) == Some(object::elf::DT_NEEDED);
    entries.iter().filter(is_name).map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This test program is linked with the C library, which needs only its loader.
    #[test]
    fn what_this_program_needs_is_read_from_its_elf() {
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(needed(&own).unwrap().contains(&"libc.so.6".to_owned()));
    }

    #[test]
    fn what_is_no_elf_is_refused() {
        assert!(needed(b"#!/bin/sh\n").is_err());
        let mut found = Libraries::new();
        assert!(close_with(vec!["x".into()], &mut found, |_| Ok(b"text".to_vec())).is_err());
        assert!(found.is_empty());
    }
}
