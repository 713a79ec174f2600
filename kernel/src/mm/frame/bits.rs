//! A set of small integers that finds the least member from any number on in a few steps: a bitmap whose upper
//! levels tell which words of the level below are not zero. All of it lies in one slice of words.
//! Neighbours: `buddy` keeps one of these for the free blocks of each order.
#![forbid(unsafe_code)]

const WORD_BITS: usize = u64::BITS as usize;
/// Six levels of 64: 2^36 members, more than the direct map has frames.
const MAX_LEVELS: usize = 6;

/// The set. Members are below the `bits` it was made for.
#[derive(Debug)]
pub(super) struct BitTree<'a> {
    words: &'a mut [u64],
    /// Where each level begins in `words`, the lowest first.
    starts: [usize; MAX_LEVELS],
    levels: usize,
    len: usize,
}

/// Words of each level for members below `bits`, the lowest first; the last one used is a single word.
fn level_words(bits: usize) -> impl Iterator<Item = usize> {
    let mut next = Some(bits.div_ceil(WORD_BITS).max(1));
    core::iter::from_fn(move || {
        let words = next?;
        next = (words > 1).then(|| words.div_ceil(WORD_BITS));
        Some(words)
    })
}

impl<'a> BitTree<'a> {
    /// Words that a set of members below `bits` needs.
    pub(super) fn words_for(bits: usize) -> usize {
        level_words(bits).sum()
    }

    /// The empty set in `words`, which must be [`words_for`](Self::words_for) `bits` long and is cleared.
    pub(super) fn new(words: &'a mut [u64], bits: usize) -> Self {
        assert_eq!(words.len(), Self::words_for(bits));
        words.fill(0);
        let mut starts = [0; MAX_LEVELS];
        let (mut levels, mut start) = (0, 0);
        for words in level_words(bits) {
            starts[levels] = start;
            start += words;
            levels += 1;
        }
        Self { words, starts, levels, len: 0 }
    }

    /// How many members there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether `member` is in the set.
    pub(super) fn contains(&self, member: usize) -> bool {
        self.words[member / WORD_BITS] >> (member % WORD_BITS) & 1 != 0
    }

    /// Puts `member` in. It must not be in yet.
    pub(super) fn insert(&mut self, member: usize) {
        debug_assert!(!self.contains(member));
        self.len += 1;
        let mut index = member;
        for level in 0..self.levels {
            let word = &mut self.words[self.starts[level] + index / WORD_BITS];
            let was_empty = *word == 0;
            *word |= 1 << (index % WORD_BITS);
            if !was_empty {
                return;
            }
            index /= WORD_BITS;
        }
    }

    /// Takes `member` out. False when it was not in.
    pub(super) fn remove(&mut self, member: usize) -> bool {
        if !self.contains(member) {
            return false;
        }
        self.len -= 1;
        let mut index = member;
        for level in 0..self.levels {
            let word = &mut self.words[self.starts[level] + index / WORD_BITS];
            *word &= !(1 << (index % WORD_BITS));
            if *word != 0 {
                break;
            }
            index /= WORD_BITS;
        }
        true
    }

    /// The least member that is not less than `from`.
    pub(super) fn first_from(&self, from: usize) -> Option<usize> {
        let mut index = from;
        for level in 0..self.levels {
            let word = self.level(level).get(index / WORD_BITS)? & u64::MAX << (index % WORD_BITS);
            if word != 0 {
                index = index / WORD_BITS * WORD_BITS + word.trailing_zeros() as usize;
                let down = |index: usize, level: usize| {
                    index * WORD_BITS + self.level(level)[index].trailing_zeros() as usize
                };
                return Some((0..level).rev().fold(index, down));
            }
            // Nothing more in this word: on with the next one, which the level above knows.
            index = index / WORD_BITS + 1;
        }
        None
    }

    /// The words of a level.
    fn level(&self, level: usize) -> &[u64] {
        let end = if level + 1 < self.levels { self.starts[level + 1] } else { self.words.len() };
        &self.words[self.starts[level]..end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        /// Any sequence of insertions and removals leaves what a `BTreeSet` would hold.
        #[test]
        fn behaves_as_an_ordered_set(bits in 1usize..20_000, steps in prop::collection::vec((any::<bool>(), 0usize..20_000), 0..200)) {
            let mut words = vec![u64::MAX; BitTree::words_for(bits)];
            let mut tree = BitTree::new(&mut words, bits);
            let mut model = BTreeSet::new();
            for (insert, member) in steps {
                let member = member % bits;
                if !insert {
                    prop_assert_eq!(tree.remove(member), model.remove(&member));
                } else if model.insert(member) {
                    tree.insert(member);
                }
                for from in [0, member, member + 1, bits - 1, bits, bits + 5000] {
                    prop_assert_eq!(tree.first_from(from), model.range(from..).next().copied());
                }
                prop_assert_eq!(tree.len(), model.len());
                prop_assert_eq!(tree.contains(member), model.contains(&member));
            }
        }
    }
}
