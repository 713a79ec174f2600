//! The grant table: which frames of this domain another one may reach, and how (grant_table.h).
//!
//! An entry is taken by [`Table::grant`] and given back by [`Grant::end`]. While the other domain has the frame mapped
//! the entry cannot be taken back: `end` returns the handle then, and its holder keeps the frame until a later `end`
//! succeeds. A handle that is dropped instead is not reused either until [`Table::sweep`] finds the other side gone.
//! Files: `entries` (both versions of the table as words), `set_up` (the hypercalls), this one (who has which entry).

pub mod entries;
pub mod set_up;

pub use entries::{Access, Entries};

use core::sync::atomic::{AtomicU64, Ordering};

/// Entries that are used, at most.
pub const CAPACITY: u32 = 4096;
/// The first entries are the toolstack's: console and xenstore.
#[doc(alias = "GNTTAB_NR_RESERVED_ENTRIES")]
const RESERVED: u32 = 8;

const WORDS: usize = CAPACITY as usize / 64;

/// The table with its books.
pub struct Table {
    entries: Entries,
    /// A bit an entry: somebody has it.
    used: [AtomicU64; WORDS],
    /// A bit an entry: its handle was dropped, the other side may still use it.
    closing: [AtomicU64; WORDS],
}

/// An entry of the table that is in force.
#[must_use = "the other domain keeps its access until `end` says that it is over"]
pub struct Grant {
    table: &'static Table,
    reference: u32,
}

impl Table {
    /// A table of these entries, none in use.
    pub const fn new(entries: Entries) -> Self {
        let none = [const { AtomicU64::new(0) }; WORDS];
        Self { entries, used: none, closing: [const { AtomicU64::new(0) }; WORDS] }
    }

    /// Entries that can be had.
    fn len(&self) -> u32 {
        self.entries.len().min(CAPACITY)
    }

    /// Lets `domain` reach the frame, by Xen's number for it; `None` when all entries are in use, or when the table's
    /// version has no room for that number.
    pub fn grant(&'static self, domain: u16, frame: u64, access: Access) -> Option<Grant> {
        if !self.entries.can_name(frame) {
            return None;
        }
        let reference = self.take().or_else(|| {
            self.sweep();
            self.take()
        })?;
        self.entries.set(reference, domain, frame, access);
        Some(Grant { table: self, reference })
    }

    fn take(&self) -> Option<u32> {
        (RESERVED..self.len()).find(|&reference| {
            let (word, bit) = place(reference);
            self.used[word].load(Ordering::Relaxed) & bit == 0
                && self.used[word].fetch_or(bit, Ordering::AcqRel) & bit == 0
        })
    }

    fn release(&self, reference: u32) {
        let (word, bit) = place(reference);
        self.used[word].fetch_and(!bit, Ordering::AcqRel);
    }

    /// Takes back what was dropped while the other side used it, as far as it is over. How many are left.
    pub fn sweep(&self) -> u32 {
        for reference in RESERVED..self.len() {
            let (word, bit) = place(reference);
            if self.closing[word].load(Ordering::Acquire) & bit != 0
                && self.entries.clear(reference)
                && self.closing[word].fetch_and(!bit, Ordering::AcqRel) & bit != 0
            {
                self.release(reference);
            }
        }
        count(&self.closing)
    }

    /// Entries that somebody has or the other side still uses.
    pub fn in_use(&self) -> u32 {
        count(&self.used)
    }
}

fn count(bits: &[AtomicU64; WORDS]) -> u32 {
    bits.iter().map(|word| word.load(Ordering::Relaxed).count_ones()).sum()
}

fn place(reference: u32) -> (usize, u64) {
    (reference as usize / 64, 1 << (reference % 64))
}

impl Grant {
    /// The entry's number, to tell the other domain.
    pub fn reference(&self) -> u32 {
        self.reference
    }

    /// Ends it. From `Ok` on the other domain has no access.
    ///
    /// # Errors
    /// The handle itself while the other domain has the frame mapped: to be tried again.
    pub fn end(self) -> Result<(), Self> {
        if !self.table.entries.clear(self.reference) {
            return Err(self);
        }
        self.table.release(self.reference);
        core::mem::forget(self);
        Ok(())
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        let (word, bit) = place(self.reference);
        self.table.closing[word].fetch_or(bit, Ordering::AcqRel);
        self.table.sweep();
    }
}

impl core::fmt::Debug for Grant {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Grant({})", self.reference)
    }
}

#[cfg(test)]
mod tests {
    use super::{entries::tests::*, *};
    use proptest::prelude::*;
    use std::{boxed::Box, collections::BTreeMap, vec::Vec};

    fn table(version: Version) -> (&'static Table, Peer) {
        let (entries, peer) = peer(version, 4096);
        (Box::leak(Box::new(Table::new(entries))), peer)
    }

    #[test]
    fn a_reference_is_reused_only_after_the_other_side_has_let_go() {
        for version in [Version::V1, Version::V2] {
            let (table, peer) = table(version);
            let grant = table.grant(3, 0x1234, Access::ReadWrite).unwrap();
            let reference = grant.reference();
            assert!(reference >= RESERVED);
            assert_eq!(peer.map(reference, 3), Some((0x1234, Access::ReadWrite)));
            let grant = grant.end().unwrap_err();
            let other = table.grant(3, 0x5678, Access::ReadOnly).unwrap();
            assert_ne!(other.reference(), reference);
            peer.unmap(reference);
            grant.end().unwrap();
            assert_eq!(peer.map(reference, 3), None);
            other.end().unwrap();
            assert_eq!(table.in_use(), 0);
            assert_eq!(table.grant(3, 1, Access::ReadOnly).unwrap().reference(), reference);
        }
    }

    #[test]
    fn a_dropped_handle_is_swept_once_the_other_side_has_let_go() {
        for version in [Version::V1, Version::V2] {
            let (table, peer) = table(version);
            let grant = table.grant(0, 7, Access::ReadWrite).unwrap();
            let reference = grant.reference();
            peer.map(reference, 0).unwrap();
            drop(grant);
            assert_eq!((table.sweep(), table.in_use()), (1, 1));
            peer.unmap(reference);
            assert_eq!((table.sweep(), table.in_use()), (0, 0));
        }
    }

    #[test]
    fn a_full_table_says_so_and_serves_again_later() {
        let (table, _) = table(Version::V1);
        let mut grants: Vec<Grant> = core::iter::from_fn(|| table.grant(0, 1, Access::ReadOnly)).collect();
        assert_eq!(grants.len() as u32, CAPACITY - RESERVED);
        grants.pop().unwrap().end().unwrap();
        assert!(table.grant(0, 1, Access::ReadOnly).is_some());
    }

    #[test]
    fn another_domain_and_writing_to_a_read_only_frame_are_refused() {
        for version in [Version::V1, Version::V2] {
            let (table, peer) = table(version);
            let grant = table.grant(5, 9, Access::ReadOnly).unwrap();
            assert_eq!(peer.map(grant.reference(), 6), None);
            assert_eq!(peer.map(grant.reference(), 5), Some((9, Access::ReadOnly)));
        }
    }

    #[test]
    fn a_frame_beyond_16_tib_needs_version_2() {
        let (v1, _) = table(Version::V1);
        let (v2, peer) = table(Version::V2);
        assert!(v1.grant(0, 1 << 32, Access::ReadOnly).is_none());
        let grant = v2.grant(0, 1 << 32, Access::ReadOnly).unwrap();
        assert_eq!(peer.map(grant.reference(), 0), Some((1 << 32, Access::ReadOnly)));
    }

    proptest! {
        /// Grants, ends, drops, maps and unmaps in any order: no reference has two holders, and none is lost.
        #[test]
        fn references_have_one_holder_and_none_is_lost(
            steps in prop::collection::vec((0..5_u8, any::<prop::sample::Index>()), 0..120),
            v2: bool,
        ) {
            let (table, peer) = table(if v2 { Version::V2 } else { Version::V1 });
            let mut held: BTreeMap<u32, Grant> = BTreeMap::new();
            let mut mapped = std::collections::BTreeSet::new();
            for (step, which) in steps {
                let pick = |held: &BTreeMap<u32, Grant>| (!held.is_empty()).then(|| *held.keys().nth(which.index(held.len())).unwrap());
                match step {
                    0 => {
                        let grant = table.grant(0, 1, Access::ReadWrite).unwrap();
                        prop_assert!(!mapped.contains(&grant.reference()));
                        prop_assert!(held.insert(grant.reference(), grant).is_none());
                    }
                    1 => if let Some(reference) = pick(&held) {
                        match held.remove(&reference).unwrap().end() {
                            Ok(()) => prop_assert!(!mapped.contains(&reference)),
                            Err(grant) => {
                                prop_assert!(mapped.contains(&reference));
                                held.insert(reference, grant);
                            }
                        }
                    },
                    2 => _ = pick(&held).and_then(|reference| held.remove(&reference)),
                    3 => if let Some(reference) = pick(&held) && peer.map(reference, 0).is_some() {
                        mapped.insert(reference);
                    },
                    _ => if !mapped.is_empty() {
                        let reference = *mapped.iter().nth(which.index(mapped.len())).unwrap();
                        mapped.remove(&reference);
                        peer.unmap(reference);
                    },
                }
            }
            mapped.iter().for_each(|&reference| peer.unmap(reference));
            held.into_values().for_each(|grant| grant.end().unwrap());
            prop_assert_eq!((table.sweep(), table.in_use()), (0, 0));
        }
    }
}
