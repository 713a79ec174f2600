//! How CPUs without work are marked, and how one is told that there is some: by a word that it looks at while it listens, else by
//! an interrupt.
//!
//! Whoever makes work writes it down before it looks at the mark, and rings before it looks whether somebody listens; whoever
//! idles marks itself, or ceases to listen, before it looks again whether there is work. So one of the two always sees the
//! other. The same source is checked in every interleaving by the tests (`crate::interleave`).
//! Neighbours: `idle` (idles, kicks), `scheduler` (makes work).
#![forbid(unsafe_code)]

use super::atomic::{AtomicBool, AtomicU64, Ordering, constructor, fence};

/// The CPUs without work, 64 a word.
pub(super) struct Marks([AtomicU64; WORDS]);

const WORDS: usize = pv_ops::MAX_CPUS / 64;
const _: () = assert!(WORDS == 2);

impl Marks {
    constructor! {
        /// None.
        pub(super) fn new() -> Self {
            Self([AtomicU64::new(0), AtomicU64::new(0)])
        }
    }

    fn place(&self, cpu: u32) -> (&AtomicU64, u64) {
        (&self.0[cpu as usize / 64 % WORDS], 1 << (cpu % 64))
    }

    /// This CPU has no work; it looks once more whether there is some.
    pub(super) fn set(&self, cpu: u32) {
        let (set, bit) = self.place(cpu);
        set.fetch_or(bit, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// It has some, from another CPU; it looks once more whether somebody has seen the mark and brought more.
    pub(super) fn clear_for_work(&self, cpu: u32) {
        self.clear(cpu);
        fence(Ordering::SeqCst);
    }

    /// It has some.
    pub(super) fn clear(&self, cpu: u32) {
        let (set, bit) = self.place(cpu);
        set.fetch_and(!bit, Ordering::Relaxed);
    }

    /// Whether a CPU is marked.
    pub(super) fn contains(&self, cpu: u32) -> bool {
        let (set, bit) = self.place(cpu);
        set.load(Ordering::Relaxed) & bit != 0
    }

    /// As [`contains`](Self::contains), for who has made work for that CPU just now.
    pub(super) fn contains_after_work(&self, cpu: u32) -> bool {
        fence(Ordering::SeqCst);
        self.contains(cpu)
    }

    /// A marked CPU among `online`, `here` excepted.
    pub(super) fn find(&self, online: core::ops::Range<u32>, here: u32) -> Option<u32> {
        self.0.iter().enumerate().find_map(|(index, set)| {
            let mut set = set.load(Ordering::Relaxed);
            let first = index as u32 * 64;
            if here / 64 == index as u32 {
                set &= !(1 << (here % 64));
            }
            (set != 0).then(|| first + set.trailing_zeros()).filter(|cpu| online.contains(cpu))
        })
    }
}

/// How one CPU without work is told that there is some.
pub(super) struct Bell {
    /// It looks at `rung`, so that no interrupt is needed.
    listens: AtomicBool,
    /// Another CPU has something for it.
    rung: AtomicBool,
}

impl Bell {
    constructor! {
        /// Nobody listens, nobody rings.
        pub(super) fn new() -> Self {
            Self { listens: AtomicBool::new(false), rung: AtomicBool::new(false) }
        }
    }

    /// Forgets who rang. Before the mark is set.
    pub(super) fn forget(&self) {
        self.rung.store(false, Ordering::Relaxed);
    }

    /// The CPU listens from now on.
    pub(super) fn listen(&self) {
        self.listens.store(true, Ordering::Relaxed);
    }

    /// It ceases to, and looks once more whether there is work.
    pub(super) fn cease(&self) {
        self.listens.store(false, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Whether somebody rang.
    pub(super) fn is_rung(&self) -> bool {
        self.rung.load(Ordering::Relaxed)
    }

    /// Rings. Whether the CPU has to be interrupted as well.
    pub(super) fn ring(&self) -> bool {
        self.rung.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        !self.listens.load(Ordering::Relaxed)
    }
}
