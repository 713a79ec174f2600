//! How much is done in how much time.
#![forbid(unsafe_code)]

/// Requests in some time, the last of which counts most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    pub(super) ns: u64,
    pub(super) count: u64,
}

impl Rate {
    pub(super) const NONE: Self = Self { ns: 0, count: 0 };

    pub(super) fn add(&mut self, (ns, count): (u64, u64), memory_ns: u64) {
        (self.ns, self.count) = (self.ns.saturating_add(ns), self.count + count);
        while self.ns > memory_ns {
            (self.ns, self.count) = (self.ns / 2, self.count / 2);
        }
    }

    pub(super) fn per_s(self) -> u64 {
        self.count.saturating_mul(1_000_000_000) / self.ns.max(1)
    }

    /// By how much longer that took than at another rate.
    pub(super) fn lost_ns(self, per_s: u64) -> u64 {
        self.ns.saturating_sub(self.count.saturating_mul(1_000_000_000) / per_s.max(1))
    }
}
