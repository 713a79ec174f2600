//! Ranges of a window of the virtual address space: which are free. Pure; what is mapped there is `map`'s affair.
#![forbid(unsafe_code)]

use super::layout::{PAGE_SIZE, align_down, align_up};

/// Free ranges that are remembered. When there are more, the smallest is forgotten: address space is not scarce.
const MAX_FREE: usize = 64;

/// First address and end of a free range.
type Range = (u64, u64);

/// The free ranges, in no order, none empty, no two touching.
#[derive(Debug)]
pub struct Window {
    free: [Range; MAX_FREE],
    len: usize,
}

impl Window {
    /// A window of `len_bytes` bytes from `start`, all free.
    pub const fn new(start: u64, len_bytes: u64) -> Self {
        let mut free = [(0, 0); MAX_FREE];
        free[0] = (start, start + len_bytes);
        Self { free, len: 1 }
    }

    /// `len_bytes` bytes, rounded up to pages, and one page behind them that stays unmapped. The address is
    /// `offset` above a multiple of `align`, a power of two, so that large pages can be used. Comes from the
    /// smallest range that will do.
    pub fn allocate(&mut self, len_bytes: u64, align: u64, offset: u64) -> Option<u64> {
        let len = align_up(len_bytes, PAGE_SIZE)?.checked_add(PAGE_SIZE)?;
        let offset = offset & (align - 1);
        let place = |&(start, end): &Range| {
            let base = align_up(start.checked_sub(offset)?, align)? + offset;
            (base.checked_add(len)? <= end).then_some(base)
        };
        let fitting =
            self.free[..self.len].iter().enumerate().filter_map(|(index, free)| Some((index, place(free)?)));
        let (index, base) = fitting.min_by_key(|&(index, _)| self.free[index].1 - self.free[index].0)?;
        let (start, end) = self.remove(index);
        self.insert((start, base));
        self.insert((base + len, end));
        Some(base)
    }

    /// Takes back what [`allocate`](Self::allocate) gave for `len_bytes`.
    pub fn release(&mut self, start: u64, len_bytes: u64) {
        let start = align_down(start, PAGE_SIZE);
        let Some(end) = align_up(len_bytes, PAGE_SIZE).and_then(|len| start.checked_add(len + PAGE_SIZE))
        else {
            return;
        };
        let mut range = (start, end);
        while let Some(index) =
            self.free[..self.len].iter().position(|free| free.1 == range.0 || free.0 == range.1)
        {
            let neighbour = self.remove(index);
            range = (range.0.min(neighbour.0), range.1.max(neighbour.1));
        }
        self.insert(range);
    }

    fn remove(&mut self, index: usize) -> Range {
        self.len -= 1;
        self.free.swap(index, self.len);
        self.free[self.len]
    }

    fn insert(&mut self, range: Range) {
        let size = |range: &Range| range.1 - range.0;
        if size(&range) == 0 {
            return;
        }
        if self.len < MAX_FREE {
            self.free[self.len] = range;
            self.len += 1;
        } else if let Some(smallest) = self.free.iter_mut().min_by_key(|free| size(free))
            && size(smallest) < size(&range)
        {
            *smallest = range;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: u64 = 0xffff_e000_0000_0000;
    const LEN: u64 = 1 << 30;

    #[test]
    fn absurd_lengths_are_refused() {
        let mut window = Window::new(START, LEN);
        for len_bytes in [u64::MAX, u64::MAX - PAGE_SIZE, LEN, LEN + 1] {
            assert_eq!(window.allocate(len_bytes, PAGE_SIZE, 0), None);
        }
        assert_eq!(window.allocate(LEN - PAGE_SIZE, PAGE_SIZE, 0), Some(START));
    }

    proptest! {
        /// What is allocated lies in the window, aligned as asked, a page apart from all else; and when all is
        /// released the window is whole.
        #[test]
        fn ranges_never_overlap(steps in prop::collection::vec((1u64..5_000_000, 12u32..22, any::<u64>(), any::<bool>()), 1..60)) {
            let mut window = Window::new(START, LEN);
            let mut owned: Vec<(u64, u64)> = Vec::new();
            for (len_bytes, shift, offset, release) in steps {
                if release && !owned.is_empty() {
                    let (start, len_bytes) = owned.swap_remove(len_bytes as usize % owned.len());
                    window.release(start, len_bytes);
                    continue;
                }
                let (align, offset) = (1u64 << shift, offset & !(PAGE_SIZE - 1));
                let Some(start) = window.allocate(len_bytes, align, offset) else { continue };
                prop_assert_eq!(start % align, offset % align);
                prop_assert!(start >= START && start + len_bytes < START + LEN);
                for &(other, other_len) in &owned {
                    prop_assert!(start + len_bytes + PAGE_SIZE <= other + PAGE_SIZE || other + other_len < start);
                    prop_assert!(start >= other + other_len || start + len_bytes < other);
                }
                owned.push((start, len_bytes));
            }
            for (start, len_bytes) in owned {
                window.release(start, len_bytes);
            }
            prop_assert_eq!(window.allocate(LEN - PAGE_SIZE, PAGE_SIZE, 0), Some(START));
        }
    }
}
