//! The take-over: from the loader's page tables to our own.
//!
//! While the entry's tables are in force only RAM below 4 GiB is mapped, so only that is given to the frame
//! allocator; the rest follows once it is mapped. Image addresses are translated by a walk through the entry's
//! tables: not every loader places the image in one piece.
//! Neighbours: `plan` (the decisions), `image` (the sections), `tables` (who keeps the result).

use boot::Info;
use core::{fmt, ops::Range};

use super::{
    frame::{self, buddy::Buddy},
    image,
    layout::{self, ENTRY_MAP_LEN_BYTES, PAGE_SIZE},
    map,
    page_table::{Caching, Level, MapError, PageTable, Protection},
    plan::{self, Plan, Refused},
    registers,
    tables::{self, Live},
};
use crate::{hypervisor, sync::IrqMutex};

/// Bits of CR3 that are the root table's address.
const CR3_ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// The part of the address space in which the entry maps the image.
const IMAGE_WINDOW_BYTES: u64 = 1 << 30;
/// Ranges of loader memory that are remembered; the rest is never reclaimed.
const MAX_LOADER_RANGES: usize = 32;

/// Pieces in which the image may lie in physical memory; the `bootloader` crate makes less than ten.
const MAX_PIECES: usize = 128;

type Pieces = heapless::Vec<Piece, MAX_PIECES>;
type LoaderRanges = heapless::Vec<Range<u64>, MAX_LOADER_RANGES>;

/// What the loader still used when the guest started. Physical addresses.
static LOADER: IrqMutex<LoaderRanges> = IrqMutex::new(LoaderRanges::new());

/// A part of the image that lies in physical memory in one piece.
struct Piece {
    virt: u64,
    phys: Range<u64>,
    protection: Protection,
}

/// What was made, as a sentence.
#[derive(Debug)]
pub(super) struct Report {
    usable_bytes: u64,
    regions: usize,
    ignored_bytes: u64,
    largest: Level,
    table_bytes: u64,
    bookkeeping_bytes: u64,
}

/// The tables that were in force at entry, to be read.
pub(super) fn entry_tables() -> PageTable<Live> {
    let format =
        super::page_table::Format { largest: Level::Three, no_execute: true, write_combining: false };
    PageTable::existing(pv_ops::read_cr3() & CR3_ADDRESS, format, Live::default())
}

/// Takes over all memory that `info` tells of.
pub(super) fn take_over(info: &Info) -> Result<Report, Refused> {
    let memory = &info.memory;
    let plan = plan::plan(memory, registers::ram_limit())?;
    let usable_kib = memory.usable_bytes() / 1024;
    let usable = || plan::ranges(memory, plan.span.end, |kind| kind == boot::RegionKind::Usable);

    frame::install(bookkeeping(&plan));
    for range in usable() {
        let low = range.start..range.end.min(ENTRY_MAP_LEN_BYTES);
        // SAFETY: usable memory of the map is nobody's, in the direct map of the entry, and new to the allocator.
        unsafe { frame::donate(plan::frames(&low)) };
    }
    let entry = entry_tables();
    frame::reserve(plan::frames(&plan.bookkeeping));
    let pieces = image_pieces(&entry)?;
    for piece in &pieces {
        frame::reserve(plan::frames(&piece.phys));
    }

    let free_before = frame::statistics().free;
    let adopted = hypervisor::services().keeps_entry_tables;
    let make = if adopted { adopt(&pieces) } else { build(memory, &plan, &pieces) };
    let tables = make.map_err(|_| Refused::NotEnough { usable_kib })?;
    let table_bytes = (free_before - frame::statistics().free) * PAGE_SIZE;
    let largest = tables.format().largest;
    if !adopted {
        // SAFETY:
        // 1. The tree maps the image, the boot stack in it included, at the same addresses and to the same frames.
        // 2. It maps all RAM at the addresses of the direct map that were used so far.
        unsafe { pv_ops::write_cr3(tables.root()) };
    }
    tables::install(tables);

    for range in usable() {
        let high = range.start.max(ENTRY_MAP_LEN_BYTES)..range.end;
        // SAFETY: as above; it is in our own direct map now.
        unsafe { frame::donate(plan::frames(&high)) };
    }
    let loader = plan::ranges(memory, plan.span.end, |kind| kind == boot::RegionKind::Loader);
    let mut image: heapless::Vec<Range<u64>, MAX_PIECES> = heapless::Vec::new();
    for piece in pieces {
        // There is room for all, and in order they are.
        let _ = image.insert(image.partition_point(|other| other.start < piece.phys.start), piece.phys);
    }
    *LOADER.lock() = loader.flat_map(|range| plan::without(range, &image)).take(MAX_LOADER_RANGES).collect();
    Ok(Report {
        usable_bytes: frame::statistics().total_bytes(),
        regions: usable().count(),
        ignored_bytes: plan.ignored_bytes,
        largest,
        table_bytes,
        bookkeeping_bytes: plan.bookkeeping.end - plan.bookkeeping.start,
    })
}

/// The frame allocator, without frames, with its bookkeeping in place.
fn bookkeeping(plan: &Plan) -> Buddy<'static> {
    let Range { start, end } = plan.bookkeeping;
    let place = core::ptr::with_exposed_provenance_mut::<u64>(layout::direct_map(start) as usize);
    // SAFETY:
    // 1. `plan` chose whole pages of usable memory below 4 GiB, which every entry maps in the direct map; they
    //    are reserved before any frame is given out, so they are ours for ever.
    // 2. Every bit pattern is a valid `u64`.
    let words = unsafe { core::slice::from_raw_parts_mut(place, (end - start) as usize / size_of::<u64>()) };
    // To the end of the last page, although not all of it is used: an emulator lets every write to a page cost
    // a thousand times as much for as long as there is code in it that the firmware once ran.
    words.fill(0);
    let frames = plan::frames(&plan.span);
    Buddy::new(&mut words[..Buddy::words_for(&frames)], &frames)
}

/// Builds the address space: the direct map of all RAM and the image, with the protection each part is to have
/// under all its addresses.
fn build(memory: &boot::MemoryMap, plan: &Plan, pieces: &[Piece]) -> Result<PageTable<Live>, MapError> {
    let mut tables = PageTable::new(registers::format(), Live::default())?;
    let near = plan::ranges(memory, plan.span.end, plan::is_ram);
    // Usable memory beyond the span is left alone, which a table in it is not.
    let far = plan::ranges(memory, registers::ram_limit(), |kind| {
        plan::is_ram(kind) && !plan::is_allocatable(kind)
    });
    let far = far.map(|range| range.start.max(plan.span.end)..range.end).filter(|range| !range.is_empty());
    for ram in near.chain(far) {
        let (virt, len_bytes) = (layout::direct_map(ram.start), ram.end - ram.start);
        tables.map(virt, ram.start, len_bytes, Protection::ReadWrite, Caching::WriteBack)?;
    }
    for Piece { virt, phys, protection } in pieces {
        tables.map(*virt, phys.start, phys.end - phys.start, *protection, Caching::WriteBack)?;
        if *protection != Protection::ReadWrite {
            protect_alias(&mut tables, phys)?;
        }
    }
    Ok(tables)
}

/// Makes the entry's own tables, which map all RAM in the direct map already, the kernel's: the image gets its
/// protection under all its addresses, and what else was mapped in its window is not any more: memory that is mapped
/// there could not be given away.
fn adopt(pieces: &[Piece]) -> Result<PageTable<Live>, MapError> {
    let mut tables =
        PageTable::existing(pv_ops::read_cr3() & CR3_ADDRESS, registers::format(), Live::of_others());
    let mut next = layout::IMAGE;
    for Piece { virt, phys, protection } in pieces {
        let len_bytes = phys.end - phys.start;
        if next < *virt {
            tables.unmap(next, virt - next, &mut |_| {})?;
        }
        tables.protect(*virt, len_bytes, *protection)?;
        if *protection != Protection::ReadWrite {
            protect_alias(&mut tables, phys)?;
        }
        next = virt + len_bytes;
    }
    tables.unmap(next, IMAGE_WINDOW_BYTES - (next - layout::IMAGE), &mut |_| {})?;
    tables.store().settle();
    tables.store().own();
    Ok(tables)
}

/// Takes the right to write to `phys` away from the direct map.
fn protect_alias(tables: &mut PageTable<Live>, phys: &Range<u64>) -> Result<(), MapError> {
    let len_bytes = phys.end - phys.start;
    match tables.protect(layout::direct_map(phys.start), len_bytes, Protection::ReadOnly) {
        // The loader's map does not call all of it RAM: what is not mapped need not be protected.
        Err(MapError::NotMapped { .. }) => {
            for alias in phys.clone().step_by(PAGE_SIZE as usize).map(layout::direct_map) {
                if tables.translate(alias).is_some() {
                    tables.protect(alias, PAGE_SIZE, Protection::ReadOnly)?;
                }
            }
            Ok(())
        }
        result => result,
    }
}

/// The image, translated page by page; what lies together is one piece.
fn image_pieces(entry: &PageTable<Live>) -> Result<Pieces, Refused> {
    let mut pieces = Pieces::new();
    for section in image::sections() {
        for virt in section.pages.step_by(PAGE_SIZE as usize) {
            let phys = entry.translate(virt).ok_or(Refused::ImageNotMapped { virt })?;
            let (protection, end) = (section.protection, phys + PAGE_SIZE);
            let follows = |piece: &&mut Piece| piece.phys.end == phys && piece.protection == protection;
            match pieces.last_mut().filter(follows) {
                Some(piece) => piece.phys.end = end,
                None => {
                    let piece = Piece { virt, phys: phys..end, protection };
                    pieces.push(piece).map_err(|_| Refused::ImageInPieces { limit: MAX_PIECES })?;
                }
            }
        }
    }
    Ok(pieces)
}

/// Makes the table of pv-ops read-only, under all its addresses: from here on no stray write can redirect one.
/// After the patching.
pub fn protect_pv_table() {
    for virt in image::pv_table().step_by(PAGE_SIZE as usize) {
        let alias = map::translate(virt).map(layout::direct_map);
        for page in [Some(virt), alias.filter(|&alias| map::translate(alias).is_some())].into_iter().flatten()
        {
            // SAFETY: the table is written by the patching alone, which is over.
            if let Err(error) = unsafe { map::protect(page, PAGE_SIZE, Protection::ReadOnly) } {
                log::warn!("the table of pv-ops stays writable at {page:#x}: {error}");
            }
        }
    }
}

/// Frees what the loader left in memory besides the image and the modules: its page tables, its data. Called
/// once all of `boot::Info`, and what it points to (ACPI tables), has been read. Returns the bytes.
pub fn reclaim_loader_memory() -> u64 {
    let ranges = core::mem::take(&mut *LOADER.lock());
    for range in &ranges {
        // SAFETY:
        // 1. The range is RAM of the direct map within the allocator's span, of a kind not given to it before,
        //    and without the image: `take_over` made the list, which is empty from now on.
        // 2. The loader is gone, its tables are not in force any more, and its data has been read.
        unsafe { frame::donate(plan::frames(range)) };
    }
    ranges.iter().map(|range| range.end - range.start).sum()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let page = match self.largest {
            Level::One => "4 KiB",
            Level::Two => "2 MiB",
            Level::Three | Level::Four => "1 GiB",
        };
        write!(f, "{} usable in {} regions, pages up to {page}, ", Bytes(self.usable_bytes), self.regions)?;
        write!(f, "tables {}, bookkeeping {}", Bytes(self.table_bytes), Bytes(self.bookkeeping_bytes))?;
        if self.ignored_bytes > 0 {
            write!(f, "; {} out of reach are left alone", Bytes(self.ignored_bytes))?;
        }
        Ok(())
    }
}

/// A size in the unit that suits it.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 >> 10 {
            kib @ ..10_240 => write!(f, "{kib} KiB"),
            kib => write!(f, "{} MiB", kib >> 10),
        }
    }
}

crate::kernel_test! {
    /// The entry's identity map is gone, and with it everything in the lower half.
    fn nothing_is_mapped_in_the_lower_half() {
        let mut lowest = u64::MAX;
        map::for_each_page(|leaf| lowest = lowest.min(leaf.virt));
        assert!(lowest >= layout::DIRECT_MAP, "{lowest:#x}");
    }
}

crate::kernel_test! {
    fn no_page_is_writable_and_executable() {
        let mut pages = 0;
        map::for_each_page(|leaf| {
            pages += 1;
            assert!(!(leaf.writable && leaf.executable), "{leaf:x?}");
        });
        assert!(pages > 10, "{pages}");
    }
}

crate::kernel_test! {
    fn only_the_images_text_is_executable() {
        let text: heapless::Vec<_, 4> = image::sections()
            .into_iter()
            .filter_map(|section| (section.protection == Protection::ReadExecute).then_some(section.pages))
            .collect();
        map::for_each_page(|leaf| {
            assert!(!leaf.executable || text.iter().any(|pages| pages.contains(&leaf.virt)), "{leaf:x?}");
        });
    }
}

crate::kernel_test! {
    /// Text, constants, symbols and the table of pv-ops: no address in the whole space leads to them writably.
    fn read_only_memory_has_no_writable_alias() {
        let read_only = image::sections().into_iter().filter(|section| section.protection != Protection::ReadWrite);
        let mut frames = alloc::vec::Vec::new();
        for virt in read_only.map(|section| section.pages).chain([image::pv_table()]).flat_map(|pages| pages.step_by(4096)) {
            frames.push(map::translate(virt).expect("the image is mapped"));
        }
        frames.sort_unstable();
        assert!(frames.len() > 3);
        map::for_each_page(|leaf| {
            let end = leaf.phys + leaf.level.span();
            let first = frames.partition_point(|&frame| frame < leaf.phys);
            let hit = frames.get(first).is_some_and(|&frame| frame < end);
            assert!(!(hit && leaf.writable), "{leaf:x?}");
        });
    }
}

crate::kernel_test! {
    fn the_direct_map_uses_large_pages() {
        let largest = registers::format().largest;
        if largest == Level::One {
            crate::skip!("this CPU has small pages only")
        }
        let (mut large, mut small) = (0, 0);
        map::for_each_page(|leaf| match leaf.level {
            _ if layout::direct_map_phys(leaf.virt).is_none() => {}
            Level::One => small += leaf.level.span(),
            _ => large += leaf.level.span(),
        });
        if small + large < 8 << 20 {
            crate::skip!("{} RAM only", Bytes(small + large))
        }
        // Small pages at the edges of regions and around the image; each of these costs less than 2 MiB.
        assert!(large > small || small < 16 << 20, "{large} bytes in large pages, {small} in small ones");
        assert!(large > 0);
    }
}
