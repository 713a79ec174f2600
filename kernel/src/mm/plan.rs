//! What to do with the memory the loader told of: pure decisions, before anything is touched.
//!
//! The loader may lie. Memory is left alone when it lies beyond what the CPU or the direct map can address, and
//! when the hole before it would cost more bookkeeping than it is worth. The first frames to be used, and the
//! bookkeeping, lie where the entry code has mapped memory already.
//! Neighbours: `boot::memory_map` (what came in), `early` (who carries it out).
#![forbid(unsafe_code)]

use boot::{MemoryMap, Region, RegionKind};
use core::ops::Range;

use super::{
    frame::buddy::Buddy,
    layout::{ENTRY_MAP_LEN_BYTES, PAGE_SIZE, align_down},
};

/// Bookkeeping may take this part of the memory it serves, which a map without great holes stays far below.
const MAX_BOOKKEEPING_PART: u64 = 64;

/// The decisions. Addresses are physical.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// The addresses that the frame allocator covers.
    pub(super) span: Range<u64>,
    /// Where its bookkeeping lies: whole pages of usable memory.
    pub(super) bookkeeping: Range<u64>,
    /// Usable bytes that are left alone.
    pub(super) ignored_bytes: u64,
}

/// Why no memory management is possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    /// The loader told of no usable memory that the entry code has mapped.
    #[error("no usable memory below 4 GiB")]
    NoMemory,
    /// All there is does not suffice.
    #[error("{usable_kib} KiB of usable memory are not enough")]
    NotEnough {
        /// What is usable below 4 GiB.
        usable_kib: u64,
    },
    /// The loader scattered the image.
    #[error("the image lies in more than {limit} pieces")]
    ImageInPieces {
        /// Pieces that are handled.
        limit: usize,
    },
    /// A page of the image is not mapped by the loader.
    #[error("the image is not mapped at {virt:#x}")]
    ImageNotMapped {
        /// Its address.
        virt: u64,
    },
}

/// Whether the frame allocator comes to own memory of this kind, now or once the loader's data has been read.
pub(super) fn is_allocatable(kind: RegionKind) -> bool {
    matches!(kind, RegionKind::Usable | RegionKind::Loader)
}

/// Whether memory of this kind is RAM that the direct map maps.
pub(super) fn is_ram(kind: RegionKind) -> bool {
    match kind {
        RegionKind::Usable
        | RegionKind::AcpiReclaimable
        | RegionKind::AcpiNvs
        | RegionKind::Loader
        | RegionKind::Module
        | RegionKind::Image => true,
        RegionKind::Reserved | RegionKind::Bad => false,
    }
}

/// The parts of `memory` of the kinds that `accept` takes, cut to whole pages below `limit`, in order; what
/// touches is one range.
pub(super) fn ranges(memory: &MemoryMap, limit: u64, accept: fn(RegionKind) -> bool) -> Ranges<'_> {
    Ranges { regions: memory.iter(), limit: align_down(limit, PAGE_SIZE), accept, pending: None }
}

/// See [`ranges`].
#[derive(Clone)]
pub(super) struct Ranges<'a> {
    regions: core::slice::Iter<'a, Region>,
    limit: u64,
    accept: fn(RegionKind) -> bool,
    /// The part that ended the last range because it did not touch it.
    pending: Option<Range<u64>>,
}

impl Ranges<'_> {
    fn next_part(&mut self) -> Option<Range<u64>> {
        let accepted = self.regions.find(|region| (self.accept)(region.kind) && region.start < self.limit)?;
        Some(accepted.start..accepted.end.min(self.limit))
    }
}

impl Iterator for Ranges<'_> {
    type Item = Range<u64>;

    // Used in many places, each run once: one copy is less to load and, in an emulator, to translate.
    #[inline(never)]
    fn next(&mut self) -> Option<Range<u64>> {
        let mut range = self.pending.take().or_else(|| self.next_part())?;
        while let Some(part) = self.next_part() {
            if part.start != range.end {
                self.pending = Some(part);
                break;
            }
            range.end = part.end;
        }
        Some(range)
    }
}

/// Numbers of the frames of a range of whole pages.
pub(super) fn frames(range: &Range<u64>) -> Range<u64> {
    range.start / PAGE_SIZE..range.end / PAGE_SIZE
}

/// The parts of `range` between the `holes`, which are in order.
pub(super) fn without(range: Range<u64>, holes: &[Range<u64>]) -> impl Iterator<Item = Range<u64>> {
    let starts = core::iter::once(range.start).chain(holes.iter().map(|hole| hole.end));
    let ends = holes.iter().map(|hole| hole.start).chain(core::iter::once(range.end));
    let cut = move |(start, end): (u64, u64)| start.max(range.start)..end.min(range.end);
    starts.zip(ends).map(cut).filter(|part| !part.is_empty())
}

/// Bytes of bookkeeping for the addresses `span`, in whole pages.
fn bookkeeping_bytes(span: &Range<u64>) -> u64 {
    (Buddy::words_for(&frames(span)) as u64 * 8).next_multiple_of(PAGE_SIZE)
}

/// Decides what to do with `memory` on a machine that can use physical addresses below `limit`.
///
/// # Errors
/// When there is not enough memory below 4 GiB to begin with.
pub(super) fn plan(memory: &MemoryMap, limit: u64) -> Result<Plan, Refused> {
    let low = || ranges(memory, limit.min(ENTRY_MAP_LEN_BYTES), |kind| kind == RegionKind::Usable);
    let bytes = |range: &Range<u64>| range.end - range.start;
    let largest_hole = low().map(|range| bytes(&range)).max().ok_or(Refused::NoMemory)?;
    let not_enough = Refused::NotEnough { usable_kib: low().map(|range| bytes(&range)).sum::<u64>() / 1024 };
    let mut span: Option<Range<u64>> = None;
    let mut covered_bytes = 0;
    for range in ranges(memory, limit, is_allocatable) {
        let wider = span.as_ref().map_or(range.start, |span| span.start)..range.end;
        let worth = PAGE_SIZE.max((covered_bytes + bytes(&range)) / MAX_BOOKKEEPING_PART);
        if bookkeeping_bytes(&wider) > worth.min(largest_hole) {
            break;
        }
        covered_bytes += bytes(&range);
        span = Some(wider);
    }
    let span = span.ok_or(not_enough)?;
    let needed = bookkeeping_bytes(&span);
    let fits = |range: &Range<u64>| range.end <= span.end && bytes(range) >= needed;
    let place = low().filter(fits).last().ok_or(not_enough)?;
    let usable = |limit| {
        ranges(memory, limit, |kind| kind == RegionKind::Usable).map(|range| bytes(&range)).sum::<u64>()
    };
    Ok(Plan {
        bookkeeping: place.end - needed..place.end,
        ignored_bytes: usable(u64::MAX).saturating_sub(usable(span.end)),
        span,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: u64 = 64 << 40;
    const MIB: u64 = 1 << 20;

    fn memory(regions: &[(u64, u64, RegionKind)]) -> MemoryMap {
        let mut memory = MemoryMap::new();
        for &(start, len_bytes, kind) in regions {
            let _ = memory.insert(start, len_bytes, kind);
        }
        memory
    }

    #[test]
    fn four_mib_are_enough() {
        let image = (2 * MIB, 400 << 10, RegionKind::Image);
        let memory = memory(&[(0, 640 << 10, RegionKind::Usable), (MIB, 3 * MIB, RegionKind::Usable), image]);
        let plan = plan(&memory, LIMIT).unwrap();
        assert_eq!(plan.bookkeeping, 4 * MIB - 4096..4 * MIB);
        assert_eq!((plan.span, plan.ignored_bytes), (4096..4 * MIB, 0));
    }

    #[test]
    fn memory_behind_an_absurd_hole_is_left_alone() {
        let far = (1 << 45, 4096, RegionKind::Usable);
        let plan = plan(&memory(&[(MIB, 64 * MIB, RegionKind::Usable), far]), LIMIT).unwrap();
        assert_eq!(plan.span.end, 65 * MIB);
        assert_eq!(plan.ignored_bytes, 4096);
    }

    #[test]
    fn memory_beyond_the_cpu_is_left_alone() {
        let memory = memory(&[(MIB, 64 * MIB, RegionKind::Usable), (1 << 36, MIB, RegionKind::Usable)]);
        assert_eq!(plan(&memory, 1 << 36).unwrap().ignored_bytes, MIB);
    }

    #[test]
    fn claims_of_more_memory_than_can_be_kept_in_the_books_do_not_stop_the_boot() {
        let memory = memory(&[(MIB, 8 * MIB, RegionKind::Usable), (4 << 30, 60 << 40, RegionKind::Usable)]);
        assert_eq!(plan(&memory, LIMIT).unwrap().span.end, 9 * MIB);
    }

    #[test]
    fn no_memory_below_4_gib_is_refused() {
        assert_eq!(plan(&memory(&[]), LIMIT), Err(Refused::NoMemory));
        assert_eq!(plan(&memory(&[(8 << 30, 1 << 30, RegionKind::Usable)]), LIMIT), Err(Refused::NoMemory));
    }

    #[test]
    fn touching_ram_of_different_kinds_is_one_range() {
        let memory = memory(&[
            (MIB, MIB, RegionKind::Usable),
            (2 * MIB, MIB, RegionKind::Image),
            (3 * MIB, MIB, RegionKind::Reserved),
        ]);
        assert!(ranges(&memory, LIMIT, is_ram).eq(core::iter::once(MIB..3 * MIB)));
    }

    #[test]
    fn holes_are_cut_out() {
        let holes = [0..2, 5..6, 6..8, 20..30];
        assert!(without(1..10, &holes).eq([2..5, 8..10]));
        assert!(without(1..10, &[]).eq(core::iter::once(1..10)));
        assert_eq!(without(5..6, &holes).count(), 0);
    }

    proptest! {
        /// Whatever the map: the bookkeeping lies in usable memory that the entry code has mapped.
        #[test]
        fn bookkeeping_lies_in_usable_memory(regions in prop::collection::vec((0u64..1 << 36, 0u64..1 << 32, 0usize..4), 0..20)) {
            let kinds = [RegionKind::Usable, RegionKind::Usable, RegionKind::Reserved, RegionKind::Loader];
            let regions: Vec<_> = regions.into_iter().map(|(start, len, kind)| (start, len, kinds[kind])).collect();
            let memory = memory(&regions);
            if let Ok(plan) = plan(&memory, LIMIT) {
                let place = plan.bookkeeping;
                prop_assert!(!place.is_empty() && place.end <= ENTRY_MAP_LEN_BYTES);
                prop_assert!(memory.covers(place.start, place.end, |kind| kind == RegionKind::Usable));
                prop_assert!(plan.span.start <= place.start && place.end <= plan.span.end);
                prop_assert!(Buddy::words_for(&frames(&plan.span)) as u64 * 8 <= place.end - place.start);
            }
        }
    }
}
