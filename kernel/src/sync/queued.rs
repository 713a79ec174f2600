//! The spin lock under [`IrqMutex`](super::IrqMutex): who waits stands in a queue, and sleeps if the host lets it.
//!
//! Each waiter looks at a place of its own CPU until the one in front of it says that it is first; only the first looks
//! at the lock. So a release disturbs one waiter. Waiters spin briefly and then wait by pv-op, having told whoever must
//! kick them. (M. L. Scott, Shared-Memory Synchronization, §4.3.)
//! The order is not strict, as the host may have taken the CPU of the one whose turn it is: who comes to a free lock takes
//! it, until the first in the queue has lost it once, or waited for long; then its turn is the next.
//! The same source is checked in every interleaving by the tests (`crate::interleave`).
#![forbid(unsafe_code)]

use super::{
    atomic::{AtomicU8, Ordering, constructor},
    wait,
};

const FREE: u8 = 0;
const HELD: u8 = 1;
/// Held, and the first waiter sleeps: the holder kicks it.
const WANTED: u8 = 2;

/// The lock. A CPU is told by its number plus one; 0 is none.
#[derive(Debug)]
pub(super) struct Queued {
    state: AtomicU8,
    /// Who came last.
    last: AtomicU8,
    /// Who is first, once it sleeps.
    first: AtomicU8,
    /// 1 while nobody may take it but the first.
    reserved: AtomicU8,
}

/// The place of one CPU in a queue. One is enough: a CPU waits for one lock at a time, with interrupts disabled.
#[derive(Debug)]
pub(super) struct Place {
    turn: AtomicU8,
    next: AtomicU8,
}

/// Stands behind another.
const BEHIND: u8 = 0;
/// As before, and sleeps.
const ASLEEP: u8 = 1;
const FIRST: u8 = 2;

impl Place {
    constructor! {
        pub(super) fn new() -> Self {
            Self { turn: AtomicU8::new(BEHIND), next: AtomicU8::new(0) }
        }
    }
}

impl Queued {
    constructor! {
        /// A free lock.
        pub(super) fn new() -> Self {
            let [state, last, first, reserved] =
                [AtomicU8::new(FREE), AtomicU8::new(0), AtomicU8::new(0), AtomicU8::new(0)];
            Self { state, last, first, reserved }
        }
    }

    /// Takes the lock if it is free.
    #[inline]
    pub(super) fn try_lock(&self) -> bool {
        self.state.compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Takes the lock if it is free and not reserved.
    #[inline]
    pub(super) fn try_lock_in_turn(&self) -> bool {
        self.reserved.load(Ordering::Relaxed) == 0 && self.try_lock()
    }

    /// Waits for the lock on the CPU with this number, and calls `still` every now and then. Interrupts are disabled.
    pub(super) fn wait(&self, places: &[Place], cpu: u32, still: &dyn Fn()) {
        for _ in 0..wait::EARLY_LOOKS {
            wait::relax();
            if self.state.load(Ordering::Relaxed) == FREE && self.try_lock_in_turn() {
                return;
            }
        }
        let (this, own) = (cpu as u8 + 1, &places[cpu as usize]);
        own.turn.store(BEHIND, Ordering::Relaxed);
        own.next.store(0, Ordering::Relaxed);
        let before = self.last.swap(this, Ordering::AcqRel);
        if let Some(before) = before.checked_sub(1) {
            places[usize::from(before)].next.store(this, Ordering::Release);
            wait_for(cpu, &own.turn, FIRST, [BEHIND, ASLEEP], still);
        }
        self.first.store(this, Ordering::Relaxed);
        let reserve = || self.reserved.store(1, Ordering::Relaxed);
        while !self.try_lock() {
            let late = || {
                reserve();
                still();
            };
            wait_for(cpu, &self.state, FREE, [HELD, WANTED], &late);
            if self.try_lock() {
                break;
            }
            reserve();
        }
        self.reserved.store(0, Ordering::Relaxed);
        if self.last.compare_exchange(this, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            return;
        }
        // Somebody is about to tell that it stands behind us.
        while own.next.load(Ordering::Acquire) == 0 {
            wait::relax();
        }
        let next = own.next.load(Ordering::Acquire) - 1;
        if places[usize::from(next)].turn.swap(FIRST, Ordering::AcqRel) == ASLEEP {
            wait::kick(next.into());
        }
    }

    /// Frees the lock, which the caller has.
    #[inline]
    pub(super) fn unlock(&self) {
        if self.state.swap(FREE, Ordering::AcqRel) == WANTED {
            wait::kick(u32::from(self.first.load(Ordering::Relaxed)) - 1);
        }
    }

    /// Whether somebody has it.
    pub(super) fn is_locked(&self) -> bool {
        self.state.load(Ordering::Relaxed) != FREE
    }
}

/// Waits until `word` is `goal`: looks at it for a while, then turns `awake` into `asleep` and sleeps.
#[inline(never)]
fn wait_for(cpu: u32, word: &AtomicU8, goal: u8, [awake, asleep]: [u8; 2], still: &dyn Fn()) {
    let mut looks: u32 = 0;
    loop {
        let mut now = word.load(Ordering::Acquire);
        looks = looks.wrapping_add(1);
        if looks.is_multiple_of(wait::LOOKS) {
            still();
        }
        if looks >= wait::LOOKS && now == awake {
            match word.compare_exchange(awake, asleep, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => now = asleep,
                Err(other) => now = other,
            }
        }
        if now == goal {
            return;
        }
        if now == asleep {
            wait::sleep(cpu, word, asleep);
        } else {
            wait::relax();
        }
    }
}
