//! The live page tables of this guest: a [`PageTable`] whose store is RAM, changed only through pv-ops.
//!
//! A new table is announced (`pin_table`) before any entry refers to it and taken back (`unpin_table`) before
//! its frame is freed: under Xen PV tables are read-only for the guest. Frames and tables that a change made
//! free are freed only after the TLBs are flushed, so that no CPU can still reach them.
//! Neighbours: `page_table` (the algorithm), `early` (who builds the first), `map` (the interface).

use super::{
    frame::{self, Frame, OutOfMemory},
    layout::{self, DIRECT_MAP_LEN_BYTES, PAGE_SIZE},
    page_table::{Level, PageTable, RUN, Store},
};
use crate::{cpu::percpu, hypervisor, sync::IrqMutex};

/// The address space that all of this guest runs in. `None` until `early` has built it.
static KERNEL: IrqMutex<Option<PageTable<Live>>> = IrqMutex::new(None);

/// Pages flushed one by one; more changes than that flush everything.
const MAX_PENDING: usize = 32;
/// Instead of a length, tells `flush_tlb_others` to flush all.
const EVERYTHING: u64 = u64::MAX;
const PRESENT: u64 = 1;

/// Tables in RAM, reached through the direct map.
#[derive(Debug, Default)]
pub(super) struct Live {
    pending: heapless::Vec<u64, MAX_PENDING>,
    flush_all: bool,
    retired: heapless::Vec<u64, MAX_PENDING>,
    /// Tables that go are not the allocator's: they stay as they are.
    of_others: bool,
}

impl Live {
    /// For tables that somebody else made, until [`own`](Self::own).
    pub(super) fn of_others() -> Self {
        Self { of_others: true, ..Self::default() }
    }

    /// From now on tables that go were made here.
    pub(super) fn own(&mut self) {
        self.of_others = false;
    }

    /// Makes all changes since the last call effective on every CPU, then frees the tables that went.
    pub(super) fn settle(&mut self) {
        if self.flush_all || self.pending.len() > hypervisor::services().flush_limit {
            pv_ops::flush_tlb();
            pv_ops::flush_tlb_others(&percpu::others(), 0, EVERYTHING);
        } else if let (Some(first), Some(last)) = (self.pending.iter().min(), self.pending.iter().max()) {
            self.pending.iter().for_each(|&virt| pv_ops::flush_tlb_one(virt));
            // One message for all: what lies between costs a few entries at most.
            pv_ops::flush_tlb_others(&percpu::others(), *first, last - first + PAGE_SIZE);
        }
        self.flush_all = false;
        self.pending.clear();
        for table in self.retired.iter().copied() {
            free_table(table);
        }
        self.retired.clear();
    }
}

/// Gives the frame of a table that no CPU can reach any more back.
fn free_table(table: u64) {
    // SAFETY: the table was announced in `allocate`; nothing refers to it since the TLBs were flushed.
    unsafe { pv_ops::unpin_table(table / PAGE_SIZE) };
    // SAFETY: the frame's ownership was given up in `allocate`, and only `release` brings it here, once.
    drop(unsafe { Frame::from_raw(table, 0) });
}

/// The entry `index` of `table`.
fn entry(table: u64, index: usize) -> *mut u64 {
    core::ptr::with_exposed_provenance_mut::<u64>(layout::direct_map(table) as usize).wrapping_add(index)
}

impl Store for Live {
    fn allocate(&mut self, level: Level) -> Result<u64, OutOfMemory> {
        let mut frame = frame::alloc(0)?;
        frame.bytes().fill(0);
        let table = frame.into_raw();
        // SAFETY: the frame is ours, empty of entries, and freed only after `unpin_table`.
        unsafe { pv_ops::pin_table(table / PAGE_SIZE, level as u8) };
        Ok(table)
    }

    fn release(&mut self, table: u64) {
        if self.of_others {
            return;
        }
        if self.retired.push(table).is_err() {
            self.flush_all = true;
            self.settle();
            free_table(table);
        }
    }

    fn read(&self, table: u64, index: usize) -> u64 {
        if table >= DIRECT_MAP_LEN_BYTES {
            return 0;
        }
        // SAFETY:
        // 1. `table` is a table of the CPU's own tree, so it is RAM, which the direct map maps.
        // 2. `index` is below 512: `Level::index` and the walks in `page_table` yield no other.
        // 3. The CPU sets accessed and dirty bits on its own: hence volatile.
        pv_ops::pte_value(unsafe { entry(table, index).read_volatile() })
    }

    fn write(&mut self, table: u64, index: usize, level: Level, value: u64) {
        let (entry, value) =
            (entry(table, index), if value & PRESENT != 0 { pv_ops::pte_make(value) } else { 0 });
        match level {
            // SAFETY: here and in the next three:
            // 1. `allocate` gave `table`, so the entry is RAM of the direct map and nobody else's.
            // 2. The tree is behind one lock (`KERNEL`), or not in use yet (`early`).
            // 3. `page_table` maps only what its callers may map, and they keep what is in use mapped.
            Level::One => unsafe { pv_ops::set_pte(entry, value) },
            // SAFETY: as above.
            Level::Two => unsafe { pv_ops::set_pmd(entry, value) },
            // SAFETY: as above.
            Level::Three => unsafe { pv_ops::set_pud(entry, value) },
            // SAFETY: as above.
            Level::Four => unsafe { pv_ops::set_pgd(entry, value) },
        }
    }

    fn write_run(&mut self, table: u64, index: usize, _level: Level, values: &[u64]) {
        let mut entries = [0; RUN];
        for (entry, &value) in entries.iter_mut().zip(values) {
            *entry = if value & PRESENT != 0 { pv_ops::pte_make(value) } else { 0 };
        }
        // SAFETY: as in `write`; a run is no longer than `RUN`, nor than the table.
        unsafe { pv_ops::set_ptes(entry(table, index), entries.as_ptr(), values.len().min(RUN) as u64) };
    }

    fn changed(&mut self, virt: u64, level: Level) {
        // One flush reaches a page of any size, but not what was a table of many pages.
        self.flush_all |= level > Level::One || self.pending.push(virt).is_err();
    }
}

/// Makes `tables`, which the CPU already uses, the ones that [`with`] works on.
pub(super) fn install(tables: PageTable<Live>) {
    *KERNEL.lock() = Some(tables);
}

/// Calls `act` with the live tables and makes its changes effective. `None` before [`install`].
pub(super) fn with<R>(act: impl FnOnce(&mut PageTable<Live>) -> R) -> Option<R> {
    let mut kernel = KERNEL.lock();
    let tables = kernel.as_mut()?;
    let result = act(tables);
    tables.store().settle();
    Some(result)
}

/// As [`with`], for an exception handler: does not wait for the lock.
pub(super) fn try_with<R>(act: impl FnOnce(&PageTable<Live>) -> R) -> Option<R> {
    KERNEL.try_lock()?.as_ref().map(act)
}

crate::kernel_test! {
    /// A hypervisor that changes the tables itself gets lists: 512 pages cost hypercalls by the dozen, not the hundred.
    fn mapping_many_pages_takes_few_hypercalls() {
        use super::{Caching, Protection, layout::{DEVICES, DEVICES_LEN_BYTES}, map};
        use pv_ops::xen::pv::mmu::hypercalls;
        const PAGES: u64 = 512;
        if !hypervisor::services().keeps_entry_tables {
            crate::skip!("page tables cost no hypercall here");
        }
        let cost = |act: &mut dyn FnMut()| {
            let before = hypercalls();
            act();
            hypercalls() - before
        };
        let frame = frame::alloc(PAGES.ilog2() as u8).unwrap();
        let len_bytes = frame.len_bytes();
        let virt = DEVICES + DEVICES_LEN_BYTES - 4 * len_bytes;
        let (read_only, cached) = (Protection::ReadOnly, Caching::WriteBack);
        // SAFETY: the end of the window, which no allocation reaches; read only, while `frame` is owned.
        let mapped = cost(&mut || unsafe { map::map(virt, frame.address(), len_bytes, read_only, cached) }.unwrap());
        // SAFETY: nothing refers to the pages; and so below.
        let protected = cost(&mut || unsafe { map::protect(virt, len_bytes, Protection::ReadWrite) }.unwrap());
        // SAFETY: as above.
        let unmapped = cost(&mut || unsafe { map::unmap(virt, len_bytes) }.unwrap());
        log::info!("{PAGES} pages: {mapped} hypercalls to map, {protected} to protect, {unmapped} to unmap");
        assert!(mapped < 20 && protected < 20 && unmapped < 20, "{mapped} {protected} {unmapped}");
    }
}
