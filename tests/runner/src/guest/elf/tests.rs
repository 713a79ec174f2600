//! A linked guest in miniature, and what becomes of it.

use super::*;
use crate::guest::symbols::BASE;

const TEXT: &[u8] = &[0x90; 8];
const PLACEHOLDER: [u8; 16] = *b"PLNTSYM1\x10\0\0\0\0\0\0\0";
const SYMBOLS_AT: u64 = BASE + 0x3000;

/// Section names, and where each begins.
const NAMES: &[u8] = b"\0.text\0.symbols\0.symtab\0.strtab\0.shstrtab\0";
const STRINGS: &[u8] = b"\0_ZN6kernel5start17h0123456789abcdefE\0__text_end\0";

/// What a linker would write: text at the base, the placeholder at `symbols_at`, two symbols.
fn linked(symbols_at: u64) -> Vec<u8> {
    let mut file = vec![0; 0x3000];
    file[0x1000..0x1008].copy_from_slice(TEXT);
    file[0x2000..0x2010].copy_from_slice(&PLACEHOLDER);
    let mut place = |bytes: &[u8]| {
        let at = file.len();
        file.extend_from_slice(bytes);
        file.resize(file.len().next_multiple_of(8), 0);
        (at as u64, bytes.len() as u64)
    };
    let mut symbols = vec![0; 24];
    symbols.extend(symbol(1, STT_FUNC, BASE));
    symbols.extend(symbol(38, STT_NOTYPE, BASE + 8));
    let (symtab, strings, names) = (place(&symbols), place(STRINGS), place(NAMES));
    let alloc = u64::from(SHF_ALLOC);
    let sections = [
        section(0, SHT_NULL, 0, 0, (0, 0), 0),
        section(1, 1, alloc | u64::from(SHF_EXECINSTR), BASE, (0x1000, 8), 0),
        section(7, 1, alloc, symbols_at, (0x2000, 16), 0),
        section(16, object::elf::SHT_SYMTAB, 0, 0, symtab, 4),
        section(24, SHT_STRTAB, 0, 0, strings, 0),
        section(32, SHT_STRTAB, 0, 0, names, 0),
    ];
    let shoff = file.len() as u64;
    sections.iter().for_each(|section| file.extend(section));
    let segments = [segment(0x1000, BASE, 8), segment(0x2000, symbols_at, 16)].concat();
    file[64..64 + segments.len()].copy_from_slice(&segments);
    let mut header = b"\x7fELF\x02\x01\x01".to_vec();
    header.resize(16, 0);
    header.extend([2u16, 62].map(u16::to_le_bytes).concat());
    header.extend(1u32.to_le_bytes());
    header.extend([BASE, 64, shoff].map(u64::to_le_bytes).concat());
    header.extend(0u32.to_le_bytes());
    header.extend([64u16, 56, 2, 64, 6, 5].map(u16::to_le_bytes).concat());
    file[..64].copy_from_slice(&header);
    file
}

fn symbol(name: u32, kind: u8, address: u64) -> Vec<u8> {
    let mut bytes = name.to_le_bytes().to_vec();
    bytes.extend([0x10 | kind, 0, 1, 0]);
    bytes.extend(address.to_le_bytes());
    bytes.extend(8u64.to_le_bytes());
    bytes
}

fn section(name: u32, kind: u32, flags: u64, address: u64, place: (u64, u64), link: u32) -> Vec<u8> {
    let mut bytes = [name, kind].map(u32::to_le_bytes).concat();
    bytes.extend([flags, address, place.0, place.1].map(u64::to_le_bytes).concat());
    bytes.extend([link, 1].map(u32::to_le_bytes).concat());
    bytes.extend([1u64, if kind == 2 { 24 } else { 0 }].map(u64::to_le_bytes).concat());
    bytes
}

fn segment(offset: u64, address: u64, len: u64) -> Vec<u8> {
    let mut bytes = [PT_LOAD, 4].map(u32::to_le_bytes).concat();
    bytes.extend([offset, address, address, len, len, 0x1000].map(u64::to_le_bytes).concat());
    bytes
}

#[test]
fn the_table_takes_the_place_of_the_placeholder() {
    let file = finish(&linked(SYMBOLS_AT)).unwrap();
    let sections = Linked::parse(&file).unwrap().sections;
    let table = &sections.iter().find(|section| section.name == ".symbols").unwrap().bytes;
    assert_eq!(&table[..8], b"PLNTSYM1");
    assert!(
        table.ends_with(b"kernel::start"),
        "linker labels are no functions: {:?}",
        String::from_utf8_lossy(table)
    );
    let header = header(&file).unwrap();
    let segment = &header.program_headers(LE, &*file).unwrap()[1];
    assert_eq!(segment.p_vaddr.get(LE), SYMBOLS_AT);
    assert_eq!(segment.p_filesz.get(LE), table.len() as u64);
    assert_eq!(segment.p_memsz.get(LE), table.len() as u64);
    assert_eq!(segment.p_offset.get(LE) % 4096, SYMBOLS_AT % 4096);
}

#[test]
fn what_is_not_loaded_is_gone_and_the_rest_is_untouched() {
    let file = finish(&linked(SYMBOLS_AT)).unwrap();
    let found = Linked::parse(&file).unwrap();
    assert!(found.items.is_empty());
    assert_eq!(
        found.sections.iter().map(|section| section.name.as_str()).collect::<Vec<_>>(),
        [".text", ".symbols"]
    );
    assert_eq!(found.sections[0].bytes, TEXT);
}

#[test]
fn the_same_program_gives_the_same_file() {
    assert_eq!(finish(&linked(SYMBOLS_AT)).unwrap(), finish(&linked(SYMBOLS_AT)).unwrap());
}

#[test]
fn a_placeholder_that_is_not_last_is_refused() {
    let error = finish(&linked(BASE - 0x1000)).unwrap_err().to_string();
    assert!(error.contains("not the last segment"), "{error}");
}

#[test]
fn other_files_are_refused() {
    assert!(finish(b"MZ").is_err());
    let mut unprepared = linked(SYMBOLS_AT);
    let name = unprepared.windows(8).rposition(|bytes| bytes == b".symbols").unwrap();
    unprepared[name] = b'x';
    assert!(finish(&unprepared).unwrap_err().to_string().contains("no section .symbols"));
}

#[test]
fn functions_are_found_by_name() {
    let found = Linked::parse(&linked(SYMBOLS_AT)).unwrap();
    assert_eq!(found.address_of("kernel::start"), Some(BASE));
    assert_eq!(found.address_of("__text_end"), Some(BASE + 8));
    assert_eq!(found.address_of("kernel"), None);
}
