//! The entries of the grant table as words that Xen reads and writes at the same time (grant_table.h).
//!
//! ```text
//! version 1   flags:16 domid:16 | frame:32                         in use: flags, set by Xen
//! version 2   flags:16 domid:16 | 0:32 | frame:64                  in use: a status word of its own
//! ```
//! Neighbours: `mod` (who has which entry), `set_up` (where the words are).

use core::sync::atomic::{AtomicU16, AtomicU32, Ordering, fence};

/// The entry is in force.
#[doc(alias = "GTF_permit_access")]
const PERMIT_ACCESS: u32 = 1;
/// Reading only.
#[doc(alias = "GTF_readonly")]
const READ_ONLY: u32 = 1 << 2;
/// The other domain has it mapped, for reading or writing.
#[doc(alias = "GTF_reading")]
#[doc(alias = "GTF_writing")]
const IN_USE: u16 = 1 << 3 | 1 << 4;

/// What the other domain may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read.
    ReadOnly,
    /// Read and write.
    ReadWrite,
}

/// The table's memory. It is Xen's too.
#[derive(Clone, Copy, Debug)]
pub enum Entries {
    /// Two words an entry; frames of 32 bits.
    #[doc(alias = "grant_entry_v1")]
    V1(&'static [[AtomicU32; 2]]),
    /// Four words an entry, and where Xen notes their use.
    #[doc(alias = "grant_entry_v2")]
    V2(&'static [[AtomicU32; 4]], &'static [AtomicU16]),
}

impl Entries {
    /// How many there are.
    pub fn len(&self) -> u32 {
        let len = match self {
            Self::V1(entries) => entries.len(),
            Self::V2(entries, status) => entries.len().min(status.len()),
        };
        u32::try_from(len).unwrap_or(u32::MAX)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether an entry has room for this frame number.
    pub(super) fn can_name(&self, frame: u64) -> bool {
        matches!(self, Self::V2(..)) || u32::try_from(frame).is_ok()
    }

    /// Puts an unused entry in force.
    pub(super) fn set(&self, reference: u32, domain: u16, frame: u64, access: Access) {
        let read_only = if access == Access::ReadOnly { READ_ONLY } else { 0 };
        let head = u32::from(domain) << 16 | read_only | PERMIT_ACCESS;
        let first = match self {
            Self::V1(entries) => {
                let [first, low] = &entries[reference as usize];
                low.store(frame as u32, Ordering::Relaxed);
                first
            }
            Self::V2(entries, _) => {
                let [first, unused, low, high] = &entries[reference as usize];
                unused.store(0, Ordering::Relaxed);
                low.store(frame as u32, Ordering::Relaxed);
                high.store((frame >> 32) as u32, Ordering::Relaxed);
                first
            }
        };
        // The flags come last: with them the entry is in force.
        first.store(head, Ordering::Release);
    }

    /// Takes an entry out of force; `false` while the other domain uses it.
    pub(super) fn clear(&self, reference: u32) -> bool {
        match self {
            Self::V1(entries) => {
                let [first, _] = &entries[reference as usize];
                let free = |head: u32| (head as u16 & IN_USE == 0).then_some(0);
                first.fetch_update(Ordering::SeqCst, Ordering::SeqCst, free).is_ok()
            }
            Self::V2(entries, status) => {
                entries[reference as usize][0].store(0, Ordering::SeqCst);
                // Either Xen sees that it is out of force, or we see that it is in use.
                fence(Ordering::SeqCst);
                status[reference as usize].load(Ordering::SeqCst) & IN_USE == 0
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::boxed::Box;

    #[derive(Clone, Copy)]
    pub(in crate::xen::grant_table) enum Version {
        V1,
        V2,
    }

    /// The other domain and Xen, as far as the table shows them.
    pub(in crate::xen::grant_table) struct Peer(Entries);

    pub(in crate::xen::grant_table) fn peer(version: Version, len: usize) -> (Entries, Peer) {
        let entries = match version {
            Version::V1 => Entries::V1(Box::leak((0..len).map(|_| Default::default()).collect())),
            Version::V2 => Entries::V2(
                Box::leak((0..len).map(|_| Default::default()).collect()),
                Box::leak((0..len).map(|_| AtomicU16::new(0)).collect()),
            ),
        };
        (entries, Peer(entries))
    }

    impl Peer {
        /// Maps the frame with all the access that the entry gives.
        pub(in crate::xen::grant_table) fn map(&self, reference: u32, domain: u16) -> Option<(u64, Access)> {
            let at = reference as usize;
            let head = match &self.0 {
                Entries::V1(entries) => entries[at][0].load(Ordering::SeqCst),
                Entries::V2(entries, _) => entries[at][0].load(Ordering::SeqCst),
            };
            if head & 3 != PERMIT_ACCESS || head >> 16 != domain.into() {
                return None;
            }
            let (access, bits) =
                if head & READ_ONLY != 0 { (Access::ReadOnly, 1 << 3) } else { (Access::ReadWrite, IN_USE) };
            let frame = match &self.0 {
                Entries::V1(entries) => {
                    entries[at][0].fetch_or(bits.into(), Ordering::SeqCst);
                    entries[at][1].load(Ordering::Relaxed).into()
                }
                Entries::V2(entries, status) => {
                    status[at].fetch_or(bits, Ordering::SeqCst);
                    let word = |word: usize| u64::from(entries[at][word].load(Ordering::Relaxed));
                    word(2) | word(3) << 32
                }
            };
            Some((frame, access))
        }

        pub(in crate::xen::grant_table) fn unmap(&self, reference: u32) {
            let at = reference as usize;
            match &self.0 {
                Entries::V1(entries) => _ = entries[at][0].fetch_and(!u32::from(IN_USE), Ordering::SeqCst),
                Entries::V2(_, status) => _ = status[at].fetch_and(!IN_USE, Ordering::SeqCst),
            }
        }
    }

    #[test]
    fn entries_are_laid_out_as_in_the_header() {
        let (v1, _) = peer(Version::V1, 16);
        v1.set(9, 0x7ff0, 0x1234_5678, Access::ReadOnly);
        let Entries::V1(words) = v1 else { unreachable!() };
        assert_eq!(words[9].each_ref().map(|word| word.load(Ordering::Relaxed)), [0x7ff0_0005, 0x1234_5678]);
        let (v2, _) = peer(Version::V2, 16);
        v2.set(9, 1, 0x12_3456_789a, Access::ReadWrite);
        let Entries::V2(words, _) = v2 else { unreachable!() };
        let found = words[9].each_ref().map(|word| word.load(Ordering::Relaxed));
        assert_eq!(found, [0x0001_0001, 0, 0x3456_789a, 0x12]);
    }
}
