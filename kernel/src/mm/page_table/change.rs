//! Pages that change or go: every entry in a range, in runs; large pages split where only a part changes; tables freed
//! that have become empty. Neighbour: `mod` (what is called).
#![forbid(unsafe_code)]

use super::{
    ENTRIES, Leaf, Level, MapError, OutOfMemory, PageTable, RUN, Store, entries,
    entry::{bit, is_leaf, leaf_address, pat_bit},
};

/// Entries of one table, one after the other, that are to be written.
struct Run {
    first: usize,
    len: usize,
    values: [u64; RUN],
}

impl Run {
    fn write<S: Store>(&mut self, store: &mut S, table: u64, level: Level) {
        if self.len > 0 {
            store.write_run(table, self.first, level, &self.values[..self.len]);
            self.len = 0;
        }
    }
}

impl<S: Store> PageTable<S> {
    /// Replaces every page's entry in a part of the address space by what `change` makes of it; zero unmaps.
    pub(super) fn update_table(
        &mut self,
        table: u64,
        level: Level,
        (first, last): (u64, u64),
        change: &mut dyn FnMut(Leaf, u64) -> u64,
    ) -> Result<(), MapError> {
        let mut run = Run { first: 0, len: 0, values: [0; RUN] };
        for (index, first, last) in entries(level, first, last) {
            let entry = self.store.read(table, index);
            if entry & bit::PRESENT == 0 {
                continue;
            }
            let virt = first & !(level.span() - 1);
            let whole = first == virt && last == virt + (level.span() - 1);
            if is_leaf(entry, level) && whole {
                let writable = entry & bit::WRITABLE != 0;
                let executable = entry & bit::NO_EXECUTE == 0;
                let leaf = Leaf { virt, phys: leaf_address(entry, level), level, writable, executable };
                let changed = change(leaf, entry);
                if index != run.first + run.len || run.len == RUN {
                    run.write(&mut self.store, table, level);
                    run.first = index;
                }
                run.values[run.len] = changed;
                run.len += 1;
                self.store.changed(virt, level);
                continue;
            }
            // What follows may fail.
            run.write(&mut self.store, table, level);
            let child = if is_leaf(entry, level) {
                self.split(table, index, level, virt, entry)?
            } else {
                entry & bit::ADDRESS
            };
            self.update_table(child, level.below(), (first, last), change)?;
            if self.is_empty(child) {
                self.store.write(table, index, level, 0);
                self.store.changed(virt, level);
                self.store.release(child);
            }
        }
        run.write(&mut self.store, table, level);
        Ok(())
    }

    /// Replaces a large page by a table of pages of the next size that map the same.
    fn split(
        &mut self,
        table: u64,
        index: usize,
        level: Level,
        virt: u64,
        entry: u64,
    ) -> Result<u64, OutOfMemory> {
        let below = level.below();
        let child = self.store.allocate(below)?;
        let phys = leaf_address(entry, level);
        let mut flags = entry & !bit::ADDRESS & !bit::LARGE;
        if below > Level::One {
            flags |= bit::LARGE;
        }
        if entry & bit::PAT_LARGE != 0 {
            flags |= pat_bit(below);
        }
        for part in 0..ENTRIES {
            let part_phys = phys + part as u64 * below.span();
            self.store.write(child, part, below, part_phys | flags);
        }
        self.store.write(table, index, level, child | bit::PRESENT | bit::WRITABLE);
        self.store.changed(virt, level);
        Ok(child)
    }

    fn is_empty(&self, table: u64) -> bool {
        (0..ENTRIES).all(|index| self.store.read(table, index) == 0)
    }
}
