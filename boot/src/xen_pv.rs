//! Xen PV: `start_info` becomes [`Info`] (Xen `public/xen.h`, `struct start_info` and "Domain start-up").
//! Xen's loaders enter this way, in ring 3 with their own page tables. Neighbour: `entry` calls `read`.
//!
//! "Physical" is the guest's own numbering of its memory, from 0 without gaps. Xen maps it at `KERNEL_VMA` up to
//! somewhere behind the image: module, list of machine frames, this structure, page tables, a stack. Behind that,
//! memory is set aside for the tables of a direct map, which the entry does not have.
#![forbid(unsafe_code)]

use crate::info::{Info, Protocol};
use crate::memory_map::{PAGE_SIZE, RegionKind};
use crate::problem::{Problem, Structure};
use crate::{KERNEL_VMA, info::XenPv};
use core::ops::Range;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// What the structure's text begins with, before the version and the architecture, as a number.
const MAGIC: u32 = u32::from_le_bytes(*b"xen-");
/// Entries of a page table.
const ENTRIES: u64 = 512;

/// Reads the page at virtual address `address` in which the structure is. `image` is where the guest itself lies,
/// physically.
///
/// Every fault of the data ends up in [`Info::problems`]; without sound addresses nothing is usable.
pub fn read(page: &[u8], address: u64, image: &Range<u64>) -> Info {
    let mut info = Info::new(Protocol::XenPv);
    let structure = Structure::StartInfo;
    let Ok((found, _)) = StartInfo::read_from_prefix(page) else {
        let len_bytes = size_of::<StartInfo>() as u64;
        info.problem(Problem::Unreachable { structure, address, len_bytes });
        return info;
    };
    let magic = u32::from_le_bytes([found.magic[0], found.magic[1], found.magic[2], found.magic[3]]);
    if magic != MAGIC {
        info.problem(Problem::BadMagic { structure, found: magic, expected: MAGIC });
        return info;
    }
    match layout(&found, address) {
        Some(layout) => {
            let result = info.memory.insert(0, layout.end, RegionKind::Usable);
            info.note(result);
            info.reserve_image(image);
            info.reserve_image(&(layout.builders.start..layout.spare.end));
            info.add_module(found.mod_start.get().wrapping_sub(KERNEL_VMA), found.mod_len.get());
            info.xen_pv = Some(XenPv { start_info: address, spare: layout.spare });
        }
        None => info.problem(Problem::NoMemoryMap),
    }
    info.set_cmdline(&found.cmd_line);
    info
}

/// Where things lie, physically.
struct Layout {
    /// All memory ends here.
    end: u64,
    /// What Xen's builder placed behind image and module.
    builders: Range<u64>,
    /// What is set aside for tables.
    spare: Range<u64>,
}

fn layout(found: &StartInfo, address: u64) -> Option<Layout> {
    let physical = |virt: u64| virt.checked_sub(KERNEL_VMA).filter(|at| at.is_multiple_of(PAGE_SIZE));
    let pages = found.nr_pages.get();
    let end = pages.checked_mul(PAGE_SIZE)?;
    let list = physical(found.mfn_list.get())?;
    let tables = physical(found.pt_base.get())?;
    // Behind the tables comes the page of the stack.
    let after = found.nr_pt_frames.get().checked_add(1)?.checked_mul(PAGE_SIZE)?.checked_add(tables)?;
    let spare = after..after.checked_add(direct_map_tables(pages) * PAGE_SIZE)?;
    let start = list.min(physical(address)?).min(tables);
    (spare.end <= end && start < after).then_some(Layout { end, builders: start..after, spare })
}

/// How many tables map so many pages of 4 KiB: levels 1, 2 and 3; and two for a page at a fixed address.
fn direct_map_tables(pages: u64) -> u64 {
    let ones = pages.div_ceil(ENTRIES);
    let twos = ones.div_ceil(ENTRIES);
    ones + twos + twos.div_ceil(ENTRIES) + 2
}

#[doc(alias = "start_info")]
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct StartInfo {
    magic: [u8; 32],
    nr_pages: U64,
    shared_info: U64,
    flags: U32,
    _pad0: U32,
    store_mfn: U64,
    store_evtchn: U32,
    _pad1: U32,
    console: [U64; 2],
    pt_base: U64,
    nr_pt_frames: U64,
    mfn_list: U64,
    mod_start: U64,
    mod_len: U64,
    cmd_line: [u8; 1024],
}

const _: () = {
    assert!(core::mem::offset_of!(StartInfo, pt_base) == 88);
    assert!(core::mem::offset_of!(StartInfo, mfn_list) == 104);
    assert!(core::mem::offset_of!(StartInfo, cmd_line) == 128);
};
