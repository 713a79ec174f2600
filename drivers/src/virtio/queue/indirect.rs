//! Indirect descriptors: a buffer of several parts takes one place in the ring (VirtIO 1.3 §2.7.5.3, §2.8.7).
//! One table for each buffer that can be in flight, allocated with the queue.
#![forbid(unsafe_code)]

use super::{
    MAX_SEGMENTS,
    layout::{DESCRIPTOR_BYTES, NEXT, direction_flag, write_descriptor},
};
use crate::{
    dma::{Dma, Segment},
    error::Error,
    hal::Hal,
};

const TABLE_BYTES: usize = MAX_SEGMENTS * DESCRIPTOR_BYTES;

/// The tables of a queue.
#[derive(Debug)]
pub(super) struct Indirect {
    tables: Dma,
    /// Entries are chained by number, as in a split ring; in a packed one they follow each other.
    chained: bool,
}

impl Indirect {
    pub(super) fn new(hal: &dyn Hal, size: u16, chained: bool) -> Result<Self, Error> {
        Ok(Self { tables: hal.dma(usize::from(size) * TABLE_BYTES)?, chained })
    }

    pub(super) fn keep_for_ever(&mut self) {
        self.tables.keep_for_ever();
    }

    /// Fills the table of buffer `id`; gives its address and bytes.
    pub(super) fn write(&self, id: u16, segments: &[Segment]) -> (u64, u32) {
        let table = usize::from(id) * TABLE_BYTES;
        let words = self.tables.u64s(table, segments.len() * (DESCRIPTOR_BYTES / 8));
        for (index, (words, segment)) in words.chunks_exact(DESCRIPTOR_BYTES / 8).zip(segments).enumerate() {
            let is_last = index + 1 == segments.len();
            let (flags, next) = match self.chained {
                true if !is_last => (direction_flag(segment) | NEXT, index as u16 + 1),
                _ => (direction_flag(segment), 0),
            };
            let fields = if self.chained { [flags, next] } else { [next, flags] };
            write_descriptor(words, (segment.address(), segment.len_bytes()), fields);
        }
        (self.tables.address() + table as u64, (segments.len() * DESCRIPTOR_BYTES) as u32)
    }
}
