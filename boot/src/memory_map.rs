//! The map of physical memory: sorted, disjoint regions of whole pages, in a fixed capacity.
//! Loaders hand over regions in any order, overlapping, unaligned or absurd; `insert` makes sense of each,
//! and in doubt memory is not usable. Neighbours: `info` owns one, `kernel::mm::frame` is fed from it.
#![forbid(unsafe_code)]

use crate::problem::Problem;

/// Bytes of a page.
pub const PAGE_SIZE: u64 = 4096;
/// Regions that a map holds at most.
pub const MAX_REGIONS: usize = 256;
/// Physical addresses end here: 52 bits (AMD64 APM vol. 2 §5.3, Intel SDM vol. 3A §4.1.4).
pub const PHYSICAL_LIMIT: u64 = 1 << 52;

/// What a region may be used for. Where two regions overlap, the later kind of this list wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RegionKind {
    /// Free memory.
    Usable,
    /// ACPI tables; usable once they have been read.
    AcpiReclaimable,
    /// Structures of the loader that are still in use: page tables, boot stack, boot information.
    Loader,
    /// A module, see [`Info::modules`](crate::Info::modules).
    Module,
    /// The guest's own image.
    Image,
    /// ACPI non-volatile storage: the firmware's for ever.
    AcpiNvs,
    /// Not to be touched: firmware, devices, or memory nobody has explained.
    Reserved,
    /// Memory the firmware found to be broken.
    Bad,
}

/// A range of physical memory of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Physical address of the first byte, page-aligned in a map.
    pub start: u64,
    /// Physical address after the last byte, page-aligned in a map.
    pub end: u64,
    /// What it may be used for.
    pub kind: RegionKind,
}

impl Region {
    /// Length in bytes.
    pub const fn len_bytes(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

/// All memory that the loader told of. Invariant: sorted, disjoint, page-aligned, not empty regions below
/// [`PHYSICAL_LIMIT`]; neighbours of one kind are one region; page 0 is never usable.
#[derive(Clone, Debug)]
pub struct MemoryMap {
    regions: heapless::Vec<Region, MAX_REGIONS>,
}

impl Default for MemoryMap {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryMap {
    /// A map that holds only page 0, reserved: there are the real-mode vectors and the BIOS data area, and
    /// Rust takes its address for null.
    pub fn new() -> Self {
        let page_zero = Region { start: 0, end: PAGE_SIZE, kind: RegionKind::Reserved };
        Self { regions: heapless::Vec::from_iter([page_zero]) }
    }

    /// Adds `len_bytes` bytes at physical address `start`. Usable memory shrinks to whole pages, all other
    /// kinds grow to whole pages; where it overlaps what is there already, the later [`RegionKind`] wins.
    ///
    /// # Errors
    /// - [`Problem::RegionOutOfRange`]: it wraps around or passes [`PHYSICAL_LIMIT`]. Usable memory is left
    ///   out, other kinds are cut there.
    /// - [`Problem::MemoryMapFull`]: it is in the map, but neighbours had to be joined to one reserved region.
    pub fn insert(&mut self, start: u64, len_bytes: u64, kind: RegionKind) -> Result<(), Problem> {
        let end = start.checked_add(len_bytes).filter(|&end| end <= PHYSICAL_LIMIT);
        let out_of_range = Problem::RegionOutOfRange { start, len_bytes };
        if kind == RegionKind::Usable {
            let end = end.ok_or(out_of_range)? & !(PAGE_SIZE - 1);
            // `start` is at most 2^52 here, so this cannot overflow.
            return self.insert_pages(Region { start: start.next_multiple_of(PAGE_SIZE), end, kind });
        }
        let cut = Region {
            start: start.min(PHYSICAL_LIMIT) & !(PAGE_SIZE - 1),
            end: end.unwrap_or(PHYSICAL_LIMIT).next_multiple_of(PAGE_SIZE),
            kind,
        };
        if len_bytes != 0 {
            self.insert_pages(cut)?;
        }
        end.map(|_| ()).ok_or(out_of_range)
    }

    /// Takes `len_bytes` bytes at `start` out of use: no page that they touch is usable afterwards.
    /// A `kind` of [`RegionKind::Usable`] makes no sense here and reserves.
    ///
    /// # Errors
    /// As [`insert`](Self::insert); the pages below [`PHYSICAL_LIMIT`] are out of use in any case.
    pub fn reserve(&mut self, start: u64, len_bytes: u64, kind: RegionKind) -> Result<(), Problem> {
        let kind = if kind == RegionKind::Usable { RegionKind::Reserved } else { kind };
        self.insert(start, len_bytes, kind)
    }

    /// The regions in ascending order.
    pub fn iter(&self) -> core::slice::Iter<'_, Region> {
        self.regions.iter()
    }

    /// The usable regions in ascending order.
    pub fn usable(&self) -> impl Iterator<Item = &Region> {
        self.iter().filter(|region| region.kind == RegionKind::Usable)
    }

    /// Bytes of usable memory.
    pub fn usable_bytes(&self) -> u64 {
        self.usable().map(Region::len_bytes).sum()
    }

    /// What the byte at `address` is; `None` in a gap.
    pub fn kind_at(&self, address: u64) -> Option<RegionKind> {
        let index = self.regions.partition_point(|region| region.end <= address);
        self.regions.get(index).filter(|region| region.start <= address).map(|region| region.kind)
    }

    /// Whether the map explains every byte of `start..end`, and each by a kind that `accept` takes.
    pub fn covers(&self, start: u64, end: u64, accept: impl Fn(RegionKind) -> bool) -> bool {
        let mut reached = start;
        for region in self.iter().filter(|region| region.end > start && region.start < end) {
            if region.start > reached || !accept(region.kind) {
                return false;
            }
            reached = region.end;
        }
        reached >= end
    }

    /// Inserts whole pages below the limit.
    fn insert_pages(&mut self, new: Region) -> Result<(), Problem> {
        if new.start >= new.end {
            return Ok(());
        }
        let sorted_so_far = self.regions.last().is_none_or(|last| last.end <= new.start);
        let fits = if sorted_so_far { self.append(new) } else { self.merge(new) };
        if fits { Ok(()) } else { Err(Problem::MemoryMapFull { limit: MAX_REGIONS as u32 }) }
    }

    /// Builds the map anew, in ascending order, with `new` where it belongs. Tells whether all fitted.
    fn merge(&mut self, new: Region) -> bool {
        let mut rest = new;
        let mut fits = true;
        for old in core::mem::take(&mut self.regions) {
            // What of `rest` lies before `old`, in `old`, and how much of `old` that leaves on both sides.
            let before = Region { end: rest.end.min(old.start), ..rest };
            rest.start = rest.start.max(before.end);
            let inside = Region {
                start: rest.start.clamp(old.start, old.end),
                end: rest.end.clamp(old.start, old.end),
                kind: rest.kind.max(old.kind),
            };
            fits &= self.append(before);
            fits &= self.append(Region { end: inside.start, ..old });
            fits &= self.append(inside);
            fits &= self.append(Region { start: inside.end, ..old });
            rest.start = rest.start.max(inside.end);
        }
        fits & self.append(rest)
    }

    /// Puts `region` after all others, which end before it starts. Tells whether there was room for it.
    fn append(&mut self, region: Region) -> bool {
        if region.start >= region.end {
            return true;
        }
        if let Some(last) = self.regions.last_mut()
            && last.end == region.start
            && last.kind == region.kind
        {
            last.end = region.end;
            return true;
        }
        if self.regions.push(region).is_ok() {
            return true;
        }
        self.join_cheapest();
        self.append(region);
        false
    }

    /// Joins those two neighbours whose joining costs the least usable memory, then the least of a gap, to one
    /// reserved region. So a full map never forgets a reservation, which a later usable region could undo.
    fn join_cheapest(&mut self) {
        let usable = |region: &Region| if region.kind == RegionKind::Usable { region.len_bytes() } else { 0 };
        let cost = |pair: &[Region]| (usable(&pair[0]) + usable(&pair[1]), pair[1].start - pair[0].end);
        let Some(first) =
            self.regions.windows(2).enumerate().min_by_key(|(_, pair)| cost(pair)).map(|(i, _)| i)
        else {
            return;
        };
        let second = self.regions.remove(first + 1);
        let kind = if second.kind == self.regions[first].kind { second.kind } else { RegionKind::Reserved };
        let kind = if kind == RegionKind::Usable { RegionKind::Reserved } else { kind };
        self.regions[first] = Region { end: second.end, kind, ..self.regions[first] };
        // The joined region may now be of one kind with a neighbour that it touches.
        for left in [first, first.wrapping_sub(1)] {
            if let Some(&[a, b]) = self.regions.get(left..).and_then(|rest| rest.first_chunk::<2>())
                && a.end == b.start
                && a.kind == b.kind
            {
                self.regions.remove(left + 1);
                self.regions[left].end = b.end;
            }
        }
    }
}

impl<'a> IntoIterator for &'a MemoryMap {
    type Item = &'a Region;
    type IntoIter = core::slice::Iter<'a, Region>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
