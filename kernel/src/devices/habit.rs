//! Whether a CPU looks for the answers of devices before it halts. Which is faster depends on the host: a look saves the way
//! through the halt, the interrupt and the host's scheduler, but takes a core that the host's own threads may want. So each
//! is tried, and what answered more requests is done.
//! Neighbours: `block`, and `net::task` for frames instead of requests (who look).
#![forbid(unsafe_code)]

/// How long each is tried, in nanoseconds.
const EPOCH_NS: u64 = 4_000_000;
/// Requests in that time without which nothing is learnt, and nobody looks in the next.
const LEAST: u64 = 16;
/// Epochs from one trial of the other way to the next.
const PERIOD: u32 = 16;
/// Epochs to the first trial.
const FIRST: u32 = 2;

/// What a CPU does, and what it has learnt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habit {
    looks: bool,
    /// Enough was asked in the epoch before.
    busy: bool,
    /// When this epoch began, and what had been asked by then.
    begin_ns: u64,
    asked: u32,
    /// Epochs until the other way is tried.
    left: u32,
    /// While it is tried: requests per second of the epoch before.
    before: Option<u64>,
    /// While it is not: the same. When it changes much, what was learnt was learnt of something else.
    usual: Option<u64>,
}

impl Habit {
    pub(crate) const fn new() -> Self {
        Self { looks: false, busy: false, begin_ns: 0, asked: 0, left: FIRST, before: None, usual: None }
    }

    /// To be called whenever the CPU has no work, with the time and what it has asked so far: whether it looks now.
    pub(crate) fn decide(&mut self, now_ns: u64, asked: u32) -> bool {
        let (elapsed, done) =
            (now_ns.saturating_sub(self.begin_ns), u64::from(asked.wrapping_sub(self.asked)));
        if elapsed < EPOCH_NS {
            return self.looks && self.busy && done > 0;
        }
        (self.begin_ns, self.asked) = (now_ns, asked);
        // Little was asked, or nothing for a while: that says nothing of either way, and a trial of one ends.
        let was_busy = core::mem::replace(&mut self.busy, elapsed <= 2 * EPOCH_NS && done >= LEAST);
        if !self.busy {
            self.looks ^= self.before.take().is_some();
            return false;
        }
        if !was_busy {
            return self.looks;
        }
        let rate = done * 1_000_000_000 / elapsed;
        let usual = self.usual.replace(rate);
        if usual.is_some_and(|usual| rate > 2 * usual || rate < usual / 2) {
            self.left = 0;
        }
        match self.before.take() {
            Some(before) => {
                // To look has to be worth its price.
                let is_better = if self.looks { rate > before + before / 16 } else { rate >= before };
                self.looks ^= !is_better;
                self.left = PERIOD;
                self.usual = None;
            }
            None if self.left == 0 => {
                self.before = Some(rate);
                self.usual = None;
                self.looks = !self.looks;
            }
            None => self.left -= 1,
        }
        self.looks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays a machine for so many milliseconds that answers so many requests in each if one looks, and if one halts; says in how
    /// many was looked.
    fn play_for(ms: usize, habit: &mut Habit, looking: u32, halting: u32) -> usize {
        let (mut now, mut asked, mut looked) = (habit.begin_ns, habit.asked, 0);
        for _ in 0..ms {
            let looks = habit.decide(now, asked);
            looked += usize::from(looks);
            now += 1_000_000;
            asked = asked.wrapping_add(if looks { looking } else { halting });
        }
        looked
    }

    /// The last thousand of two thousand milliseconds.
    fn play(habit: &mut Habit, looking: u32, halting: u32) -> usize {
        play_for(1000, habit, looking, halting);
        play_for(1000, habit, looking, halting)
    }

    #[test]
    fn what_answers_more_is_done() {
        let mut habit = Habit::new();
        assert!(play(&mut habit, 20, 10) > 800);
        assert!(play(&mut habit, 10, 20) < 200, "and given up when that changes");
        assert!(play(&mut habit, 30, 20) > 800);
    }

    /// As when another program asks, or asks otherwise.
    #[test]
    fn what_was_learnt_of_another_load_is_tried_again_at_once() {
        let mut habit = Habit::new();
        assert!(play(&mut habit, 10, 20) < 200);
        let looked = play_for(40, &mut habit, 200, 100);
        assert!(looked > 20, "of 40 ms: {looked}");
    }

    #[test]
    fn a_pause_is_no_reason_to_learn_anew() {
        let mut habit = Habit::new();
        play(&mut habit, 20, 10);
        assert_eq!(play(&mut habit, 1, 1), 0);
        let looked = play_for(20, &mut habit, 20, 10);
        assert!(looked > 10, "of 20 ms: {looked}");
    }

    #[test]
    fn without_a_gain_the_cpu_halts() {
        assert!(play(&mut Habit::new(), 20, 20) < 200);
    }

    #[test]
    fn with_little_to_do_the_cpu_halts() {
        let mut habit = Habit::new();
        play(&mut habit, 20, 10);
        assert_eq!(play(&mut habit, 2, 2), 0);
        assert_eq!(play(&mut habit, 0, 0), 0);
    }
}
