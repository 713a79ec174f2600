//! A CPU's few spare frames, so that taking or giving back one frame seldom needs the allocator that all share.
//! Neighbours: `frame` keeps one of these for each CPU in front of the `buddy`.
#![forbid(unsafe_code)]

/// Frames a cache holds at most.
pub(super) const CAPACITY: usize = 16;
/// Frames moved to or from the shared allocator at a time.
pub(super) const BATCH: usize = 8;

/// Numbers of frames that are handed out to this cache and used by nobody.
#[derive(Debug)]
pub(in crate::mm) struct Cache {
    frames: [u64; CAPACITY],
    len: usize,
}

impl Cache {
    /// No frames.
    pub(in crate::mm) const EMPTY: Self = Self { frames: [0; CAPACITY], len: 0 };

    /// Takes the frame that came last: its content is most likely still in the CPU's own cache.
    pub(super) fn pop(&mut self) -> Option<u64> {
        self.len = self.len.checked_sub(1)?;
        Some(self.frames[self.len])
    }

    /// Whether nothing more can be pushed.
    pub(super) fn is_full(&self) -> bool {
        self.len == CAPACITY
    }

    /// How many frames it holds.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether `frame` lies here already, so that freeing it is a double free.
    pub(super) fn contains(&self, frame: u64) -> bool {
        self.frames[..self.len].contains(&frame)
    }

    /// Adds a frame to one that is not full.
    pub(super) fn push(&mut self, frame: u64) {
        self.frames[self.len] = frame;
        self.len += 1;
    }

    /// Takes out the `count` frames that have been here longest.
    pub(super) fn take_oldest(&mut self, count: usize) -> impl Iterator<Item = u64> + use<> {
        let count = count.min(self.len);
        let taken = self.frames;
        self.frames.copy_within(count..self.len, 0);
        self.len -= count;
        taken.into_iter().take(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hands_out_the_newest_and_gives_back_the_oldest() {
        let mut cache = Cache::EMPTY;
        (1..=CAPACITY as u64).for_each(|frame| cache.push(frame));
        assert!(cache.is_full() && cache.contains(3));
        assert!(cache.take_oldest(3).eq([1, 2, 3]));
        assert!(!cache.contains(3));
        assert_eq!(cache.pop(), Some(CAPACITY as u64));
        assert_eq!(cache.len(), CAPACITY - 4);
        assert_eq!(cache.take_oldest(100).count(), CAPACITY - 4);
        assert_eq!(cache.pop(), None);
    }
}
