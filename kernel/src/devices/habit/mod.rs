//! Whether a CPU looks for the answers of devices before it halts. Which is faster depends on the host: a look saves the way
//! through the halt, the interrupt and the host's scheduler, but takes a core that the host's own threads may want. So each
//! is tried, and what answered more requests in its time is done.
//! Files: `rate` (how much is done), this one. Neighbours: `block`, and `net::task` for frames instead of requests (who look).
#![forbid(unsafe_code)]

mod rate;

use self::rate::Rate;

/// Who has looked for so many nanoseconds has done so in vain.
pub(super) const IN_VAIN_NS: u64 = 1_000_000;
/// Requests a second without which a look does not pay, and nothing is learnt.
const LEAST_PER_S: u64 = 4_000;
/// With fewer than those a look may still be what it takes to make them more, unless most looks were in vain.
const SLOW_PER_S: u64 = 1_000_000_000 / IN_VAIN_NS;
/// A wait of so many nanoseconds says nothing: until its end there was nothing to do. What was learnt before is done again.
const PAUSE_NS: u64 = 16_000_000;
/// What is taken for how much was done before it: enough to go on with.
const ENOUGH: Rate = Rate { ns: 2_000_000, count: LEAST_PER_S / 250 };
/// Of what is older than this, in nanoseconds, half is forgotten: of how much is asked, and of how fast a trial is; and of how fast it
/// usually is, which a host that takes the CPU away for a moment is not to change.
const SHORT_NS: u64 = 4_000_000;
const LONG_NS: u64 = 16_000_000;
/// For how many waits, at least, and nanoseconds the other way is tried. A host needs some time to find out which of its threads
/// works where when one looks: what counts is the end of a trial.
const TRIAL: u32 = 8;
const TRIAL_NS: u64 = 16_000_000;
/// A trial ends early when so many nanoseconds are lost by it, of looking and of halting: that may be ten times slower, at once.
const LOOKING_LOSS_NS: u64 = 4_000_000;
const HALTING_LOSS_NS: u64 = 1_000_000;
/// From a trial that the other way has won to the one that confirms it, in nanoseconds: what is usual is measured anew in between.
const CONFIRM_NS: u64 = 8_000_000;
/// One of so many parts of the time may be lost by trials; more if they would be [later](LATEST_NS) than that.
const PRICE: u64 = 256;
/// From one trial to the next, in nanoseconds in which much is asked: at least, and as many times as long as it takes; and at most.
const SOON_NS: u64 = 16_000_000;
const SOON_TRIALS: u64 = 8;
const LATEST_NS: u64 = 512_000_000;
/// From one look to the next where little is asked.
const LATE_NS: u64 = 128_000_000;

/// What a CPU does, and what it has learnt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habit {
    looks: bool,
    /// Waits that are left of a trial of the other way, at least; 0 if there is none.
    trial: u32,
    /// The other way has won the last trial.
    is_doubted: bool,
    /// When the wait began that lasts, what had been asked by then, and whether it is looked in it.
    begin_ns: u64,
    asked: u32,
    is_look: bool,
    /// In whatever way, and in each.
    all: Rate,
    halting: Rate,
    looking: Rate,
    /// What is usual since the last trial. When it changes much, what was learnt was learnt of something else.
    usual_per_s: u64,
    /// Nanoseconds until the next trial.
    left_ns: u64,
    /// Nanoseconds in which it was slow, since it was last looked whether that makes it fast.
    slow_ns: u64,
    /// All of this trial.
    tried: Rate,
}

impl Habit {
    pub(crate) const fn new() -> Self {
        Self {
            looks: false,
            trial: 0,
            is_doubted: false,
            begin_ns: 0,
            asked: 0,
            is_look: false,
            all: Rate::NONE,
            halting: Rate::NONE,
            looking: Rate::NONE,
            usual_per_s: 0,
            left_ns: 0,
            slow_ns: LATE_NS - SOON_NS,
            tried: Rate::NONE,
        }
    }

    /// To be called whenever the CPU has no work, with the time and what it has asked so far: whether it looks now.
    pub(crate) fn decide(&mut self, now_ns: u64, asked: u32) -> bool {
        let count = u64::from(asked.wrapping_sub(self.asked));
        let ns = now_ns.saturating_sub(self.begin_ns);
        if count == 0 {
            // The same wait goes on.
            return self.is_look && ns < IN_VAIN_NS;
        }
        (self.begin_ns, self.asked) = (now_ns, asked);
        if ns > PAUSE_NS {
            (self.all, self.trial, self.is_look) = (ENOUGH, 0, self.looks);
            return self.is_look;
        }
        self.all.add((ns, count), SHORT_NS);
        if self.all.per_s() < LEAST_PER_S {
            self.is_look = self.looks_when_slow(ns);
            return self.is_look;
        }
        // A look has made it fast.
        self.looks |= self.slow_ns >= LATE_NS;
        self.slow_ns = 0;
        let memory_ns = if self.is_look == self.looks { LONG_NS } else { SHORT_NS };
        self.of(self.is_look).add((ns, count), memory_ns);
        let usual = *self.of(self.looks);
        let usual_per_s = usual.per_s();
        let has_changed = usual_per_s > 2 * self.usual_per_s || usual_per_s < self.usual_per_s / 2;
        let is_new = has_changed && usual.ns >= LONG_NS / 4;
        self.left_ns = self.left_ns.saturating_sub(ns);
        (self.tried.ns, self.tried.count) = (self.tried.ns + ns, self.tried.count + count);
        if self.trial == 0 {
            if is_new || self.left_ns == 0 {
                *self.of(!self.looks) = Rate::NONE;
                (self.trial, self.tried) = (TRIAL, Rate::NONE);
            }
        } else if self.trial > 1 {
            self.trial -= 1;
        } else {
            let lost_ns = self.tried.lost_ns(usual_per_s);
            if self.tried.ns >= TRIAL_NS || lost_ns >= self.most_lost_ns() {
                self.trial = 0;
                self.conclude(usual_per_s, lost_ns);
            }
        }
        self.is_look = self.looks ^ (self.trial > 0);
        self.is_look
    }

    /// Whether it is looked after a wait of `ns` with little to do: now and then, as halting may be why it is little, and once more by who
    /// has looked.
    fn looks_when_slow(&mut self, ns: u64) -> bool {
        if self.looks && self.trial > 0 {
            // A trial of halting made it slow, and has lost.
            (self.usual_per_s, self.left_ns) = (self.looking.per_s(), LATEST_NS);
        }
        self.trial = 0;
        // How it came to that is not what either way is like.
        (self.halting, self.looking) = (Rate::NONE, Rate::NONE);
        self.left_ns = self.left_ns.max(SOON_NS);
        if self.all.per_s() < SLOW_PER_S {
            return false;
        }
        let is_new = self.looks && self.slow_ns < LATE_NS;
        self.slow_ns = if is_new { LATE_NS } else { self.slow_ns.saturating_add(ns) };
        if self.slow_ns >= LATE_NS + LOOKING_LOSS_NS {
            (self.slow_ns, self.looks) = (0, false);
        }
        self.slow_ns >= LATE_NS
    }

    fn most_lost_ns(&self) -> u64 {
        if self.looks { HALTING_LOSS_NS } else { LOOKING_LOSS_NS }
    }

    /// The other way was tried.
    fn conclude(&mut self, usual_per_s: u64, lost_ns: u64) {
        // While a host finds its way, to look is worse than it will be; so who looks does not give it up for little, and who halts
        // does so for any gain.
        let margin = if self.looks { usual_per_s / 16 } else { 1 };
        let has_won = self.of(!self.looks).per_s() >= usual_per_s + margin;
        let was_doubted = core::mem::replace(&mut self.is_doubted, has_won);
        if has_won && !was_doubted {
            *self.of(self.looks) = Rate::NONE;
            (self.usual_per_s, self.left_ns) = (usual_per_s, CONFIRM_NS);
            return;
        }
        self.looks ^= has_won;
        self.is_doubted = false;
        self.usual_per_s = self.of(self.looks).per_s();
        let price_ns = (PRICE * lost_ns).clamp(SOON_NS, LATEST_NS).max(SOON_TRIALS * self.tried.ns);
        // What was wrongly given up is missed soon.
        self.left_ns = if has_won { SOON_NS } else { price_ns };
    }

    fn of(&mut self, is_look: bool) -> &mut Rate {
        if is_look { &mut self.looking } else { &mut self.halting }
    }
}

#[cfg(test)]
mod tests;
