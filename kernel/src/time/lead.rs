//! Being awake in time: the timer of a CPU without work comes early, by as much as waking up takes, and the rest is waited
//! for with open eyes.
//!
//! From a deadline to the first instruction of a halted CPU it takes the host's timer, the host's scheduler and an
//! interrupt: some microseconds on hardware, tens of them under an emulator. Each CPU learns how long whenever its timer
//! wakes it, by mean and mean deviation, as TCP learns round trips (RFC 6298 §2), and is early by the mean and twice the
//! deviation, but by [`MOST_NS`] at most. When it has work at the early time, its timer is set again, to the deadline.
//! Neighbours: `timer` (the deadlines), `task::idle` (halts).
#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use super::timer;
use crate::{
    cpu::{self, timer_ports},
    irq::apic,
};

/// No CPU is early by more: so long at most a deadline keeps it awake.
const MOST_NS: u32 = 100_000;

/// What one CPU has learnt, and how its timer is set. Used on that CPU only, with interrupts disabled.
struct Lead {
    mean_ns: AtomicU32,
    deviation_ns: AtomicU32,
    /// The deadline before which the timer comes; 0 when it comes at a deadline.
    early_for: AtomicU64,
    /// When it comes then.
    comes_at: AtomicU64,
    halts: AtomicBool,
    /// The timer came while it halted.
    came: AtomicBool,
}

static LEADS: [Lead; cpu::MAX_CPUS] = [const { Lead::new() }; cpu::MAX_CPUS];

/// The old timer was seen to; not at the start, as that is a few exits.
static QUIET: AtomicBool = AtomicBool::new(false);

fn here() -> &'static Lead {
    &LEADS[cpu::current().id() as usize % LEADS.len()]
}

/// The timer of this CPU was set to a deadline.
pub(super) fn is_exact() {
    here().early_for.store(0, Relaxed);
}

/// Asked by the timer's handler: whether it interrupted a halt that sets the timer itself.
pub(super) fn comes_to_halt() -> bool {
    let lead = here();
    let halts = lead.halts.load(Relaxed);
    if halts {
        lead.came.store(true, Relaxed);
    }
    halts
}

/// Halts this CPU until an interrupt has been handled, and longer if a deadline is near then, unless there is work.
/// Interrupts are disabled, before and after.
pub(crate) fn halt(has_work: &dyn Fn() -> bool) {
    if !QUIET.load(Relaxed) && !QUIET.swap(true, Relaxed) && apic::local().is_some() {
        timer_ports::pit_end_ticks();
    }
    let Some(deadline_ns) = timer::next() else { return cpu::sleep() };
    let lead = here();
    let early_ns = deadline_ns.saturating_sub(lead.ns());
    if pv_ops::monotonic_ns() < early_ns {
        if lead.early_for.swap(deadline_ns, Relaxed) != deadline_ns {
            lead.comes_at.store(early_ns, Relaxed);
            pv_ops::timer_arm(early_ns);
        }
        lead.halts.store(true, Relaxed);
        cpu::sleep();
        lead.halts.store(false, Relaxed);
        if !lead.came.swap(false, Relaxed) {
            return;
        }
        if let Some(took_ns) = pv_ops::monotonic_ns().checked_sub(lead.comes_at.load(Relaxed)) {
            lead.learn(took_ns);
        }
    }
    // A timer that cannot count so far comes long before.
    let end_ns = deadline_ns.min(pv_ops::monotonic_ns() + u64::from(MOST_NS));
    while pv_ops::monotonic_ns() < end_ns && !has_work() {
        cpu::let_interrupts_in();
    }
    // Also sets the timer: it came, or was set to what is over now.
    timer::expire();
}

impl Lead {
    const fn new() -> Self {
        Self {
            mean_ns: AtomicU32::new(0),
            deviation_ns: AtomicU32::new(0),
            early_for: AtomicU64::new(0),
            comes_at: AtomicU64::new(0),
            halts: AtomicBool::new(false),
            came: AtomicBool::new(false),
        }
    }

    fn ns(&self) -> u64 {
        (self.mean_ns.load(Relaxed) + 2 * self.deviation_ns.load(Relaxed)).min(MOST_NS).into()
    }

    /// It took so long from the timer's time to here. One that took very long tells of a busy host, and counts for less.
    fn learn(&self, took_ns: u64) {
        let took_ns = took_ns.min(2 * u64::from(MOST_NS)) as u32;
        let (mean_ns, deviation_ns) = (self.mean_ns.load(Relaxed), self.deviation_ns.load(Relaxed));
        let (mean_ns, deviation_ns) = match mean_ns {
            0 => (took_ns, took_ns / 2),
            _ => ((7 * mean_ns + took_ns) / 8, (3 * deviation_ns + mean_ns.abs_diff(took_ns)) / 4),
        };
        self.mean_ns.store(mean_ns, Relaxed);
        self.deviation_ns.store(deviation_ns, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_always_takes_as_long_is_known_closely() {
        let lead = Lead::new();
        for _ in 0..50 {
            lead.learn(30_000);
        }
        assert!((29_000..=31_000).contains(&lead.ns()), "{}", lead.ns());
    }

    #[test]
    fn one_late_moment_is_soon_forgotten() {
        let lead = Lead::new();
        for _ in 0..50 {
            lead.learn(5_000);
        }
        lead.learn(4_000_000);
        for _ in 0..40 {
            lead.learn(5_000);
        }
        assert!(lead.ns() < 7_000, "{}", lead.ns());
    }

    proptest! {
        #[test]
        fn no_lead_is_longer_than_the_most(took_ns in prop::collection::vec(any::<u64>(), 0..100)) {
            let lead = Lead::new();
            took_ns.into_iter().for_each(|took_ns| lead.learn(took_ns));
            prop_assert!(lead.ns() <= u64::from(MOST_NS));
        }
    }
}
