//! The accesses to a ring whose order matters, each with its reason (VirtIO 1.3 §2.7.13, §2.8.21).
//!
//! Everything else in a ring is read and written relaxed, between these. The rings use them on memory shared with the
//! device; the test below runs the same code under loom, which tries every order that the memory model allows. The full
//! fence is the machine's ([`Hal::fence`](crate::hal::Hal::fence)).
//! Neighbours: `split`, `packed`.
#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicU16, AtomicU32, Ordering};

/// A word that driver and device share.
pub(super) trait Word {
    /// What it holds.
    type Value;
    /// Reads it.
    fn load(&self, order: Ordering) -> Self::Value;
    /// Writes it.
    fn store(&self, value: Self::Value, order: Ordering);
}

macro_rules! word {
    ($atomic:ty, $value:ty) => {
        impl Word for $atomic {
            type Value = $value;

            #[inline]
            fn load(&self, order: Ordering) -> $value {
                self.load(order)
            }

            #[inline]
            fn store(&self, value: $value, order: Ordering) {
                self.store(value, order);
            }
        }
    };
}
word!(AtomicU16, u16);
word!(AtomicU32, u32);

/// Makes public what was written before, by the word that says so: who observes it sees all that.
#[inline]
pub(super) fn publish<W: Word>(word: &W, value: W::Value) {
    word.store(value, Ordering::Release);
}

/// Reads the word by which the other side makes something public: what is read behind it is what was meant.
#[inline]
pub(super) fn observe<W: Word>(word: &W) -> W::Value {
    word.load(Ordering::Acquire)
}

/// Reads what the other side wants to be told of, after something was published. It says its wish and then looks for what is
/// public; we publish and then look for its wish. So one of the two sees the other's, if neither's load overtakes its
/// store: only a full fence on both sides keeps them.
#[inline]
pub(super) fn wish_of_other<W: Word>(wish: &W, full_fence: fn()) -> W::Value {
    full_fence();
    wish.load(Ordering::Relaxed)
}

/// Says what we want to be told of; what is looked at behind it makes up for what was published before that was seen. The
/// counterpart of [`wish_of_other`].
#[inline]
pub(super) fn wish<W: Word>(wish: &W, value: W::Value, full_fence: fn()) {
    wish.store(value, Ordering::Relaxed);
    full_fence();
}

#[cfg(test)]
mod tests {
    use super::{super::event_idx::has_passed, *};
    use loom::{
        sync::Arc,
        sync::atomic::{AtomicU16 as LoomU16, AtomicU32 as LoomU32},
        thread,
    };

    word!(LoomU16, u16);
    word!(LoomU32, u32);

    fn full_fence() {
        loom::sync::atomic::fence(Ordering::SeqCst);
    }

    /// What both sides share of a split ring.
    struct Ring {
        entries: [LoomU16; 2],
        index: LoomU16,
        event: LoomU16,
    }

    /// One side publishes two entries, one after the other, and tells the other each time that it wants to know; the other
    /// takes what there is, says where it stops, looks once more, and sleeps.
    #[test]
    fn what_is_published_is_seen_or_told_of() {
        publish_and_sleep(full_fence);
    }

    /// As on a machine that leaves fences out: why `Hal` has one of its own.
    #[test]
    #[should_panic(expected = "it sleeps for ever")]
    fn without_the_full_fence_a_sleeper_is_missed() {
        publish_and_sleep(|| ());
    }

    fn publish_and_sleep(fence: fn()) {
        loom::model(move || {
            let ring = Arc::new(Ring {
                entries: [LoomU16::new(0), LoomU16::new(0)],
                index: LoomU16::new(0),
                event: LoomU16::new(0),
            });
            let shared = ring.clone();
            let taker = thread::spawn(move || {
                let mut taken = 0;
                loop {
                    let index = observe(&shared.index);
                    if index == taken {
                        wish(&shared.event, taken, fence);
                        if observe(&shared.index) == taken {
                            return taken;
                        }
                        continue;
                    }
                    for at in taken..index {
                        let entry = shared.entries[usize::from(at)].load(Ordering::Relaxed);
                        assert_eq!(entry, at + 1, "an entry that is public is whole");
                    }
                    taken = index;
                }
            });
            let mut told = None;
            for at in 0..2 {
                ring.entries[usize::from(at)].store(at + 1, Ordering::Relaxed);
                publish(&ring.index, at + 1);
                if has_passed(wish_of_other(&ring.event, fence), at, at + 1) {
                    told = Some(at + 1);
                }
            }
            let taken = taker.join().unwrap();
            assert!(taken == 2 || told > Some(taken), "{taken} taken, told {told:?}: it sleeps for ever");
        });
    }

    /// What both sides share of a packed ring of two descriptors, in its first round.
    struct Packed {
        ids: [LoomU16; 2],
        flags: [LoomU16; 2],
        /// The descriptor to be told of.
        event: LoomU32,
    }

    /// The same with a packed ring, where each descriptor is made public by its own flags.
    #[test]
    fn a_descriptor_of_a_packed_ring_is_seen_or_told_of() {
        const PUBLIC: u16 = 1 << 7;
        loom::model(|| {
            let words = || [LoomU16::new(0), LoomU16::new(0)];
            let ring = Arc::new(Packed { ids: words(), flags: words(), event: LoomU32::new(0) });
            let shared = ring.clone();
            let taker = thread::spawn(move || {
                let is_public =
                    |at: usize| shared.flags.get(at).is_some_and(|flags| observe(flags) == PUBLIC);
                let mut taken = 0;
                loop {
                    while is_public(taken) {
                        let id = shared.ids[taken].load(Ordering::Relaxed);
                        assert_eq!(usize::from(id), taken + 1, "a descriptor that is public is whole");
                        taken += 1;
                    }
                    wish(&shared.event, taken as u32, full_fence);
                    if !is_public(taken) {
                        return taken;
                    }
                }
            });
            let mut told = None;
            for at in 0..2u16 {
                let place = usize::from(at);
                ring.ids[place].store(at + 1, Ordering::Relaxed);
                publish(&ring.flags[place], PUBLIC);
                if has_passed(wish_of_other(&ring.event, full_fence) as u16, at, at + 1) {
                    told = Some(place + 1);
                }
            }
            let taken = taker.join().unwrap();
            assert!(taken == 2 || told > Some(taken), "{taken} taken, told {told:?}: it sleeps for ever");
        });
    }
}
