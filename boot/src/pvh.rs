//! PVH: `struct hvm_start_info` becomes [`Info`] (Xen `docs/misc/pvh.pandoc`, `hvm/start_info.h`).
//! QEMU's `-kernel` and Xen enter this way. Neighbours: `entry` calls `read`, `e820` knows the memory types.
#![forbid(unsafe_code)]

use crate::e820;
use crate::info::{Info, MAX_MODULES, Protocol};
use crate::physical::{self, PhysicalMemory};
use crate::problem::{Problem, Structure};
use core::ops::Range;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// First word of the structure: "xEn3" with bit 7 of the "E" set.
#[doc(alias = "XEN_HVM_START_MAGIC_VALUE")]
pub const MAGIC: u32 = 0x336e_c578;

/// Reads the structure at physical address `start_info`. `image` is where the guest itself lies.
///
/// Every fault of the data ends up in [`Info::problems`]; without a memory map nothing is usable.
pub fn read(memory: &dyn PhysicalMemory, start_info: u64, image: &Range<u64>) -> Info {
    let mut info = Info::new(Protocol::Pvh);
    if let Some(found) = read_start_info(&mut info, memory, start_info) {
        read_memory_map(&mut info, memory, start_info, &found);
        info.reserve_image(image);
        read_cmdline(&mut info, memory, found.cmdline_paddr.get());
        read_modules(&mut info, memory, &found);
        info.set_rsdp(found.rsdp_paddr.get());
    }
    info
}

fn read_start_info(info: &mut Info, memory: &dyn PhysicalMemory, address: u64) -> Option<StartInfo> {
    let structure = Structure::StartInfo;
    let len_bytes = size_of::<StartInfo>() as u64;
    let bytes = memory.bytes(address, len_bytes);
    let Some(found) = bytes.and_then(|bytes| StartInfo::read_from_bytes(bytes).ok()) else {
        info.problem(Problem::Unreachable { structure, address, len_bytes });
        return None;
    };
    let magic = found.magic.get();
    if magic != MAGIC {
        info.problem(Problem::BadMagic { structure, found: magic, expected: MAGIC });
        return None;
    }
    Some(found)
}

/// Version 1 of the structure brought the memory map; under version 0 a guest had to ask by hypercall.
fn read_memory_map(info: &mut Info, memory: &dyn PhysicalMemory, start_info: u64, found: &StartInfo) {
    if found.version.get() == 0 {
        return info.problem(Problem::NoMemoryMap);
    }
    let structure = Structure::StartInfo;
    let address = start_info.saturating_add(size_of::<StartInfo>() as u64);
    let len_bytes = size_of::<StartInfoV1>() as u64;
    let bytes = memory.bytes(address, len_bytes);
    let Some(map) = bytes.and_then(|bytes| StartInfoV1::read_from_bytes(bytes).ok()) else {
        return info.problem(Problem::Unreachable { structure, address, len_bytes });
    };
    let (address, entries) = (map.memmap_paddr.get(), u64::from(map.memmap_entries.get()));
    let structure = Structure::StartInfoMemoryMap;
    if !e820::accept_entries(info, structure, entries) {
        return;
    }
    let Some(entries) = list::<MemoryMapEntry>(memory, address, entries) else {
        let len_bytes = entries * size_of::<MemoryMapEntry>() as u64;
        return info.problem(Problem::Unreachable { structure, address, len_bytes });
    };
    for entry in entries {
        let result = info.memory.insert(entry.addr.get(), entry.size.get(), e820::kind(entry.kind.get()));
        info.note(result);
    }
}

fn read_cmdline(info: &mut Info, memory: &dyn PhysicalMemory, address: u64) {
    if address == 0 {
        return;
    }
    match physical::text(memory, address) {
        Some(bytes) => info.set_cmdline(bytes),
        None => {
            info.problem(Problem::Unreachable { structure: Structure::CommandLine, address, len_bytes: 1 });
        }
    }
}

fn read_modules(info: &mut Info, memory: &dyn PhysicalMemory, start_info: &StartInfo) {
    let (address, found) = (start_info.modlist_paddr.get(), u64::from(start_info.nr_modules.get()));
    let limit = MAX_MODULES as u64;
    if found > limit {
        info.problem(Problem::TooMany { structure: Structure::Modules, found, limit });
    }
    let taken = found.min(limit);
    match list::<ModuleEntry>(memory, address, taken) {
        Some(modules) => {
            modules.iter().for_each(|module| info.add_module(module.paddr.get(), module.size.get()))
        }
        None => {
            let len_bytes = taken * size_of::<ModuleEntry>() as u64;
            info.problem(Problem::Unreachable { structure: Structure::StartInfoModules, address, len_bytes });
        }
    }
}

/// The `count` (a number that was checked) structures at physical `address`.
fn list<T>(memory: &dyn PhysicalMemory, address: u64, count: u64) -> Option<&[T]>
where
    T: FromBytes + Immutable + Unaligned,
{
    if count == 0 {
        return Some(&[]);
    }
    let bytes = memory.bytes(address, count * size_of::<T>() as u64)?;
    <[T]>::ref_from_bytes(bytes).ok()
}

#[doc(alias = "hvm_start_info")]
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct StartInfo {
    magic: U32,
    version: U32,
    flags: U32,
    nr_modules: U32,
    modlist_paddr: U64,
    cmdline_paddr: U64,
    rsdp_paddr: U64,
}

/// What version 1 appended to `hvm_start_info`.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct StartInfoV1 {
    memmap_paddr: U64,
    memmap_entries: U32,
    reserved: U32,
}

#[doc(alias = "hvm_memmap_table_entry")]
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct MemoryMapEntry {
    addr: U64,
    size: U64,
    kind: U32,
    reserved: U32,
}

#[doc(alias = "hvm_modlist_entry")]
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ModuleEntry {
    paddr: U64,
    size: U64,
    cmdline_paddr: U64,
    reserved: U64,
}
