//! Parts of DMA memory: as the driver writes them, and as a device is told of them.
#![forbid(unsafe_code)]

use core::{ops::Range, sync::atomic::AtomicU64};

use super::Dma;

/// One of the equal pieces of DMA memory: the memory that one request has for itself, or one descriptor.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a, const WORDS: usize> {
    words: &'a [AtomicU64; WORDS],
    address: u64,
}

impl<'a, const WORDS: usize> Piece<'a, WORDS> {
    /// Those words, which devices know by `address`.
    #[inline]
    pub(super) fn new(words: &'a [AtomicU64; WORDS], address: u64) -> Self {
        Self { words, address }
    }

    /// Its words.
    #[inline]
    pub fn words(&self) -> &'a [AtomicU64; WORDS] {
        self.words
    }

    /// Where the device finds the first byte.
    #[inline]
    pub fn address(&self) -> u64 {
        self.address
    }

    /// The bytes `range` of it.
    ///
    /// # Panics
    /// If they do not lie inside, or are none.
    #[inline]
    pub fn segment(&self, range: Range<usize>, direction: Direction) -> Segment {
        Segment::part(self.address, size_of_val(self.words), range, direction)
    }
}

/// Who writes to a segment while a device has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Nobody: the device reads it.
    ToDevice,
    /// The device.
    FromDevice,
}

/// A part of DMA memory as a device is told of it. There is no way to make one of other memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    address: u64,
    len: u32,
    direction: Direction,
}

impl Segment {
    /// The bytes `range` of `memory`.
    ///
    /// # Panics
    /// If they do not lie inside, or are none, or more than 32 bits can count.
    pub fn new(memory: &Dma, range: Range<usize>, direction: Direction) -> Self {
        Self::part(memory.address(), memory.len(), range, direction)
    }

    /// The bytes `range` of the `len` at `address`.
    #[inline]
    pub(super) fn part(
        address: u64,
        len: usize,
        Range { start, end }: Range<usize>,
        direction: Direction,
    ) -> Self {
        match u32::try_from(end.wrapping_sub(start)) {
            Ok(bytes) if start < end && end <= len => {
                Self { address: address + start as u64, len: bytes, direction }
            }
            _ => Self::cannot_be(start, end, len),
        }
    }

    /// Its arguments are values, so that who checks need not keep them in memory.
    #[cold]
    fn cannot_be(start: usize, end: usize, len: usize) -> ! {
        panic!("a segment from {start} to {end} of {len} bytes");
    }

    /// Where the device finds it.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Bytes; not 0.
    pub fn len_bytes(&self) -> u32 {
        self.len
    }

    /// Who writes.
    pub fn direction(&self) -> Direction {
        self.direction
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::shared, *};
    use core::sync::atomic::Ordering::Relaxed;
    use std::{
        boxed::Box,
        panic::{AssertUnwindSafe, catch_unwind},
    };

    fn panics<R>(act: impl FnOnce() -> R) -> bool {
        catch_unwind(AssertUnwindSafe(|| drop(act()))).is_err()
    }

    #[test]
    fn pieces_are_the_memory_one_behind_the_other() {
        let (memory, device) = shared(0x1000, 100, Box::new(()));
        for index in 0..6 {
            let piece = memory.piece::<2>(index);
            piece.words()[1].store(index as u64, Relaxed);
            assert_eq!(device.u64(index * 16 + 8).load(Relaxed), index as u64);
            let segment = piece.segment(4..16, Direction::FromDevice);
            assert_eq!((segment.address(), segment.len_bytes()), (0x1004 + 16 * index as u64, 12));
        }
        assert!(panics(|| memory.piece::<2>(6)), "a part of it is outside");
        assert!(panics(|| memory.piece::<2>(usize::MAX)));
    }

    #[test]
    fn there_is_no_segment_outside_a_piece() {
        let (memory, _) = shared(0x1000, 100, Box::new(()));
        for (start, end) in [(8, 17), (4, 4), (5, 4), (0, usize::MAX)] {
            let segment = || memory.piece::<2>(0).segment(start..end, Direction::ToDevice);
            assert!(panics(segment), "{start}..{end}");
        }
    }
}
