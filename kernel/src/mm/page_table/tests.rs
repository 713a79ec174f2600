//! The page tables against a store in memory and a naive model.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const LARGEST: Format = Format { largest: Level::Three, no_execute: true, write_combining: true };
const BASE: u64 = 0xffff_c000_0000_0000;
const WB: Caching = Caching::WriteBack;

/// Tables in memory; knows which are allocated, and can run out.
#[derive(Debug)]
struct Fake {
    tables: BTreeMap<u64, ([u64; ENTRIES], Level)>,
    next: u64,
    left: usize,
    changed: BTreeSet<u64>,
}

impl Default for Fake {
    fn default() -> Self {
        Self { tables: BTreeMap::new(), next: 0x1000, left: 10_000, changed: BTreeSet::new() }
    }
}

impl Store for Fake {
    fn allocate(&mut self, level: Level) -> Result<u64, OutOfMemory> {
        self.left = self.left.checked_sub(1).ok_or(OutOfMemory { len_bytes: PAGE_SIZE })?;
        self.next += 0x1000;
        self.tables.insert(self.next, ([0; ENTRIES], level));
        Ok(self.next)
    }

    fn release(&mut self, table: u64) {
        self.left += 1;
        let (entries, _) = self.tables.remove(&table).expect("released what is not a table");
        assert!(entries.iter().all(|&entry| entry == 0), "released a table in use");
    }

    fn read(&self, table: u64, index: usize) -> u64 {
        self.tables[&table].0[index]
    }

    fn write(&mut self, table: u64, index: usize, level: Level, value: u64) {
        let (entries, of) = self.tables.get_mut(&table).expect("wrote to what is not a table");
        assert_eq!(*of, level);
        entries[index] = value;
    }

    fn changed(&mut self, virt: u64, _level: Level) {
        self.changed.insert(virt);
    }
}

fn tables() -> PageTable<Fake> {
    PageTable::new(LARGEST, Fake::default()).unwrap()
}

fn pages(tables: &PageTable<Fake>) -> Vec<Leaf> {
    let mut pages = Vec::new();
    for start in [0, 0xffff_8000_0000_0000] {
        tables.visit(start, 1 << 47, &mut |leaf| {
            pages.push(leaf);
            true
        });
    }
    pages
}

#[test]
fn the_largest_page_that_fits_is_used() {
    let mut tables = tables();
    let start = 0x3fff_f000;
    tables.map(BASE + start, start, (1 << 30) + (2 << 20) + 0x2000, Protection::ReadWrite, WB).unwrap();
    let levels: Vec<Level> = pages(&tables).iter().map(|leaf| leaf.level).collect();
    assert_eq!(levels, [Level::One, Level::Three, Level::Two, Level::One]);
}

#[test]
fn a_cpu_without_large_pages_gets_none() {
    let mut tables = PageTable::new(Format { largest: Level::One, ..LARGEST }, Fake::default()).unwrap();
    tables.map(BASE, 0, 4 << 20, Protection::ReadWrite, WB).unwrap();
    assert!(pages(&tables).iter().all(|leaf| leaf.level == Level::One));
}

#[test]
fn a_split_page_keeps_its_caching_and_what_it_maps() {
    for level in [Level::Two, Level::Three] {
        let mut tables = tables();
        tables.map(BASE, 1 << 30, level.span(), Protection::ReadWrite, Caching::WriteCombining).unwrap();
        tables.protect(BASE + 0x5000, PAGE_SIZE, Protection::ReadOnly).unwrap();
        assert_eq!(tables.translate(BASE + 0x5123), Some((1 << 30) + 0x5123));
        let leaf = tables.find(BASE + 0x5000).unwrap();
        assert_eq!((leaf.level, leaf.writable), (Level::One, false));
        assert!(tables.find(BASE + 0x6000).unwrap().writable);
        let entries = tables.store.tables.values().filter(|(_, level)| *level == Level::One);
        for entry in entries.flat_map(|(entries, _)| entries) {
            assert_eq!(entry & (bit::PAT | bit::PAT_LARGE), bit::PAT | entry & bit::PAT_LARGE);
            assert_eq!(entry & bit::CACHE_DISABLE, 0);
        }
        assert!(tables.store.changed.contains(&BASE));
    }
}

#[test]
fn unmapping_a_part_of_a_large_page_leaves_the_rest() {
    let mut tables = tables();
    tables.map(BASE, 0, 2 << 20, Protection::ReadWrite, WB).unwrap();
    tables.unmap(BASE, PAGE_SIZE, &mut |leaf| assert_eq!(leaf.phys, 0)).unwrap();
    assert_eq!(tables.translate(BASE), None);
    assert_eq!(pages(&tables).len(), 511);
}

#[test]
fn absurd_ranges_are_refused() {
    let mut tables = tables();
    for (virt, phys, len) in [
        (BASE + 1, 0, PAGE_SIZE),
        (BASE, 1, PAGE_SIZE),
        (BASE, 0, PAGE_SIZE - 1),
        (BASE, 0, 0),
        (0xffff_ffff_ffff_f000, 0, 0x2000),
        (0x0000_8000_0000_0000, 0, PAGE_SIZE),
        (0x0000_7fff_ffff_f000, 0, 0x2000),
        (0x1000, 0, 0xffff_8000_0000_0000),
        (BASE, 0xffff_ffff_ffff_f000, 0x2000),
        (BASE, 1 << 52, PAGE_SIZE),
    ] {
        let result = tables.map(virt, phys, len, Protection::ReadWrite, WB);
        assert!(matches!(result, Err(MapError::BadRange { .. })), "{virt:#x} {phys:#x} {len:#x}: {result:?}");
    }
    assert_eq!(pages(&tables), []);
}

#[test]
fn the_last_page_of_the_address_space_can_be_mapped() {
    let mut tables = tables();
    let last = 0xffff_ffff_ffff_f000;
    tables.map(last, 0x5000, PAGE_SIZE, Protection::ReadOnly, Caching::Uncached).unwrap();
    tables.protect(last, PAGE_SIZE, Protection::ReadWrite).unwrap();
    assert_eq!(tables.translate(u64::MAX), Some(0x5fff));
    assert_eq!(pages(&tables).len(), 1);
}

#[test]
fn protecting_what_is_not_mapped_changes_nothing() {
    let mut tables = tables();
    tables.map(BASE, 0, 0x2000, Protection::ReadWrite, WB).unwrap();
    let result = tables.protect(BASE, 0x3000, Protection::ReadOnly);
    assert_eq!(result, Err(MapError::NotMapped { virt: BASE + 0x2000 }));
    assert!(pages(&tables).iter().all(|leaf| leaf.writable));
}

#[test]
fn running_out_of_tables_leaves_nothing_behind() {
    for left in 1..9 {
        let store = Fake { left, ..Fake::default() };
        let mut tables = PageTable::new(LARGEST, store).unwrap();
        // Crosses a boundary of 1 GiB and of 2 MiB: two tables of level 1, two of 2, one of 3.
        let start = BASE + (1 << 30) - PAGE_SIZE;
        let result = tables.map(start, 0, 2 * PAGE_SIZE, Protection::ReadWrite, WB);
        assert_eq!(result.is_ok(), left >= 6, "{left}");
        if result.is_err() {
            assert_eq!(pages(&tables), []);
            assert_eq!(tables.store.tables.len(), 1);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Map { page: u64, count: u64, phys: u64, protection: Protection },
    Unmap { page: u64, count: u64 },
    Protect { page: u64, count: u64, protection: Protection },
}

fn step() -> impl Strategy<Value = Step> {
    // Pages from just below a boundary of 2 MiB to behind the next, often whole large pages.
    let page = prop_oneof![0u64..1100, Just(4), Just(516)];
    let count = prop_oneof![1u64..40, Just(512), Just(513), Just(1024)];
    let phys = prop_oneof![(0u64..4000), Just(512), Just(1024 + 4)];
    let protection =
        prop_oneof![Just(Protection::ReadOnly), Just(Protection::ReadWrite), Just(Protection::ReadExecute)];
    (0..3, page, count, phys, protection).prop_map(|(kind, page, count, phys, protection)| match kind {
        0 => Step::Map { page, count, phys, protection },
        1 => Step::Unmap { page, count },
        _ => Step::Protect { page, count, protection },
    })
}

proptest! {
    /// Whatever is mapped, unmapped and protected: every page is what a plain map of pages says, none is
    /// writable and executable, and no empty table remains.
    #[test]
    fn behaves_as_a_map_of_pages(steps in prop::collection::vec(step(), 1..25)) {
        let start = BASE + (1 << 30) - 4 * PAGE_SIZE;
        let mut tables = tables();
        let mut model: BTreeMap<u64, (u64, Protection)> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Map { page, count, phys, protection } => {
                    let free = (page..page + count).all(|page| !model.contains_key(&page));
                    let result = tables.map(start + page * PAGE_SIZE, phys * PAGE_SIZE, count * PAGE_SIZE, protection, WB);
                    prop_assert_eq!(result.is_ok(), free);
                    if free {
                        model.extend((0..count).map(|nth| (page + nth, (phys + nth, protection))));
                    }
                }
                Step::Unmap { page, count } => {
                    let mut gone = 0;
                    tables.unmap(start + page * PAGE_SIZE, count * PAGE_SIZE, &mut |leaf| gone += leaf.level.span() / PAGE_SIZE).unwrap();
                    let before = model.len();
                    model.retain(|key, _| !(page..page + count).contains(key));
                    prop_assert_eq!(gone, (before - model.len()) as u64);
                }
                Step::Protect { page, count, protection } => {
                    let there = (page..page + count).all(|page| model.contains_key(&page));
                    let result = tables.protect(start + page * PAGE_SIZE, count * PAGE_SIZE, protection);
                    prop_assert_eq!(result.is_ok(), there);
                    if there {
                        (page..page + count).for_each(|page| model.get_mut(&page).unwrap().1 = protection);
                    }
                }
            }
            for page in 0..2200 {
                let virt = start + page * PAGE_SIZE;
                let found = tables.find(virt).map(|leaf| (leaf.phys + (virt - leaf.virt), leaf.writable, leaf.executable));
                let wanted = model.get(&page).map(|&(phys, protection)| {
                    (phys * PAGE_SIZE, protection == Protection::ReadWrite, protection == Protection::ReadExecute)
                });
                prop_assert_eq!(found, wanted);
            }
        }
        let empty = tables.store.tables.iter().filter(|(table, (entries, _))| **table != tables.root && entries.iter().all(|&entry| entry == 0));
        prop_assert_eq!(empty.count(), 0);
        tables.unmap(start, 4096 * PAGE_SIZE, &mut |_| {}).unwrap();
        prop_assert_eq!(tables.store.tables.len(), 1);
    }
}
