//! Page tables of four levels: map, unmap, protect, translate (Intel SDM vol. 3A §4.5; AMD APM vol. 2 §5.3).
//!
//! Pure over a [`Store`] that reads, writes, allocates and frees the tables: the running kernel's store
//! (`tables`) goes through pv-ops, because under Xen PV tables are read-only and hold machine frames; the
//! tests' store is a map in memory. The largest page that fits is used everywhere; a part of a large page that
//! changes splits it; a table that empties is freed. No entry is ever writable and executable at once: there
//! is no [`Protection`] to say so.
//! Files: `entry` (what stands in a table), `change` (pages that change or go), this one.
#![forbid(unsafe_code)]

mod change;
mod entry;

use self::entry::{bit, caching_bits, is_leaf, leaf_address};
use super::{frame::OutOfMemory, layout::PAGE_SIZE};

pub use self::entry::{Caching, ENTRIES, Format, Level, Protection};

/// A mapped page as it stands in the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Its first address.
    pub virt: u64,
    /// What it maps: the physical address of its first byte.
    pub phys: u64,
    /// Its size: the span of this level.
    pub level: Level,
    /// Some level's entry forbids writing, or none does.
    pub writable: bool,
    /// Some level's entry forbids executing, or none does.
    pub executable: bool,
}

/// Why a mapping was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// A range that is empty, not aligned to pages, wraps around or leaves its part of the address space.
    #[error("bad range: {len_bytes:#x} bytes from {start:#x}")]
    BadRange {
        /// First address.
        start: u64,
        /// Bytes.
        len_bytes: u64,
    },
    /// Something is mapped there already.
    #[error("{virt:#x} is mapped already")]
    AlreadyMapped {
        /// The first such address.
        virt: u64,
    },
    /// Nothing is mapped there.
    #[error("{virt:#x} is not mapped")]
    NotMapped {
        /// The first such address.
        virt: u64,
    },
    /// A device mapping would alias the guest's own memory.
    #[error("{len_bytes:#x} bytes from physical {phys:#x} overlap RAM")]
    OverlapsRam {
        /// First physical address.
        phys: u64,
        /// Bytes.
        len_bytes: u64,
    },
    /// The hypervisor does not let this guest have the device there.
    #[error("the hypervisor refuses {len_bytes:#x} bytes at physical {phys:#x}")]
    Refused {
        /// First physical address.
        phys: u64,
        /// Bytes.
        len_bytes: u64,
    },
    /// No memory for the tables.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
}

/// Entries that are written at once.
pub const RUN: usize = 64;

/// Where tables live. A table is named by its physical address.
pub trait Store {
    /// A new table of `level`, all entries zero.
    fn allocate(&mut self, level: Level) -> Result<u64, OutOfMemory>;
    /// Takes back a table that no entry refers to any more.
    fn release(&mut self, table: u64);
    /// The entry `index` of `table`, with physical addresses.
    fn read(&self, table: u64, index: usize) -> u64;
    /// Replaces the entry `index` of `table`, which is of `level`.
    fn write(&mut self, table: u64, index: usize, level: Level, value: u64);
    /// Replaces entries of `table` from `index` on by pages of its level or by zeroes, [`RUN`] at most.
    fn write_run(&mut self, table: u64, index: usize, level: Level, values: &[u64]) {
        for (nth, &value) in values.iter().enumerate() {
            self.write(table, index + nth, level, value);
        }
    }
    /// The mapping of the page at `virt` has changed or is gone.
    fn changed(&mut self, virt: u64, level: Level);
}

/// A tree of tables and the store they live in.
#[derive(Debug)]
pub struct PageTable<S> {
    root: u64,
    format: Format,
    store: S,
}

impl<S: Store> PageTable<S> {
    /// An address space without any mapping.
    pub fn new(format: Format, mut store: S) -> Result<Self, OutOfMemory> {
        Ok(Self { root: store.allocate(Level::Four)?, format, store })
    }

    /// The tree that someone else built at `root`.
    pub fn existing(root: u64, format: Format, store: S) -> Self {
        Self { root, format, store }
    }

    /// Physical address of the root table.
    pub fn root(&self) -> u64 {
        self.root
    }

    /// What the entries can express.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The store.
    pub fn store(&mut self) -> &mut S {
        &mut self.store
    }

    /// The page that maps `virt`.
    #[inline(never)]
    pub fn find(&self, virt: u64) -> Option<Leaf> {
        let (mut table, mut level) = (self.root, Level::Four);
        let (mut writable, mut executable) = (true, true);
        if !is_canonical(virt) {
            return None;
        }
        loop {
            let entry = self.store.read(table, level.index(virt));
            if entry & bit::PRESENT == 0 {
                return None;
            }
            writable &= entry & bit::WRITABLE != 0;
            executable &= entry & bit::NO_EXECUTE == 0;
            if is_leaf(entry, level) {
                let virt = virt & !(level.span() - 1);
                return Some(Leaf { virt, phys: leaf_address(entry, level), level, writable, executable });
            }
            (table, level) = (entry & bit::ADDRESS, level.below());
        }
    }

    /// The physical address behind `virt`.
    pub fn translate(&self, virt: u64) -> Option<u64> {
        self.find(virt).map(|leaf| leaf.phys + (virt - leaf.virt))
    }

    /// The first mapped address of `len_bytes` bytes from `virt`.
    pub fn first_mapped(&self, virt: u64, len_bytes: u64) -> Option<u64> {
        let mut found = None;
        self.visit(virt, len_bytes, &mut |leaf| {
            found = Some(leaf.virt.max(virt));
            false
        });
        found
    }

    /// Calls `each` with every page that maps a part of `len_bytes` bytes from `virt`, in order, for as long as
    /// it returns true.
    pub fn visit(&self, virt: u64, len_bytes: u64, each: &mut dyn FnMut(Leaf) -> bool) {
        let Some(last) = len_bytes.checked_sub(1).map(|more| virt.saturating_add(more)) else { return };
        self.visit_table(self.root, Level::Four, (virt, last), (true, true), each);
    }

    fn visit_table(
        &self,
        table: u64,
        level: Level,
        (first, last): (u64, u64),
        (writable, executable): (bool, bool),
        each: &mut dyn FnMut(Leaf) -> bool,
    ) -> bool {
        entries(level, first, last).all(|(index, first, last)| {
            let entry = self.store.read(table, index);
            if entry & bit::PRESENT == 0 {
                return true;
            }
            let writable = writable && entry & bit::WRITABLE != 0;
            let executable = executable && entry & bit::NO_EXECUTE == 0;
            if !is_leaf(entry, level) {
                let child = entry & bit::ADDRESS;
                return self.visit_table(child, level.below(), (first, last), (writable, executable), each);
            }
            let virt = first & !(level.span() - 1);
            each(Leaf { virt, phys: leaf_address(entry, level), level, writable, executable })
        })
    }

    /// Maps `len_bytes` bytes from `virt` to `phys`, all three multiples of 4 KiB, with the largest pages that fit.
    ///
    /// # Errors
    /// When a part of it is mapped already, or no memory for tables is left. Then nothing has changed.
    pub fn map(
        &mut self,
        virt: u64,
        phys: u64,
        len_bytes: u64,
        protection: Protection,
        caching: Caching,
    ) -> Result<(), MapError> {
        check_range(virt, len_bytes)?;
        check_physical(phys, len_bytes)?;
        if let Some(virt) = self.first_mapped(virt, len_bytes) {
            return Err(MapError::AlreadyMapped { virt });
        }
        let mut done = 0;
        while done < len_bytes {
            let (virt_now, left) = (virt + done, len_bytes - done);
            let level = self.largest_page(virt_now | (phys + done), left);
            let table = match self.table_for(virt_now, level) {
                Ok(table) => table,
                Err(error) => {
                    self.unmap(virt, done + PAGE_SIZE, &mut |_| {})?;
                    return Err(error.into());
                }
            };
            // As many entries of this table as the range fills.
            let index = level.index(virt_now);
            let count = ((left / level.span()) as usize).min(ENTRIES - index).min(RUN);
            let mut values = [0; RUN];
            for value in &mut values[..count] {
                *value = self.format.leaf(phys + done, level, protection, caching);
                done += level.span();
            }
            self.store.write_run(table, index, level, &values[..count]);
        }
        Ok(())
    }

    /// The level of the largest page whose alignment `address` has and that is not longer than `len_bytes`.
    fn largest_page(&self, address: u64, len_bytes: u64) -> Level {
        let fits = |level: &Level| address.is_multiple_of(level.span()) && len_bytes >= level.span();
        let mut sizes = [Level::Three, Level::Two].into_iter().filter(|level| *level <= self.format.largest);
        sizes.find(fits).unwrap_or(Level::One)
    }

    /// The table of `level` whose entry is the one for `virt`; makes those that are missing. No page above
    /// `level` maps `virt`.
    fn table_for(&mut self, virt: u64, level: Level) -> Result<u64, OutOfMemory> {
        let (mut table, mut at) = (self.root, Level::Four);
        while at > level {
            let entry = self.store.read(table, at.index(virt));
            let child = if entry & bit::PRESENT != 0 {
                entry & bit::ADDRESS
            } else {
                let child = self.store.allocate(at.below())?;
                self.store.write(table, at.index(virt), at, child | bit::PRESENT | bit::WRITABLE);
                child
            };
            (table, at) = (child, at.below());
        }
        Ok(table)
    }

    /// Unmaps what is mapped of `len_bytes` bytes from `virt`; tells `each` page that is gone.
    ///
    /// # Errors
    /// When splitting a large page finds no memory: then a part may still be mapped. Never when the range is
    /// one that [`map`](Self::map) mapped.
    pub fn unmap(&mut self, virt: u64, len_bytes: u64, each: &mut dyn FnMut(Leaf)) -> Result<(), MapError> {
        check_range(virt, len_bytes)?;
        let range = (virt, virt + (len_bytes - 1));
        self.update_table(self.root, Level::Four, range, &mut |leaf, _| {
            each(leaf);
            0
        })
    }

    /// Gives the mapped pages of `len_bytes` bytes from `virt` another protection.
    ///
    /// # Errors
    /// When a part is not mapped (nothing has changed then), or splitting a large page finds no memory.
    pub fn protect(&mut self, virt: u64, len_bytes: u64, protection: Protection) -> Result<(), MapError> {
        check_range(virt, len_bytes)?;
        let mut next = virt;
        self.visit(virt, len_bytes, &mut |leaf| {
            let follows = leaf.virt <= next;
            if follows {
                next = leaf.virt.wrapping_add(leaf.level.span());
            }
            follows
        });
        if next.wrapping_sub(virt) < len_bytes {
            return Err(MapError::NotMapped { virt: next });
        }
        let range = (virt, virt + (len_bytes - 1));
        let format = self.format;
        self.update_table(self.root, Level::Four, range, &mut |leaf, entry| {
            let changed = format.leaf(leaf.phys, leaf.level, protection, Caching::WriteBack);
            changed | entry & caching_bits(leaf.level)
        })
    }
}

/// Whether the upper 17 bits of an address are equal, as the CPU asks of every address (SDM vol. 1 §3.3.7.1).
pub fn is_canonical(virt: u64) -> bool {
    (virt as i64) << 16 >> 16 == virt as i64
}

fn check_range(start: u64, len_bytes: u64) -> Result<(), MapError> {
    let last = len_bytes.checked_sub(1).and_then(|more| start.checked_add(more));
    let good = (start | len_bytes).is_multiple_of(PAGE_SIZE)
        && last.is_some_and(|last| is_canonical(start) && is_canonical(last) && start >> 63 == last >> 63);
    if good { Ok(()) } else { Err(MapError::BadRange { start, len_bytes }) }
}

fn check_physical(start: u64, len_bytes: u64) -> Result<(), MapError> {
    let last = start.checked_add(len_bytes - 1);
    let good = start.is_multiple_of(PAGE_SIZE)
        && last.is_some_and(|last| last & !(bit::ADDRESS | (PAGE_SIZE - 1)) == 0);
    if good { Ok(()) } else { Err(MapError::BadRange { start, len_bytes }) }
}

/// The entries of one table for the addresses `first..=last`: index and the part of the addresses it spans.
fn entries(level: Level, first: u64, last: u64) -> impl Iterator<Item = (usize, u64, u64)> {
    let span = level.span();
    let start = first & !(span - 1);
    (level.index(first)..=level.index(last)).enumerate().map(move |(nth, index)| {
        let begin = start + nth as u64 * span;
        (index, begin.max(first), (begin + (span - 1)).min(last))
    })
}

#[cfg(test)]
mod tests;
