//! The sizes in which small memory is handed out.
#![forbid(unsafe_code)]

use core::alloc::Layout;

use super::magazine::CAPACITY;
use crate::mm::layout::PAGE_SIZE;

/// Sizes of the classes. Objects of a class are aligned to the largest power of two that divides its size.
pub(super) const SIZES: [usize; 14] = [16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048];
/// Larger requests are not small.
pub(super) const MAX_SIZE: usize = SIZES[SIZES.len() - 1];

/// The class of each number of 16-byte units.
const BY_UNITS: [u8; MAX_SIZE / 16 + 1] = {
    let mut table = [0; MAX_SIZE / 16 + 1];
    let (mut units, mut class) = (0, 0);
    while units < table.len() {
        if SIZES[class] < units * 16 {
            class += 1;
        }
        table[units] = class as u8;
        units += 1;
    }
    table
};

/// One of the [`SIZES`], by number. Invariant: it is the number of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Class(usize);

impl Class {
    /// All of them, the smallest first.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..SIZES.len()).map(Self)
    }

    /// The smallest whose objects are as large and as aligned as `layout` asks; `None` when none is.
    #[inline]
    pub(super) fn of(layout: Layout) -> Option<Self> {
        if layout.size() > MAX_SIZE || layout.align() > MAX_SIZE {
            return None;
        }
        let first = usize::from(BY_UNITS[layout.size().div_ceil(16)]);
        if layout.align() <= 16 {
            return Some(Self(first));
        }
        (first..SIZES.len()).find(|&class| SIZES[class] & (layout.align() - 1) == 0).map(Self)
    }

    /// Its number.
    #[inline]
    pub(super) fn index(self) -> usize {
        self.0
    }

    /// Objects moved between a CPU's magazine and the slabs at a time.
    #[inline]
    pub(super) fn batch(self) -> usize {
        match SIZES[self.0] {
            ..=256 => 16,
            257..=512 => 7,
            _ => 3,
        }
    }

    /// Objects that a CPU's magazine holds at most.
    #[inline]
    pub(super) fn limit(self) -> usize {
        (2 * self.batch()).min(CAPACITY)
    }
}

/// Order of a class's slabs: a slab holds seven objects of the large sizes, many of the small ones.
pub(super) const fn slab_order(class: usize) -> u8 {
    match SIZES[class] {
        ..=512 => 0,
        513..=1024 => 1,
        _ => 2,
    }
}

/// Bytes of a class's slabs.
pub(super) const fn slab_len(class: usize) -> usize {
    (PAGE_SIZE as usize) << slab_order(class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_small_layout_gets_the_smallest_class_that_serves_it() {
        for size in 0..=MAX_SIZE + 1 {
            for align in (0..13).map(|shift| 1 << shift) {
                let layout = Layout::from_size_align(size, align).unwrap();
                let wanted = SIZES.iter().position(|&class| class >= size && class % align == 0);
                assert_eq!(Class::of(layout).map(Class::index), wanted, "{layout:?}");
            }
        }
    }
}
