//! The memory map against a model that knows nothing of regions: one kind for every page.

use boot::memory_map::{MAX_REGIONS, PAGE_SIZE, PHYSICAL_LIMIT};
use boot::{MemoryMap, Problem, Region, RegionKind};
use proptest::prelude::*;

const KINDS: [RegionKind; 8] = [
    RegionKind::Usable,
    RegionKind::AcpiReclaimable,
    RegionKind::Loader,
    RegionKind::Module,
    RegionKind::Image,
    RegionKind::AcpiNvs,
    RegionKind::Reserved,
    RegionKind::Bad,
];

type Insertion = (u64, u64, RegionKind);

/// What each page is, inserted page by page.
struct Model {
    pages: Vec<Option<RegionKind>>,
}

impl Model {
    fn new(pages: u64) -> Self {
        let mut model = Self { pages: vec![None; pages as usize] };
        model.pages[0] = Some(RegionKind::Reserved);
        model
    }

    fn insert(&mut self, (start, len_bytes, kind): Insertion) {
        let end = start + len_bytes;
        for (page, slot) in self.pages.iter_mut().enumerate() {
            let page_start = page as u64 * PAGE_SIZE;
            let page_end = page_start + PAGE_SIZE;
            let hit = match kind {
                RegionKind::Usable => start <= page_start && page_end <= end,
                _ => start < page_end && page_start < end && len_bytes != 0,
            };
            if hit {
                *slot = Some(slot.map_or(kind, |old| old.max(kind)));
            }
        }
    }

    fn is(&self, page: usize, kind: RegionKind) -> bool {
        self.pages[page] == Some(kind)
    }
}

fn insertions(pages: u64, count: usize) -> impl Strategy<Value = Vec<Insertion>> {
    let bytes = pages * PAGE_SIZE;
    let one = (0..bytes, 0..bytes / 4, 0..KINDS.len(), any::<bool>()).prop_map(
        move |(start, len, kind, aligned)| {
            let mask = if aligned { !(PAGE_SIZE - 1) } else { !0 };
            let start = start & mask;
            (start, (len & mask).min(bytes - start), KINDS[kind])
        },
    );
    prop::collection::vec(one, 0..count)
}

/// The invariant of the type.
fn assert_well_formed(map: &MemoryMap) {
    let regions: Vec<Region> = map.iter().copied().collect();
    assert!(regions.len() <= MAX_REGIONS);
    for region in &regions {
        assert!(region.start < region.end && region.end <= PHYSICAL_LIMIT, "{region:x?}");
        assert!(region.start % PAGE_SIZE == 0 && region.end % PAGE_SIZE == 0, "{region:x?}");
    }
    for pair in regions.windows(2) {
        assert!(pair[0].end <= pair[1].start, "{pair:x?}");
        assert!(pair[0].end != pair[1].start || pair[0].kind != pair[1].kind, "not merged: {pair:x?}");
    }
    assert_ne!(map.kind_at(0), Some(RegionKind::Usable));
}

proptest! {
    #[test]
    fn each_page_is_what_the_most_restrictive_insertion_made_it(insertions in insertions(96, 40)) {
        let (mut map, mut model) = (MemoryMap::new(), Model::new(96));
        for &insertion in &insertions {
            prop_assert_eq!(map.insert(insertion.0, insertion.1, insertion.2), Ok(()));
            model.insert(insertion);
            assert_well_formed(&map);
        }
        for (page, &kind) in model.pages.iter().enumerate() {
            prop_assert_eq!(map.kind_at(page as u64 * PAGE_SIZE), kind, "page {}", page);
        }
        let usable = model.pages.iter().filter(|&&kind| kind == Some(RegionKind::Usable)).count();
        prop_assert_eq!(map.usable_bytes(), usable as u64 * PAGE_SIZE);
    }

    #[test]
    fn order_of_insertion_does_not_matter(insertions in insertions(96, 20)) {
        let build = |list: &mut dyn Iterator<Item = &Insertion>| {
            let mut map = MemoryMap::new();
            for &(start, len_bytes, kind) in list {
                map.insert(start, len_bytes, kind).unwrap();
            }
            map.iter().copied().collect::<Vec<_>>()
        };
        prop_assert_eq!(build(&mut insertions.iter()), build(&mut insertions.iter().rev()));
    }

    #[test]
    fn no_number_whatever_breaks_the_map(
        list in prop::collection::vec((any::<u64>(), any::<u64>(), 0..KINDS.len()), 0..400),
        shift in 0_u32..52,
        (start, len_bytes) in any::<(u64, u64)>(),
    ) {
        let mut map = MemoryMap::new();
        for (start, len_bytes, kind) in list {
            let _ = map.insert(start >> shift, len_bytes >> shift, KINDS[kind]);
        }
        assert_well_formed(&map);
        let (start, len_bytes) = (start >> shift, len_bytes >> shift);
        let _ = map.reserve(start, len_bytes, RegionKind::Usable);
        assert_well_formed(&map);
        let end = start.saturating_add(len_bytes);
        prop_assert!(len_bytes == 0 || map.usable().all(|region| region.end <= start || end <= region.start));
    }

    #[test]
    fn covers_agrees_with_every_page(insertions in insertions(32, 12), start in 0_u64..32, len in 1_u64..8) {
        let mut map = MemoryMap::new();
        for (start, len_bytes, kind) in insertions {
            map.insert(start, len_bytes, kind).unwrap();
        }
        let usable = |kind| kind == RegionKind::Usable;
        let each = (start..start + len).all(|page| map.kind_at(page * PAGE_SIZE).is_some_and(usable));
        prop_assert_eq!(map.covers(start * PAGE_SIZE, (start + len) * PAGE_SIZE, usable), each);
    }
}

proptest! {
    // Each case is 1000 regions and more.
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// More regions than fit: memory may get lost, but nothing becomes usable that must not be.
    #[test]
    fn a_full_map_never_has_more_usable_memory_than_was_given(insertions in insertions(3000, 700)) {
        let (mut map, mut model) = (MemoryMap::new(), Model::new(3000));
        let sparse = (0..1000).map(|n| (n * 3 * PAGE_SIZE, PAGE_SIZE, KINDS[(n % 8) as usize]));
        for insertion in sparse.chain(insertions.into_iter().map(|(start, len, kind)| (start, len % 0x8000, kind))) {
            let _ = map.insert(insertion.0, insertion.1, insertion.2);
            model.insert(insertion);
        }
        assert_well_formed(&map);
        for region in map.usable() {
            for page in region.start / PAGE_SIZE..region.end / PAGE_SIZE {
                prop_assert!(model.is(page as usize, RegionKind::Usable), "page {}", page);
            }
        }
    }
}

#[test]
fn page_zero_is_never_usable() {
    let mut map = MemoryMap::new();
    map.insert(0, 0x9_f000, RegionKind::Usable).unwrap();
    assert_eq!(map.kind_at(0), Some(RegionKind::Reserved));
    assert_eq!(map.usable_bytes(), 0x9_e000);
}

#[test]
fn usable_memory_that_wraps_around_is_refused() {
    let mut map = MemoryMap::new();
    let (start, len_bytes) = (u64::MAX - 0x1000, 0x10_0000);
    let refused = Err(Problem::RegionOutOfRange { start, len_bytes });
    assert_eq!(map.insert(start, len_bytes, RegionKind::Usable), refused);
    assert_eq!(
        map.insert(0x1000, u64::MAX, RegionKind::Usable),
        Err(Problem::RegionOutOfRange { start: 0x1000, len_bytes: u64::MAX })
    );
    assert_eq!(map.usable_bytes(), 0);
}

#[test]
fn reserved_memory_that_passes_the_last_address_still_reserves_what_lies_below() {
    let mut map = MemoryMap::new();
    map.insert(0x10_0000, 0x10_0000, RegionKind::Usable).unwrap();
    assert!(map.insert(0x18_0000, u64::MAX, RegionKind::Reserved).is_err());
    assert_eq!(map.usable_bytes(), 0x8_0000);
}

#[test]
fn a_full_map_says_so_and_keeps_its_reservations() {
    let mut map = MemoryMap::new();
    let full = Err(Problem::MemoryMapFull { limit: MAX_REGIONS as u32 });
    let results: Vec<_> = (1..=MAX_REGIONS as u64)
        .map(|n| {
            map.insert(
                n * 0x10_0000,
                0x1000 * (1 + n % 7),
                if n % 2 == 0 { RegionKind::Usable } else { RegionKind::Bad },
            )
        })
        .collect();
    assert_eq!(results.last(), Some(&full));
    // What was bad before must not come back as usable.
    let _ = map.insert(0, 0x4000_0000, RegionKind::Usable);
    for n in (1..=MAX_REGIONS as u64).filter(|n| n % 2 == 1) {
        assert_ne!(map.kind_at(n * 0x10_0000), Some(RegionKind::Usable), "{n}");
    }
}
