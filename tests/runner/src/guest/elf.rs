//! The ELF file after linking: looked into, its `.symbols` segment filled, all that is not loaded stripped.
//!
//! The linker script reserves `.symbols` as the last loadable segment, behind `.bss`, with a placeholder in it. Its real
//! content exists only once the program is linked, so it is put at the end of the file and the segment made to
//! point there. Section headers of loaded sections stay: the `bootloader` crate finds its configuration by name.

use anyhow::{Context, Result, bail, ensure};
use object::elf::{
    FileHeader64, PT_LOAD, ProgramHeader64, SHF_ALLOC, SHF_EXECINSTR, SHT_NULL, SHT_STRTAB, STT_FUNC,
    STT_NOTYPE, SectionHeader64,
};
use object::endian::LittleEndian as LE;
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader, Sym};
use object::{U32, U64, pod};

use super::symbols::{self, Symbol};

pub(crate) const SYMBOLS: &str = ".symbols";
/// Program headers lie where the linker put them.
const HEADER_BYTES: usize = size_of::<FileHeader64<LE>>();

/// A function or a variable of the linked program.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its demangled name.
    pub name: String,
    /// Its virtual address.
    pub address: u64,
    /// Its length; 0 for a label of assembly code.
    pub len_bytes: u64,
    /// Whether it lies in an executable section.
    pub code: bool,
    /// Whether the compiler calls it a function; labels of assembly code and of the linker script are none.
    pub function: bool,
}

/// A loaded section of the linked program.
#[derive(Clone, Debug)]
pub struct Section {
    /// Its name.
    pub name: String,
    /// Its virtual address.
    pub address: u64,
    /// Its length in memory.
    pub len_bytes: u64,
    /// Its bytes in the file; empty for `.bss`.
    pub bytes: Vec<u8>,
}

/// The linked program as read from a file with its symbol table.
#[derive(Clone, Debug)]
pub struct Linked {
    /// Functions and variables, sorted by address.
    pub items: Vec<Item>,
    /// Loaded sections in file order.
    pub sections: Vec<Section>,
}

impl Linked {
    /// Reads a linked file.
    ///
    /// # Errors
    /// It is no 64-bit little-endian ELF file.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let header = header(bytes)?;
        let sections = header.sections(LE, bytes)?;
        let mut loaded = Vec::new();
        for section in sections.iter().filter(|section| is_loaded(section)) {
            loaded.push(Section {
                name: String::from_utf8_lossy(sections.section_name(LE, section)?).into_owned(),
                address: section.sh_addr.get(LE),
                len_bytes: section.sh_size.get(LE),
                bytes: section.data(LE, bytes)?.to_vec(),
            });
        }
        let table = sections.symbols(LE, bytes, object::elf::SHT_SYMTAB)?;
        let mut items = Vec::new();
        for symbol in table.iter() {
            let Some(index) = table.symbol_section(LE, symbol, object::SymbolIndex(0)).ok().flatten() else {
                continue;
            };
            let Ok(section) = sections.section(index) else { continue };
            let name = String::from_utf8_lossy(symbol.name(LE, table.strings())?).into_owned();
            if !is_loaded(section) || name.is_empty() || symbol.st_type() > STT_FUNC {
                continue;
            }
            let code = section.sh_flags.get(LE) & u64::from(SHF_EXECINSTR) != 0;
            let Symbol { name, address } = Symbol::new(symbol.st_value.get(LE), &name);
            let function = symbol.st_type() == STT_FUNC;
            items.push(Item { name, address, len_bytes: symbol.st_size.get(LE), code, function });
        }
        items.sort_by(|a, b| (a.address, &a.name).cmp(&(b.address, &b.name)));
        Ok(Self { items, sections: loaded })
    }

    /// The address of the item with exactly this name.
    pub fn address_of(&self, name: &str) -> Option<u64> {
        self.items.iter().find(|item| item.name == name).map(|item| item.address)
    }
}

/// The file that boots, from the file that the linker wrote.
///
/// # Errors
/// The file was not linked by our linker script.
pub fn finish(linked: &[u8]) -> Result<Vec<u8>> {
    let header = header(linked)?;
    let mut segments: Vec<ProgramHeader64<LE>> = header.program_headers(LE, linked)?.to_vec();
    let sections = header.sections(LE, linked)?;
    let (_, placeholder) = sections
        .section_by_name(LE, SYMBOLS.as_bytes())
        .with_context(|| format!("it has no section {SYMBOLS}"))?;
    let place = placeholder.sh_addr.get(LE);
    let index = symbols_segment(&segments, place)?;
    let table = symbols::encode(&function_names(linked)?)?;

    let loads = |segment: &&ProgramHeader64<LE>| segment.p_vaddr.get(LE) != place;
    let content_end = segments.iter().filter(loads).map(|s| s.p_offset.get(LE) + s.p_filesz.get(LE)).max();
    let headers_end = header.e_phoff.get(LE) + (segments.len() * size_of::<ProgramHeader64<LE>>()) as u64;
    let end = usize::try_from(content_end.unwrap_or(0).max(headers_end))?;
    let mut file = linked.get(..end).context("a segment reaches beyond the end of the file")?.to_vec();

    let offset = append_congruent(&mut file, place, segments[index].p_align.get(LE), &table)?;
    let segment = &mut segments[index];
    segment.p_offset = U64::new(LE, offset);
    segment.p_filesz = U64::new(LE, table.len() as u64);
    segment.p_memsz = U64::new(LE, table.len() as u64);

    let mut names = vec![0];
    let mut kept = vec![section_header(0, SHT_NULL, 0, 0)?];
    for section in sections.iter().filter(|section| is_loaded(section)) {
        let mut section_kept = *section;
        section_kept.sh_name = U32::new(LE, u32::try_from(names.len())?);
        section_kept.sh_link = U32::new(LE, 0);
        names.extend_from_slice(sections.section_name(LE, section)?);
        names.push(0);
        if section.sh_addr.get(LE) == place {
            section_kept.sh_offset = U64::new(LE, offset);
            section_kept.sh_size = U64::new(LE, table.len() as u64);
        }
        kept.push(section_kept);
    }
    let shstrtab = names.len();
    names.extend_from_slice(b".shstrtab\0");
    kept.push(section_header(shstrtab, SHT_STRTAB, file.len(), names.len())?);
    file.extend_from_slice(&names);
    file.resize(file.len().next_multiple_of(8), 0);

    let mut new_header = *header;
    new_header.e_shoff = U64::new(LE, file.len() as u64);
    new_header.e_shnum = object::U16::new(LE, u16::try_from(kept.len())?);
    new_header.e_shstrndx = object::U16::new(LE, u16::try_from(kept.len() - 1)?);
    file.extend_from_slice(pod::bytes_of_slice(&kept));
    file[..HEADER_BYTES].copy_from_slice(pod::bytes_of(&new_header));
    let at = usize::try_from(header.e_phoff.get(LE))?;
    let bytes = pod::bytes_of_slice(&segments);
    file[at..at + bytes.len()].copy_from_slice(bytes);
    Ok(file)
}

/// Appends `content` where its file offset equals its address modulo the alignment, as the ELF format wants it.
fn append_congruent(file: &mut Vec<u8>, address: u64, align: u64, content: &[u8]) -> Result<u64> {
    let align = usize::try_from(align.max(1))?;
    let wanted = usize::try_from(address % align as u64)?;
    let mut offset = file.len().next_multiple_of(align) + wanted;
    if offset - file.len() >= align {
        offset -= align;
    }
    file.resize(offset, 0);
    file.extend_from_slice(content);
    Ok(offset as u64)
}

/// The segment that holds the placeholder and nothing else, behind all others.
fn symbols_segment(segments: &[ProgramHeader64<LE>], place: u64) -> Result<usize> {
    let loads = || segments.iter().enumerate().filter(|(_, segment)| segment.p_type(LE) == PT_LOAD);
    let Some((index, _)) = loads().find(|(_, segment)| segment.p_vaddr.get(LE) == place) else {
        bail!("{SYMBOLS} at {place:#x} does not begin a segment");
    };
    let end = loads()
        .filter(|(other, _)| *other != index)
        .map(|(_, s)| s.p_vaddr.get(LE) + s.p_memsz.get(LE))
        .max();
    ensure!(
        end.unwrap_or(0) <= place,
        "{SYMBOLS} at {place:#x} is not the last segment: there is more to {:#x}",
        end.unwrap_or(0)
    );
    Ok(index)
}

/// Every function, and every label of assembly code at an address that no function has; not the linker script's.
///
/// # Errors
/// `linked` is not a linked file with a symbol table.
pub fn function_names(linked: &[u8]) -> Result<Vec<Symbol>> {
    let mut items = Linked::parse(linked)?.items;
    items.retain(|item| item.code && (item.function || !item.name.starts_with("__")));
    items.sort_by(|a, b| (a.address, !a.function, &a.name).cmp(&(b.address, !b.function, &b.name)));
    items.dedup_by_key(|item| item.address);
    let symbols: Vec<Symbol> =
        items.into_iter().map(|Item { name, address, .. }| Symbol { address, name }).collect();
    ensure!(!symbols.is_empty(), "its symbol table names no function");
    Ok(symbols)
}

/// The header of a section that is not loaded.
fn section_header(name: usize, kind: u32, offset: usize, len: usize) -> Result<SectionHeader64<LE>> {
    let zero = U64::new(LE, 0);
    Ok(SectionHeader64 {
        sh_name: U32::new(LE, u32::try_from(name)?),
        sh_type: U32::new(LE, kind),
        sh_flags: zero,
        sh_addr: zero,
        sh_offset: U64::new(LE, offset as u64),
        sh_size: U64::new(LE, len as u64),
        sh_link: U32::new(LE, 0),
        sh_info: U32::new(LE, 0),
        sh_addralign: U64::new(LE, u64::from(kind != SHT_NULL)),
        sh_entsize: zero,
    })
}

fn is_loaded(section: &SectionHeader64<LE>) -> bool {
    section.sh_flags.get(LE) & u64::from(SHF_ALLOC) != 0
}

fn header(bytes: &[u8]) -> Result<&FileHeader64<LE>> {
    let header = FileHeader64::<LE>::parse(bytes).context("not a 64-bit ELF file")?;
    ensure!(header.is_little_endian(), "not a little-endian ELF file");
    Ok(header)
}

const _: () =
    assert!(STT_NOTYPE < STT_FUNC, "labels, variables and functions come before sections and files");

#[cfg(test)]
mod tests;
