//! Indirect descriptors: a buffer of several parts takes one place in the ring (VirtIO 1.3 §2.7.5.3, §2.8.7).
//! One table for each buffer that can be in flight, allocated with the queue.
#![forbid(unsafe_code)]

use super::{
    MAX_SEGMENTS,
    layout::{DESCRIPTOR_BYTES, direction_flag, write_descriptor},
};
use crate::{
    dma::{Dma, Segment},
    error::Error,
    hal::Hal,
};

const TABLE_BYTES: usize = MAX_SEGMENTS * DESCRIPTOR_BYTES;
const TABLE_WORDS: usize = TABLE_BYTES / 8;

/// The tables of a queue.
#[derive(Debug)]
pub(super) struct Indirect {
    tables: Dma,
}

impl Indirect {
    pub(super) fn new(hal: &dyn Hal, size: u16) -> Result<Self, Error> {
        Ok(Self { tables: hal.dma(usize::from(size) * TABLE_BYTES)? })
    }

    pub(super) fn keep_for_ever(&mut self) {
        self.tables.keep_for_ever();
    }

    /// Fills the table of buffer `id`, with what `fields` has behind the length of each segment, by its flag, its number and the number
    /// of the last; gives the table's address and bytes.
    #[inline(always)]
    pub(super) fn write(
        &self,
        id: u16,
        segments: &[Segment],
        fields: impl Fn(u16, u16, u16) -> [u16; 2],
    ) -> (u64, u32) {
        let table = self.tables.piece::<TABLE_WORDS>(id.into());
        let last = segments.len() as u16 - 1;
        let (descriptors, _) = table.words().as_chunks();
        for (number, (words, segment)) in (0..).zip(descriptors.iter().zip(segments)) {
            let fields = fields(direction_flag(segment), number, last);
            write_descriptor(words, (segment.address(), segment.len_bytes()), fields);
        }
        (table.address(), (segments.len() * DESCRIPTOR_BYTES) as u32)
    }

    /// Writes descriptor `number` of table `id` alone, with what `fields` are to be behind its length.
    #[inline(always)]
    pub(super) fn write_one(&self, id: u16, number: usize, segment: &Segment, fields: [u16; 2]) {
        let table = self.tables.piece::<TABLE_WORDS>(id.into());
        let (descriptors, _) = table.words().as_chunks();
        write_descriptor(&descriptors[number], (segment.address(), segment.len_bytes()), fields);
    }
}
