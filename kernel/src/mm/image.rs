//! The running image by sections, with the protection each is to have.
//! Neighbours: `boot/link.ld` (the linker's symbols), `early` (maps them).
#![cfg_attr(not(target_os = "none"), forbid(unsafe_code))]

use super::{
    layout::{PAGE_SIZE, align_down},
    page_table::Protection,
};
use core::ops::Range;

/// Whole pages of the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Section {
    /// Its addresses.
    pub(super) pages: Range<u64>,
    /// What may be done with it.
    pub(super) protection: Protection,
}

impl Section {
    fn new(start: u64, end: u64, protection: Protection) -> Self {
        let pages = align_down(start, PAGE_SIZE)..end.next_multiple_of(PAGE_SIZE);
        Self { pages, protection }
    }
}

/// The image in order of addresses, each page in one section.
#[cfg(target_os = "none")]
pub(super) fn sections() -> [Section; 4] {
    unsafe extern "C" {
        static __text_start: u8;
        static __text_end: u8;
        static __rodata_start: u8;
        static __rodata_end: u8;
        static __data_start: u8;
        static __data_end: u8;
        static __symbols_start: u8;
    }
    let address = |symbol: *const u8| symbol.addr() as u64;
    let symbols = address(&raw const __symbols_start);
    [
        Section::new(
            address(&raw const __text_start),
            address(&raw const __text_end),
            Protection::ReadExecute,
        ),
        Section::new(
            address(&raw const __rodata_start),
            address(&raw const __rodata_end),
            Protection::ReadOnly,
        ),
        Section::new(address(&raw const __data_start), address(&raw const __data_end), Protection::ReadWrite),
        Section::new(symbols, symbols + crate::cpu::image::symbols().len() as u64, Protection::ReadOnly),
    ]
}

/// The pages that hold the table of pv-ops.
#[cfg(target_os = "none")]
pub(super) fn pv_table() -> Range<u64> {
    unsafe extern "C" {
        static __pv_table_start: u8;
        static __pv_table_end: u8;
    }
    (&raw const __pv_table_start).addr() as u64..(&raw const __pv_table_end).addr() as u64
}

/// A host program has no such pages.
#[cfg(not(target_os = "none"))]
pub(super) fn pv_table() -> Range<u64> {
    0..0
}

/// A host program's own image is not ours to map.
#[cfg(not(target_os = "none"))]
pub(super) fn sections() -> [Section; 0] {
    let _ = Section::new;
    []
}
