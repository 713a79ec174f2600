//! Sets of CPUs, by their numbers.
//! Neighbours: `ops` (whom an interrupt or a flush goes to), the kernel's `cpu::percpu` (which CPUs there are).

use core::sync::atomic::{AtomicU64, Ordering};

/// CPUs that a guest uses at most; their numbers are below, without gaps, and 0 is the boot CPU's.
pub const MAX_CPUS: usize = 128;

const WORDS: usize = MAX_CPUS / 64;

/// Some CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct CpuSet([u64; WORDS]);

impl CpuSet {
    /// No CPU.
    pub const EMPTY: Self = Self([0; WORDS]);

    /// This CPU alone. A number that no CPU can have gives the empty set.
    pub fn one(cpu: u32) -> Self {
        let mut set = Self::EMPTY;
        set.insert(cpu);
        set
    }

    /// Adds a CPU; a number that no CPU can have is left out.
    pub fn insert(&mut self, cpu: u32) {
        if let Some(word) = self.0.get_mut(cpu as usize / 64) {
            *word |= 1 << (cpu % 64);
        }
    }

    /// Takes a CPU out.
    pub fn remove(&mut self, cpu: u32) {
        if let Some(word) = self.0.get_mut(cpu as usize / 64) {
            *word &= !(1 << (cpu % 64));
        }
    }

    /// Those that are not in `others`.
    pub fn without(&self, others: &Self) -> Self {
        Self(core::array::from_fn(|word| self.0[word] & !others.0[word]))
    }

    /// Whether this CPU is among them.
    pub fn contains(&self, cpu: u32) -> bool {
        self.0.get(cpu as usize / 64).is_some_and(|word| word >> (cpu % 64) & 1 != 0)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0 == [0; WORDS]
    }

    /// How many they are.
    pub fn len(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// Their numbers, lowest first.
    pub fn iter(self) -> impl Iterator<Item = u32> {
        let mut left = self;
        core::iter::from_fn(move || {
            let (index, word) = left.0.iter_mut().enumerate().find(|(_, word)| **word != 0)?;
            let bit = word.trailing_zeros();
            *word &= *word - 1;
            Some(index as u32 * 64 + bit)
        })
    }

    /// The numbers as bits, CPU 0 lowest: as hypervisors take them.
    pub fn words(&self) -> &[u64; WORDS] {
        &self.0
    }
}

impl FromIterator<u32> for CpuSet {
    fn from_iter<I: IntoIterator<Item = u32>>(cpus: I) -> Self {
        let mut set = Self::EMPTY;
        cpus.into_iter().for_each(|cpu| set.insert(cpu));
        set
    }
}

/// A set that several CPUs change.
#[derive(Debug, Default)]
pub struct AtomicCpuSet([AtomicU64; WORDS]);

impl AtomicCpuSet {
    /// No CPU.
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; WORDS])
    }

    /// Adds a CPU. Whether it was not in it.
    pub fn insert(&self, cpu: u32) -> bool {
        let bit = 1 << (cpu % 64);
        self.0.get(cpu as usize / 64).is_some_and(|word| word.fetch_or(bit, Ordering::SeqCst) & bit == 0)
    }

    /// Takes a CPU out. Whether it was in it.
    pub fn remove(&self, cpu: u32) -> bool {
        let bit = 1 << (cpu % 64);
        self.0.get(cpu as usize / 64).is_some_and(|word| word.fetch_and(!bit, Ordering::SeqCst) & bit != 0)
    }

    /// Whether this CPU is in it now.
    pub fn contains(&self, cpu: u32) -> bool {
        self.get().contains(cpu)
    }

    /// Who is in it now; of two words, one may be seen older than the other.
    pub fn get(&self) -> CpuSet {
        let mut words = [0; WORDS];
        for (word, place) in words.iter_mut().zip(&self.0) {
            *word = place.load(Ordering::SeqCst);
        }
        CpuSet(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{collections::BTreeSet, vec::Vec};

    proptest! {
        #[test]
        fn a_set_has_what_was_put_in(numbers in prop::collection::btree_set(0..200_u32, 0..60)) {
            let set: CpuSet = numbers.iter().copied().collect();
            let expected: BTreeSet<u32> = numbers.into_iter().filter(|&cpu| (cpu as usize) < MAX_CPUS).collect();
            prop_assert_eq!(set.iter().collect::<Vec<_>>(), expected.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!((set.len(), set.is_empty()), (expected.len() as u32, expected.is_empty()));
            let atomic = AtomicCpuSet::new();
            for cpu in set.iter() {
                prop_assert!(atomic.insert(cpu) && !atomic.insert(cpu));
            }
            prop_assert_eq!(atomic.get(), set);
            let mut left = set;
            for cpu in set.iter() {
                left.remove(cpu);
                prop_assert!(!left.contains(cpu) && atomic.remove(cpu) && !atomic.contains(cpu));
            }
            prop_assert!(left.is_empty() && atomic.get().is_empty());
        }
    }
}
