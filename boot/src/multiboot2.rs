//! Multiboot2: the boot information's tags become [`Info`] (Multiboot2 Specification 2.0 §3.6).
//! GRUB enters this way, from BIOS and from UEFI. Neighbours: `entry` calls `read`, `e820` knows the types of
//! memory.
#![forbid(unsafe_code)]

use crate::e820;
use crate::info::{Framebuffer, Info, Protocol};
use crate::memory_map::RegionKind;
use crate::physical::PhysicalMemory;
use crate::problem::{Problem, Structure};
use core::ops::Range;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// What the loader leaves in EAX (§3.2).
#[doc(alias = "MULTIBOOT2_BOOTLOADER_MAGIC")]
pub const MAGIC: u32 = 0x36d7_6289;

/// Bytes of boot information that are taken at most; more is refused.
pub const MAX_LEN_BYTES: u64 = 1 << 20;

/// Tag types (§3.6).
mod tag {
    pub(super) const END: u32 = 0;
    pub(super) const COMMAND_LINE: u32 = 1;
    pub(super) const LOADER_NAME: u32 = 2;
    pub(super) const MODULE: u32 = 3;
    pub(super) const BASIC_MEMORY: u32 = 4;
    pub(super) const MEMORY_MAP: u32 = 6;
    pub(super) const FRAMEBUFFER: u32 = 8;
    pub(super) const ACPI_OLD_RSDP: u32 = 14;
    pub(super) const ACPI_NEW_RSDP: u32 = 15;
}

/// Reads the boot information at physical address `address`, handed over with `magic` in EAX. `image` is
/// where the guest itself lies.
///
/// Every fault of the data ends up in [`Info::problems`]; without a memory map nothing is usable.
pub fn read(memory: &dyn PhysicalMemory, magic: u32, address: u64, image: &Range<u64>) -> Info {
    let mut info = Info::new(Protocol::Multiboot2);
    if magic != MAGIC {
        let structure = Structure::Multiboot2Info;
        info.problem(Problem::BadMagic { structure, found: magic, expected: MAGIC });
    } else if let Some(bytes) = read_extent(&mut info, memory, address) {
        let mut tags = Tags::new(bytes);
        tags.by_ref().for_each(|tag| read_tag(&mut info, &tag));
        if let Some(problem) = tags.problem {
            info.problem(problem);
        }
        read_memory(&mut info, bytes);
        info.reserve_image(image);
        // The copy of the RSDP lives in there, so it must stay.
        let result = info.memory.reserve(address, bytes.len() as u64, RegionKind::Loader);
        info.note(result);
        read_rsdp(&mut info, bytes, address);
        // These need the whole memory map, wherever its tag was.
        Tags::new(bytes).filter(|tag| tag.number == tag::MODULE).for_each(|tag| read_module(&mut info, &tag));
        Tags::new(bytes)
            .filter(|tag| tag.number == tag::FRAMEBUFFER)
            .for_each(|tag| read_framebuffer(&mut info, &tag));
    }
    info
}

/// The whole boot information, whose first word is its length.
fn read_extent<'a>(info: &mut Info, memory: &'a dyn PhysicalMemory, address: u64) -> Option<&'a [u8]> {
    let structure = Structure::Multiboot2Info;
    let fixed = size_of::<FixedPart>() as u64;
    let Some(fixed_part) =
        memory.bytes(address, fixed).and_then(|bytes| FixedPart::read_from_bytes(bytes).ok())
    else {
        info.problem(Problem::Unreachable { structure, address, len_bytes: fixed });
        return None;
    };
    let len_bytes = u64::from(fixed_part.total_size.get());
    let problem = match memory.bytes(address, len_bytes.min(MAX_LEN_BYTES)) {
        _ if len_bytes < fixed => Problem::TooShort { structure, found: len_bytes, expected: fixed },
        _ if len_bytes > MAX_LEN_BYTES => {
            Problem::TooMany { structure, found: len_bytes, limit: MAX_LEN_BYTES }
        }
        Some(bytes) => return Some(bytes),
        None => Problem::Unreachable { structure, address, len_bytes },
    };
    info.problem(problem);
    None
}

/// Reads those tags that depend on no other.
fn read_tag(info: &mut Info, tag: &Tag<'_>) {
    match tag.number {
        tag::COMMAND_LINE => info.set_cmdline(tag.body),
        tag::LOADER_NAME => info.set_loader(tag.body),
        _ => {}
    }
}

/// Reads the memory map, or the two numbers of the basic memory information if there is none.
fn read_memory(info: &mut Info, bytes: &[u8]) {
    if let Some(tag) = Tags::new(bytes).find(|tag| tag.number == tag::MEMORY_MAP) {
        return read_memory_map(info, &tag);
    }
    let basic = Tags::new(bytes).find(|tag| tag.number == tag::BASIC_MEMORY);
    match basic.map(|tag| tag.read::<BasicMemory>()) {
        Some(Ok(basic)) => {
            let kib = |number: U32| u64::from(number.get()) * 1024;
            let results = [
                info.memory.insert(0, kib(basic.mem_lower), RegionKind::Usable),
                info.memory.insert(1 << 20, kib(basic.mem_upper), RegionKind::Usable),
            ];
            results.into_iter().for_each(|result| info.note(result));
        }
        Some(Err(problem)) => info.problem(problem),
        None => info.problem(Problem::NoMemoryMap),
    }
}

fn read_memory_map(info: &mut Info, tag: &Tag<'_>) {
    let header = match tag.read::<MemoryMapHeader>() {
        Ok(header) => header,
        Err(problem) => return info.problem(problem),
    };
    // Later versions of the specification may append to an entry, so `entry_size` counts, not our structure's.
    let entry_size = header.entry_size.get() as usize;
    if entry_size < size_of::<MemoryMapEntry>() {
        return info.problem(tag.bad());
    }
    let entries = tag.body[size_of::<MemoryMapHeader>()..].chunks_exact(entry_size);
    if !e820::accept_entries(info, Structure::Multiboot2MemoryMap, entries.len() as u64) {
        return;
    }
    for (entry, _) in entries.filter_map(|bytes| MemoryMapEntry::read_from_prefix(bytes).ok()) {
        let kind = e820::kind(entry.kind.get());
        let result = info.memory.insert(entry.base_addr.get(), entry.length.get(), kind);
        info.note(result);
    }
}

fn read_rsdp(info: &mut Info, bytes: &[u8], address: u64) {
    for (number, len_bytes) in [(tag::ACPI_OLD_RSDP, 20), (tag::ACPI_NEW_RSDP, 36)] {
        match Tags::new(bytes).find(|tag| tag.number == number) {
            Some(tag) if tag.body.len() < len_bytes => info.problem(tag.bad()),
            Some(tag) => info.set_rsdp(address + (tag.offset + Tag::HEADER_LEN) as u64),
            None => {}
        }
    }
}

fn read_module(info: &mut Info, tag: &Tag<'_>) {
    match tag.read::<ModuleTag>() {
        Ok(module) => {
            let (start, end) = (u64::from(module.mod_start.get()), u64::from(module.mod_end.get()));
            match end.checked_sub(start) {
                Some(len_bytes) => info.add_module(start, len_bytes),
                None => info.problem(Problem::RegionBackwards { start, end }),
            }
        }
        Err(problem) => info.problem(problem),
    }
}

/// Takes direct RGB only: an indexed palette (type 0) is not drawn on, text (type 2) is no framebuffer.
fn read_framebuffer(info: &mut Info, tag: &Tag<'_>) {
    const DIRECT_RGB: u8 = 1;
    let found = match tag.read::<FramebufferTag>() {
        Ok(found) => found,
        Err(problem) => return info.problem(problem),
    };
    if found.kind != DIRECT_RGB {
        return;
    }
    let color = match FramebufferColor::read_from_prefix(&tag.body[size_of::<FramebufferTag>()..]) {
        Ok((color, _)) => color,
        Err(_) => return info.problem(tag.bad()),
    };
    let masks_are_bytes = color.red_size == 8 && color.green_size == 8 && color.blue_size == 8;
    let framebuffer = Framebuffer {
        address: found.addr.get(),
        width: found.width.get(),
        height: found.height.get(),
        pitch_bytes: found.pitch.get(),
        // 0 is refused with a message.
        bytes_per_pixel: if masks_are_bytes && found.bpp % 8 == 0 { found.bpp / 8 } else { 0 },
        rgb_shift: [color.red_position, color.green_position, color.blue_position],
    };
    info.set_framebuffer(framebuffer, found.bpp);
}

/// One tag: its type, its offset in the boot information, and what follows its 8-byte header.
struct Tag<'a> {
    number: u32,
    offset: usize,
    body: &'a [u8],
}

impl Tag<'_> {
    /// Bytes before the body: type and size.
    const HEADER_LEN: usize = 8;

    /// The beginning of its body as a `T`, or the problem that it is too short for one.
    fn read<T: FromBytes>(&self) -> Result<T, Problem> {
        T::read_from_prefix(self.body).map(|(value, _)| value).map_err(|_| self.bad())
    }

    fn bad(&self) -> Problem {
        let len_bytes = (self.body.len() + Self::HEADER_LEN) as u32;
        Problem::BadTag { tag: self.number, offset: self.offset as u32, len_bytes }
    }
}

/// The tags up to the end tag, or up to one whose length is wrong: that is its `problem` then.
struct Tags<'a> {
    bytes: &'a [u8],
    offset: usize,
    problem: Option<Problem>,
}

impl<'a> Tags<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: size_of::<FixedPart>(), problem: None }
    }
}

impl<'a> Iterator for Tags<'a> {
    type Item = Tag<'a>;

    fn next(&mut self) -> Option<Tag<'a>> {
        let offset = self.offset;
        let rest = self.bytes.get(offset..).unwrap_or_default();
        let header = TagHeader::read_from_prefix(rest).map(|(header, _)| header);
        let (number, size) = header.map_or((tag::END, 0), |header| (header.number.get(), header.size.get()));
        let Some(body) = rest.get(Tag::HEADER_LEN..size as usize) else {
            self.problem = Some(Problem::BadTag { tag: number, offset: offset as u32, len_bytes: size });
            self.offset = self.bytes.len();
            return None;
        };
        // Progress of 8 bytes at least: `get` above refused a size below that.
        self.offset = (offset + size as usize).next_multiple_of(8);
        (number != tag::END).then_some(Tag { number, offset, body })
    }
}

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct FixedPart {
    total_size: U32,
    reserved: U32,
}

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct TagHeader {
    number: U32,
    size: U32,
}

/// In KiB; `mem_upper` begins at 1 MiB (§3.6.4).
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct BasicMemory {
    mem_lower: U32,
    mem_upper: U32,
}

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct MemoryMapHeader {
    entry_size: U32,
    entry_version: U32,
}

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct MemoryMapEntry {
    base_addr: U64,
    length: U64,
    kind: U32,
    reserved: U32,
}

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ModuleTag {
    mod_start: U32,
    mod_end: U32,
}

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct FramebufferTag {
    addr: U64,
    pitch: U32,
    width: U32,
    height: U32,
    bpp: u8,
    kind: u8,
    reserved: [u8; 2],
}

/// Follows the framebuffer tag if its type is direct RGB; positions and sizes in bits.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct FramebufferColor {
    red_position: u8,
    red_size: u8,
    green_position: u8,
    green_size: u8,
    blue_position: u8,
    blue_size: u8,
}
