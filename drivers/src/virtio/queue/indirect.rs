//! Indirect descriptors: a buffer of several parts takes one place in the ring (VirtIO 1.3 §2.7.5.3, §2.8.7).
//! One table for each buffer that can be in flight, allocated with the queue.
#![forbid(unsafe_code)]

use super::layout::{DESCRIPTOR_BYTES, direction_flag, write_descriptor};
use crate::{
    dma::{Dma, Piece, Segment},
    error::Error,
    hal::Hal,
};

/// The tables of a queue, one behind the other.
#[derive(Debug)]
pub(super) struct Indirect {
    tables: Dma,
    /// Descriptors of a table.
    len: usize,
}

impl Indirect {
    /// For `size` buffers of `len` segments each at most.
    pub(super) fn new(hal: &dyn Hal, size: u16, len: usize) -> Result<Self, Error> {
        Ok(Self { tables: hal.dma(usize::from(size) * len * DESCRIPTOR_BYTES)?, len })
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
        let last = segments.len() as u16 - 1;
        for (number, segment) in (0..).zip(segments) {
            self.write_one(id, number, segment, fields(direction_flag(segment), number, last));
        }
        (self.descriptor(id, 0).address(), (segments.len() * DESCRIPTOR_BYTES) as u32)
    }

    /// Writes descriptor `number` of table `id` alone, with what `fields` are to be behind its length.
    #[inline(always)]
    pub(super) fn write_one(&self, id: u16, number: u16, segment: &Segment, fields: [u16; 2]) {
        let words = self.descriptor(id, number).words();
        write_descriptor(words, (segment.address(), segment.len_bytes()), fields);
    }

    /// Descriptor `number` of table `id`; the number is below `len`.
    #[inline(always)]
    fn descriptor(&self, id: u16, number: u16) -> Piece<'_, 2> {
        self.tables.piece(usize::from(id) * self.len + usize::from(number))
    }
}
