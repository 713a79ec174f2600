//! The buddy allocator over frame numbers, pure: it never touches a frame, only words of bookkeeping beside.
//!
//! Blocks are of 2^order frames and aligned to their size. For each order a [`BitTree`] holds the free blocks,
//! and one bit a frame tells whether it is handed out: a free of what is not handed out (twice, never owned,
//! reserved) is refused and changes nothing. That is 3 bits a frame, 6 MiB for 64 GiB and one page for 4 MiB.
//! Intrusive lists would cost less, but write into free memory: a host need not even back that, and a stray
//! write through a dangling pointer could then bend the lists.
//!
//! Allocation takes the smallest block that fits, of those the lowest, and of it the lowest part; the first
//! megabyte, which CPU start-up needs, is used last. From the top down would do as well, but firmware runs at
//! the end of RAM (SeaBIOS), and emulators let every write to a page that once held code cost a thousandfold.
#![forbid(unsafe_code)]

use super::bits::BitTree;
use core::ops::Range;

/// The largest order: blocks of 2^10 frames, 4 MiB.
pub const MAX_ORDER: u8 = 10;
const ORDERS: usize = MAX_ORDER as usize + 1;
const WORD_BITS: u64 = u64::BITS as u64;
/// Frames below this number, 1 MiB, are used last.
const LOW_FRAMES: u64 = 256;

/// A free of frames that are not handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("frame {frame:#x} of order {order} was freed but is not handed out")]
pub(in crate::mm) struct BadFree {
    /// Number of the block's first frame.
    pub(in crate::mm) frame: u64,
    /// Its order.
    pub(in crate::mm) order: u8,
}

/// The allocator. Frames are told by number: physical address / 4096.
#[derive(Debug)]
pub(in crate::mm) struct Buddy<'a> {
    /// Number of the first frame, a multiple of the largest block.
    base: u64,
    /// Frames from `base` on, a multiple of the largest block.
    span: u64,
    /// One bit a frame: handed out.
    taken: &'a mut [u64],
    /// Free blocks by order; a member is (frame - base) >> order.
    free: [BitTree<'a>; ORDERS],
    /// One bit a block of the largest order: the host knows that it is free.
    reported: &'a mut [u64],
    free_frames: u64,
    total_frames: u64,
}

/// The word and the bit in [`Buddy::reported`] of the block in which `offset` lies.
fn reported_bit(offset: u64) -> (usize, u64) {
    let block = offset >> MAX_ORDER;
    ((block / WORD_BITS) as usize, 1 << (block % WORD_BITS))
}

/// Words of the bits of [`Buddy::reported`] for `span` frames.
fn reported_words(span: usize) -> usize {
    (span >> MAX_ORDER).div_ceil(u64::BITS as usize)
}

/// `frames` widened to whole blocks of the largest order.
fn widened(frames: &Range<u64>) -> Range<u64> {
    let block = 1 << MAX_ORDER;
    frames.start / block * block..frames.end.div_ceil(block) * block
}

impl<'a> Buddy<'a> {
    /// Words of bookkeeping for frames of the range `frames`.
    pub(in crate::mm) fn words_for(frames: &Range<u64>) -> usize {
        let frames = widened(frames);
        let span = frames.end.saturating_sub(frames.start) as usize;
        span.div_ceil(u64::BITS as usize)
            + reported_words(span)
            + (0..ORDERS).map(|order| BitTree::words_for(span >> order)).sum::<usize>()
    }

    /// An allocator for frames of the range `frames` that has none yet. `words` must be
    /// [`words_for`](Self::words_for) long and is overwritten.
    pub(in crate::mm) fn new(words: &'a mut [u64], frames: &Range<u64>) -> Self {
        assert_eq!(words.len(), Self::words_for(frames));
        let frames = widened(frames);
        let span = frames.end.saturating_sub(frames.start);
        let (taken, mut rest) = words.split_at_mut(span.div_ceil(WORD_BITS) as usize);
        taken.fill(0);
        let (reported, others) = rest.split_at_mut(reported_words(span as usize));
        rest = others;
        reported.fill(0);
        let free = core::array::from_fn(|order| {
            let bits = span as usize >> order;
            let (words, others) = core::mem::take(&mut rest).split_at_mut(BitTree::words_for(bits));
            rest = others;
            BitTree::new(words, bits)
        });
        Self { base: frames.start, span, taken, free, reported, free_frames: 0, total_frames: 0 }
    }

    /// Gives the frames of `frames` to the allocator. They must lie in its range and be new to it.
    pub(in crate::mm) fn add(&mut self, frames: Range<u64>) {
        let mut frame = frames.start;
        while frame < frames.end {
            let aligned = (frame - self.base).trailing_zeros().min(MAX_ORDER.into()) as u8;
            let fitting = (frames.end - frame).ilog2().min(MAX_ORDER.into()) as u8;
            let order = aligned.min(fitting);
            self.put(frame - self.base, order);
            self.total_frames += 1 << order;
            frame += 1 << order;
        }
    }

    /// Takes those of `frames` that are free away for ever: they are in use by what came before.
    pub(in crate::mm) fn reserve(&mut self, frames: Range<u64>) {
        let end = frames.end.min(self.base + self.span);
        for frame in frames.start.max(self.base)..end {
            let offset = frame - self.base;
            let Some(order) = (0..=MAX_ORDER).find(|&order| self.holds(offset, order)) else { continue };
            self.take(offset >> order << order, order);
            self.put_siblings(offset, 0, order);
            self.total_frames -= 1;
        }
    }

    /// A block of 2^`order` frames aligned to its size: the number of its first frame.
    pub(in crate::mm) fn allocate(&mut self, order: u8) -> Option<u64> {
        let low_end = LOW_FRAMES.saturating_sub(self.base);
        let from =
            |start: u64| (order..=MAX_ORDER).find_map(|order| Some((self.first_from(order, start)?, order)));
        let (block, from) = from(low_end).or_else(|| from(0))?;
        self.take(block, from);
        Some(self.hand_out(block, order, from))
    }

    /// As [`allocate`](Self::allocate), but the block ends at or below the frame number `limit`.
    pub(in crate::mm) fn allocate_below(&mut self, order: u8, limit: u64) -> Option<u64> {
        let fits = |offset: u64| self.base + offset + (1 << order) <= limit;
        let (block, from) = (order..=MAX_ORDER).find_map(|from| {
            let block = self.first_from(from, 0)?;
            fits(block).then_some((block, from))
        })?;
        self.take(block, from);
        Some(self.hand_out(block, order, from))
    }

    /// A free block of the largest order that the host was not told of since it became free.
    pub(in crate::mm) fn allocate_unreported(&mut self) -> Option<u64> {
        let mut start = 0;
        loop {
            let offset = self.first_from(MAX_ORDER, start)?;
            let (word, mask) = reported_bit(offset);
            if self.reported[word] & mask == 0 {
                self.take(offset, MAX_ORDER);
                return Some(self.hand_out(offset, MAX_ORDER, MAX_ORDER));
            }
            start = offset + (1 << MAX_ORDER);
        }
    }

    /// Notes that the host knows that the free block `frame` of the largest order is free.
    pub(in crate::mm) fn set_reported(&mut self, frame: u64) {
        let offset = frame - self.base;
        if self.holds(offset, MAX_ORDER) {
            let (word, mask) = reported_bit(offset);
            self.reported[word] |= mask;
        }
    }

    /// Takes a block back. A part of a block may come back alone. Refused, without effect, unless all of its
    /// frames are handed out.
    pub(in crate::mm) fn free(&mut self, frame: u64, order: u8) -> Result<(), BadFree> {
        let bad = BadFree { frame, order };
        let offset = frame.checked_sub(self.base).ok_or(bad)?;
        let inside = order <= MAX_ORDER
            && offset % (1 << order) == 0
            && offset.checked_add(1 << order).is_some_and(|end| end <= self.span);
        if !inside || !self.taken_masks(offset, order).all(|(word, mask)| self.taken[word] & mask == mask) {
            return Err(bad);
        }
        for (word, mask) in self.taken_masks(offset, order) {
            self.taken[word] &= !mask;
        }
        self.put(offset, order);
        Ok(())
    }

    /// Frames that can be handed out.
    pub(in crate::mm) fn free_frames(&self) -> u64 {
        self.free_frames
    }

    /// Frames it was given, less those reserved.
    pub(in crate::mm) fn total_frames(&self) -> u64 {
        self.total_frames
    }

    /// Order of the largest free block.
    pub(in crate::mm) fn largest_free_order(&self) -> Option<u8> {
        (0..=MAX_ORDER).rev().find(|&order| self.free[usize::from(order)].len() > 0)
    }

    /// Offset of the first free block of `order` from `start` on.
    fn first_from(&self, order: u8, start: u64) -> Option<u64> {
        let first = self.free[usize::from(order)].first_from(start.div_ceil(1 << order) as usize)?;
        Some((first as u64) << order)
    }

    fn holds(&self, offset: u64, order: u8) -> bool {
        self.free[usize::from(order)].contains((offset >> order) as usize)
    }

    fn take(&mut self, offset: u64, order: u8) {
        let was_free = self.free[usize::from(order)].remove((offset >> order) as usize);
        debug_assert!(was_free);
        self.free_frames -= 1 << order;
    }

    /// Makes a block free and merges it with its buddy for as long as that one is free too.
    fn put(&mut self, mut offset: u64, mut order: u8) {
        self.free_frames += 1 << order;
        while order < MAX_ORDER {
            let buddy = offset ^ (1 << order);
            if !self.free[usize::from(order)].remove((buddy >> order) as usize) {
                break;
            }
            offset &= !(1 << order);
            order += 1;
        }
        self.free[usize::from(order)].insert((offset >> order) as usize);
    }

    /// Hands out the block at `offset` of a block of order `from` that was just taken; the rest becomes free.
    fn hand_out(&mut self, offset: u64, order: u8, from: u8) -> u64 {
        self.put_siblings(offset, order, from);
        for (word, mask) in self.taken_masks(offset, order) {
            self.taken[word] |= mask;
        }
        let (word, mask) = reported_bit(offset);
        self.reported[word] &= !mask;
        self.base + offset
    }

    /// Of a just taken block of order `from`, makes all free again but the block of `order` at `offset`.
    fn put_siblings(&mut self, offset: u64, order: u8, from: u8) {
        for half in order..from {
            let sibling = (offset >> half) ^ 1;
            self.free[usize::from(half)].insert(sibling as usize);
            self.free_frames += 1 << half;
        }
    }

    /// The words of `taken` that a block covers, each with the mask of the block's bits.
    fn taken_masks(&self, offset: u64, order: u8) -> impl Iterator<Item = (usize, u64)> + use<> {
        let (first, frames) = ((offset / WORD_BITS) as usize, 1u64 << order);
        let mask = if frames >= WORD_BITS { u64::MAX } else { ((1 << frames) - 1) << (offset % WORD_BITS) };
        (first..first + frames.div_ceil(WORD_BITS) as usize).map(move |word| (word, mask))
    }
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "memory of one range is meant")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn with_buddy<R>(
        add: &[Range<u64>],
        reserve: &[Range<u64>],
        test: impl FnOnce(&mut Buddy<'_>) -> R,
    ) -> R {
        let all = add[0].start..add[add.len() - 1].end;
        let mut words = vec![u64::MAX; Buddy::words_for(&all)];
        let mut buddy = Buddy::new(&mut words, &all);
        add.iter().for_each(|frames| buddy.add(frames.clone()));
        reserve.iter().for_each(|frames| buddy.reserve(frames.clone()));
        test(&mut buddy)
    }

    #[test]
    fn one_page_of_bookkeeping_serves_a_guest_of_4_mib() {
        assert!(Buddy::words_for(&(0..1024)) * 8 <= 4096);
    }

    #[test]
    fn bookkeeping_is_about_three_bits_a_frame() {
        let frames = (64 << 30) / 4096;
        assert!(Buddy::words_for(&(0..frames)) as u64 * 64 < frames * 31 / 10);
    }

    #[test]
    fn a_double_free_is_refused() {
        with_buddy(&[5..300], &[], |buddy| {
            let frame = buddy.allocate(3).unwrap();
            assert_eq!(buddy.free(frame, 3), Ok(()));
            let free = buddy.free_frames();
            assert_eq!(buddy.free(frame, 3), Err(BadFree { frame, order: 3 }));
            assert!(buddy.free(frame + 1, 0).is_err());
            assert_eq!(buddy.free_frames(), free);
        });
    }

    #[test]
    fn foreign_misaligned_and_oversized_blocks_are_not_taken_back() {
        with_buddy(&[1024..2048], &[1024..1030], |buddy| {
            let frame = buddy.allocate(1).unwrap();
            for (frame, order) in
                [(frame + 1, 1), (1024, 0), (3, 0), (u64::MAX, 0), (1 << 40, 10), (frame, 63)]
            {
                assert!(buddy.free(frame, order).is_err(), "{frame:#x} order {order}");
            }
        });
    }

    #[test]
    fn low_memory_is_kept_for_those_who_ask_for_it() {
        with_buddy(&[1..5000], &[], |buddy| {
            assert_eq!(buddy.allocate(0), Some(4992));
            assert_eq!(buddy.allocate_below(0, 256), Some(1));
            assert_eq!(buddy.allocate_below(4, 16), None);
            assert_eq!(buddy.allocate_below(4, 32), Some(16));
            while buddy.free_frames() > 100 {
                let free = buddy.free_frames();
                let frame = buddy.allocate(0).unwrap();
                assert!(frame >= LOW_FRAMES || free <= LOW_FRAMES, "{frame}, {free} free");
            }
        });
    }

    #[test]
    fn a_free_block_is_reported_once_until_it_was_used() {
        with_buddy(&[1024..4096], &[], |buddy| {
            let mut told = Vec::new();
            while let Some(frame) = buddy.allocate_unreported() {
                told.push(frame);
            }
            assert_eq!(told, [1024, 2048, 3072]);
            for frame in told {
                buddy.free(frame, MAX_ORDER).unwrap();
                buddy.set_reported(frame);
            }
            assert_eq!(buddy.allocate_unreported(), None);
            let used = buddy.allocate(0).unwrap();
            buddy.free(used, 0).unwrap();
            assert_eq!(buddy.allocate_unreported(), Some(used >> MAX_ORDER << MAX_ORDER));
        });
    }

    #[derive(Clone, Debug)]
    enum Step {
        Allocate { order: u8, limit: Option<u64> },
        Free { choice: usize },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..=MAX_ORDER, prop::option::of(0..9000u64))
                .prop_map(|(order, limit)| Step::Allocate { order, limit }),
            (0usize..64).prop_map(|choice| Step::Free { choice }),
        ]
    }

    fn ranges() -> impl Strategy<Value = Vec<Range<u64>>> {
        prop::collection::btree_set(1..9000u64, 2..12).prop_map(|edges| {
            let edges: Vec<u64> = edges.into_iter().collect();
            edges.chunks_exact(2).map(|pair| pair[0]..pair[1]).collect()
        })
    }

    proptest! {
        /// Against a map of who owns which frame: no overlap, alignment, never a reserved frame, an allocation
        /// fails only when no block is there, and all memory is whole again once everything is freed.
        #[test]
        fn keeps_the_laws_of_an_allocator(add in ranges(), reserve in ranges(), steps in prop::collection::vec(step(), 0..150)) {
            let allowed = |frame: u64| add.iter().any(|range| range.contains(&frame)) && !reserve.iter().any(|range| range.contains(&frame));
            with_buddy(&add, &reserve, |buddy| {
                let whole = (buddy.free_frames(), buddy.largest_free_order());
                prop_assert_eq!(whole.0, (0..9000).filter(|&frame| allowed(frame)).count() as u64);
                prop_assert_eq!(whole.0, buddy.total_frames());
                let mut owned: BTreeMap<u64, u8> = BTreeMap::new();
                let mut used = std::collections::BTreeSet::new();
                for step in steps {
                    match step {
                        Step::Allocate { order, limit } => {
                            let size = 1u64 << order;
                            let got = match limit {
                                Some(limit) => buddy.allocate_below(order, limit),
                                None => buddy.allocate(order),
                            };
                            let limit = limit.unwrap_or(u64::MAX);
                            let Some(frame) = got else {
                                let possible = (0..9000u64.next_multiple_of(size)).step_by(size as usize)
                                    .find(|start| start + size <= limit && (*start..start + size).all(|frame| allowed(frame) && !used.contains(&frame)));
                                prop_assert_eq!(possible, None);
                                continue;
                            };
                            prop_assert_eq!(frame % size, 0);
                            prop_assert!(frame + size <= limit);
                            for frame in frame..frame + size {
                                prop_assert!(allowed(frame));
                                prop_assert!(used.insert(frame));
                            }
                            owned.insert(frame, order);
                        }
                        Step::Free { choice } => {
                            let Some((&frame, &order)) = owned.iter().nth(choice % owned.len().max(1)) else { continue };
                            owned.remove(&frame);
                            (frame..frame + (1 << order)).for_each(|frame| { used.remove(&frame); });
                            prop_assert_eq!(buddy.free(frame, order), Ok(()));
                        }
                    }
                    prop_assert_eq!(buddy.free_frames(), whole.0 - used.len() as u64);
                }
                for (frame, order) in owned {
                    prop_assert_eq!(buddy.free(frame, order), Ok(()));
                }
                prop_assert_eq!((buddy.free_frames(), buddy.largest_free_order()), whole);
                Ok(())
            })?;
        }
    }
}
