//! The image's code while it may still be written: before our own page tables make it read-only.
//! Neighbours: `pv_ops::patch` (what is written), `early` (the tables that come after).

use core::sync::atomic::AtomicU8;

use boot::{DIRECT_MAP, page_walk, physical::PhysicalMemory};

use super::layout::{self, PAGE_SIZE};

/// Patches the call sites of this image under the page tables of the entry.
///
/// Not every loader maps the code writable, but each maps all of RAM so at the direct map: the code is written
/// there. Nothing on the way is a pv-op, since those are being rewritten; where the entry's tables can only be read
/// by one (Xen PV), the loader has placed the image in one piece, and no table need be read.
pub fn patch(info: &boot::Info) -> pv_ops::Report {
    let alias = |code: *const u8| match image_physical(info, code.addr() as u64) {
        Some(phys) => core::ptr::with_exposed_provenance_mut(layout::direct_map(phys) as usize),
        // The patcher finds that nothing was written where it should have been.
        None => scratch(),
    };
    // SAFETY:
    // 1. `hypervisor::install` has installed the backend on this CPU, the only one that runs; it calls this once.
    // 2. `alias` gives the direct map's address of a code byte, writable under the entry's tables; a loader
    //    places a segment of the file in one piece, so what follows in the code follows there. Where that does
    //    not hold the patcher reads back other bytes than it wrote and says so.
    unsafe { pv_ops::patch(alias) }
}

/// The physical address behind `virt`, an address of the image, under the page tables of the entry. No op is used: it
/// is asked for before there are any.
pub fn image_physical(info: &boot::Info, virt: u64) -> Option<u64> {
    info.image_physical(virt).or_else(|| page_walk::translate(&EntryTables, entry_root(), virt))
}

/// CR3 of a loader that scatters the image: it is one that enters in ring 0.
fn entry_root() -> u64 {
    let root;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mov {}, cr3", out(reg) root, options(nomem, nostack, preserves_flags)) };
    root
}

/// Bytes that nobody reads.
fn scratch() -> *mut u8 {
    static SCRATCH: [AtomicU8; pv_ops::table::MAX_SITE] =
        [const { AtomicU8::new(0) }; pv_ops::table::MAX_SITE];
    (&raw const SCRATCH).cast_mut().cast()
}

/// The page tables of the entry, in RAM that the direct map shows.
struct EntryTables;

impl PhysicalMemory for EntryTables {
    fn bytes(&self, address: u64, len_bytes: u64) -> Option<&[u8]> {
        let within_page = address % PAGE_SIZE + len_bytes <= PAGE_SIZE;
        if !within_page || address >= layout::DIRECT_MAP_LEN_BYTES {
            return None;
        }
        let start: *const u8 = core::ptr::with_exposed_provenance((DIRECT_MAP + address) as usize);
        // SAFETY:
        // 1. `page_walk` asks for entries of the tables in force only, which lie in RAM that every way in maps
        //    here (docs/boot.md).
        // 2. Nobody writes to them before `early` builds others; the CPU sets accessed and dirty bits at most,
        //    and those are not looked at.
        Some(unsafe { core::slice::from_raw_parts(start, len_bytes as usize) })
    }
}
