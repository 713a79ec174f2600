//! Memory types as the BIOS call E820h numbers them; Multiboot2 and PVH took the numbers over.
//! Neighbours: `pvh`, `multiboot2`, `bootloader` convert their maps through here.
#![forbid(unsafe_code)]

use crate::info::Info;
use crate::memory_map::RegionKind;
use crate::problem::{Problem, Structure};

/// Entries of a loader's map that are taken at most. Beyond, the whole map is refused: the entry that would
/// have reserved something might be among those left out.
pub const MAX_ENTRIES: u64 = 1024;

/// The kind of memory type `number` (ACPI 6.5 §15, table 15.1). What has no number here is reserved.
pub fn kind(number: u32) -> RegionKind {
    match number {
        1 => RegionKind::Usable,
        3 => RegionKind::AcpiReclaimable,
        4 => RegionKind::AcpiNvs,
        5 => RegionKind::Bad,
        _ => RegionKind::Reserved,
    }
}

/// Whether a map of `found` entries can be taken; if not, notes why.
pub(crate) fn accept_entries(info: &mut Info, structure: Structure, found: u64) -> bool {
    match found {
        0 => info.problem(Problem::NoMemoryMap),
        1..=MAX_ENTRIES => return true,
        _ => info.problem(Problem::TooMany { structure, found, limit: MAX_ENTRIES }),
    }
    false
}
