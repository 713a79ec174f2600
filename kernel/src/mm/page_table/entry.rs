//! Entries of page tables: what their bits say (Intel SDM vol. 3A §4.5; AMD APM vol. 2 §5.3).
//! Neighbours: the tree in `page_table`, `registers` (which of this the CPU can do).
#![forbid(unsafe_code)]

use crate::mm::layout::PAGE_SIZE;

/// What may be done with a mapped page besides reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Read only.
    ReadOnly,
    /// Read and write.
    ReadWrite,
    /// Read and execute.
    ReadExecute,
}

/// How the CPU caches a mapped page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caching {
    /// Ordinary memory.
    WriteBack,
    /// Writes are gathered, reads are not cached: framebuffers. Uncached where the CPU has no page attribute table.
    WriteCombining,
    /// Every access reaches the device: registers.
    Uncached,
}

/// A level of tables; an entry of level 1 maps 4 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Page table: entries map 4 KiB.
    One = 1,
    /// Page directory: entries map 2 MiB or refer to a level-1 table.
    Two,
    /// Page-directory-pointer table: entries map 1 GiB or refer to a level-2 table.
    Three,
    /// The root, PML4.
    Four,
}

impl Level {
    /// Bytes that one entry spans.
    pub const fn span(self) -> u64 {
        PAGE_SIZE << (9 * (self as u32 - 1))
    }

    /// The index of the entry for `virt` in a table of this level.
    pub const fn index(self, virt: u64) -> usize {
        (virt / self.span() % ENTRIES as u64) as usize
    }

    /// The level of the tables that entries of this one refer to.
    pub(super) fn below(self) -> Self {
        match self {
            Self::Four => Self::Three,
            Self::Three => Self::Two,
            Self::Two | Self::One => Self::One,
        }
    }
}

/// Entries of a table.
pub const ENTRIES: usize = 512;

/// Entry bits (SDM vol. 3A tables 4-15 to 4-20).
pub(super) mod bit {
    pub(in crate::mm) const PRESENT: u64 = 1;
    pub(in crate::mm) const WRITABLE: u64 = 1 << 1;
    pub(in crate::mm) const WRITE_THROUGH: u64 = 1 << 3;
    pub(in crate::mm) const CACHE_DISABLE: u64 = 1 << 4;
    pub(in crate::mm) const LARGE: u64 = 1 << 7;
    pub(in crate::mm) const PAT: u64 = 1 << 7;
    pub(in crate::mm) const PAT_LARGE: u64 = 1 << 12;
    pub(in crate::mm) const NO_EXECUTE: u64 = 1 << 63;
    pub(in crate::mm) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
}

/// What the CPU can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Largest pages: `One` 4 KiB, `Two` 2 MiB, `Three` 1 GiB.
    pub largest: Level,
    /// Entries have the no-execute bit (EFER.NXE is set).
    pub no_execute: bool,
    /// Entry 4 of the page attribute table is write-combining.
    pub write_combining: bool,
}

impl Format {
    /// The entry of `level` that maps the page at `phys`.
    pub(super) fn leaf(&self, phys: u64, level: Level, protection: Protection, caching: Caching) -> u64 {
        let protection = match protection {
            Protection::ReadOnly => self.no_execute_bit(),
            Protection::ReadWrite => self.no_execute_bit() | bit::WRITABLE,
            Protection::ReadExecute => 0,
        };
        let caching = match caching {
            Caching::WriteBack => 0,
            Caching::WriteCombining if self.write_combining => pat_bit(level),
            Caching::WriteCombining | Caching::Uncached => bit::CACHE_DISABLE | bit::WRITE_THROUGH,
        };
        let large = if level > Level::One { bit::LARGE } else { 0 };
        phys | bit::PRESENT | protection | caching | large
    }

    fn no_execute_bit(&self) -> u64 {
        if self.no_execute { bit::NO_EXECUTE } else { 0 }
    }
}

/// The bit that, in a page's entry of `level`, selects the upper half of the page attribute table.
pub(super) fn pat_bit(level: Level) -> u64 {
    if level > Level::One { bit::PAT_LARGE } else { bit::PAT }
}

/// Whether a present entry of `level` maps a page and not a table.
pub(super) fn is_leaf(entry: u64, level: Level) -> bool {
    level == Level::One || level != Level::Four && entry & bit::LARGE != 0
}

/// The physical address of the page that an entry of `level` maps.
pub(super) fn leaf_address(entry: u64, level: Level) -> u64 {
    entry & bit::ADDRESS & !(level.span() - 1)
}

/// The bits of a page's entry of `level` that say how it is cached.
pub(super) fn caching_bits(level: Level) -> u64 {
    bit::CACHE_DISABLE | bit::WRITE_THROUGH | pat_bit(level)
}
