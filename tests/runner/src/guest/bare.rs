//! The least guest there is: entered by PVH, it writes success to `isa-debug-exit`. What a machine needs for it is what it
//! needs before any guest. Neighbour: the command `boot-chart`, which measures by it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Where its one segment is loaded and entered: 1 MiB.
const ADDRESS: u32 = 1 << 20;
/// `mov eax, 16; out 0xf4, eax; hlt; jmp $-1`, 32-bit code.
const CODE: [u8; 10] = [0xb8, 16, 0, 0, 0, 0xe7, 0xf4, 0xf4, 0xeb, 0xfd];
/// Offsets in the file: two program headers behind the file's header, the note, the code.
const HEADERS: u64 = 64;
const NOTE: u64 = HEADERS + 2 * 56;
const NOTE_LEN: u64 = 12 + 4 + 8;
const START: u64 = NOTE + NOTE_LEN;

/// Writes its ELF file.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path) -> Result<()> {
    fs::write(path, bytes()).with_context(|| format!("cannot write {}", path.display()))
}

fn bytes() -> Vec<u8> {
    let address = u64::from(ADDRESS);
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    // ET_EXEC for x86-64, version 1 (System V ABI, ELF header).
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    [address + START, HEADERS, 0].iter().for_each(|word| file.extend(word.to_le_bytes()));
    [0, 0, 64, 56, 2, 64, 0, 0].iter().for_each(|half: &u16| file.extend(half.to_le_bytes()));
    let len = START + CODE.len() as u64;
    // PT_LOAD, readable and executable; PT_NOTE. Offset, address twice, length twice, alignment.
    for (kind, flags, offset, len, align) in [(1_u32, 5_u32, 0, len, 0x1000), (4, 4, NOTE, NOTE_LEN, 4)] {
        file.extend([kind.to_le_bytes(), flags.to_le_bytes()].concat());
        let words = [offset, address + offset, address + offset, len, len, align];
        words.iter().for_each(|word| file.extend(word.to_le_bytes()));
    }
    // XEN_ELFNOTE_PHYS32_ENTRY (Xen public/elfnote.h).
    [4_u32, 8, 18].iter().for_each(|word| file.extend(word.to_le_bytes()));
    file.extend(b"Xen\0");
    file.extend((address + START).to_le_bytes());
    file.extend(CODE);
    file
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::elf::Linked;

    #[test]
    fn it_is_an_elf_file_with_a_pvh_entry_at_its_code() {
        let file = bytes();
        assert!(Linked::parse(&file).is_ok());
        assert_eq!(file.len() as u64, START + CODE.len() as u64);
        assert_eq!(file[START as usize..], CODE);
        assert_eq!(file[(START - 8) as usize..START as usize], (u64::from(ADDRESS) + START).to_le_bytes());
    }
}
