//! Measures the rate of one counter against another whose rate is known.
//!
//! Each end of the interval is a tick of the reference, seen between two reads of the counter; the tightest of several
//! such sightings counts, so that an interrupt or a slow exit to the hypervisor in between does not. Every loop has
//! a bound: a reference that stands still or is absent costs microseconds, never a hang.
//! Neighbours: `reference` (counters of known rate), `tsc` (what is measured).
#![forbid(unsafe_code)]

/// A free-running counter of known rate.
pub(super) struct Reference<'a> {
    /// Reads it.
    pub(super) read: &'a mut dyn FnMut() -> u64,
    /// Its ticks per second.
    pub(super) hz: u64,
    /// Its width: bits that count.
    pub(super) mask: u64,
}

/// A counter of unknown rate.
pub(super) type Counter<'a> = &'a mut dyn FnMut() -> u64;

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Measurement {
    /// Ticks per second.
    pub(super) hz: u64,
    /// How far the truth can be off, in parts per million.
    pub(super) error_ppm: u64,
}

/// The error that makes a longer interval than the shortest worth its time.
const GOOD_PPM: u64 = 500;
/// The longest interval, where reads are slow.
const MAX_INTERVAL_NS: u64 = 10_000_000;
/// Sightings at each end: until so many in a row were not tighter, or so many in all. The first ones are slow because
/// their code is new to the cache or to a translating host.
const STEADY: u32 = 6;
const MAX_SIGHTINGS: u32 = 20;
/// Reads after which a reference that has not moved is taken for dead. The slowest ticks every 838 ns and takes that
/// long to read.
const DEAD_AFTER_READS: u32 = 200;

const NS_PER_S: u64 = 1_000_000_000;

/// A tick of the reference.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tick {
    /// The reference's value from then on.
    reference: u64,
    /// The counter's value in the middle of the time in which it can have been.
    counter: u64,
    /// That time, in ticks of the counter.
    width: u64,
}

/// Measures `counter` against `reference` over `interval_ns` or somewhat longer. `None` when the reference stands still
/// or the result cannot be.
pub(super) fn measure(
    counter: Counter<'_>,
    reference: &mut Reference<'_>,
    interval_ns: u64,
) -> Option<Measurement> {
    let start = begin(counter, reference)?;
    end(start, counter, reference, interval_ns)
}

/// The first half: the interval begins. Other things may be done until [`end`], but not for as long as the reference takes to
/// come round.
pub(super) fn begin(counter: Counter<'_>, reference: &mut Reference<'_>) -> Option<Tick> {
    tightest(counter, reference)
}

/// The second half.
pub(super) fn end(
    start: Tick,
    counter: Counter<'_>,
    reference: &mut Reference<'_>,
    interval_ns: u64,
) -> Option<Measurement> {
    loop {
        let now = tick(counter, reference)?;
        let ticks = now.reference.wrapping_sub(start.reference) & reference.mask;
        let elapsed_ns = u128::from(ticks) * u128::from(NS_PER_S) / u128::from(reference.hz);
        if elapsed_ns < u128::from(interval_ns) {
            continue;
        }
        let end = tightest(counter, reference)?;
        let ticks = end.reference.wrapping_sub(start.reference) & reference.mask;
        let counted = end.counter.wrapping_sub(start.counter);
        if ticks == 0 || counted == 0 {
            return None;
        }
        let error_ppm = ((start.width + end.width) / 2).saturating_mul(1_000_000) / counted;
        if error_ppm <= GOOD_PPM || elapsed_ns >= u128::from(MAX_INTERVAL_NS) {
            let hz = u128::from(counted) * u128::from(reference.hz) / u128::from(ticks);
            return Some(Measurement { hz: u64::try_from(hz).ok()?, error_ppm });
        }
    }
}

/// The next tick of the reference.
fn tick(counter: Counter<'_>, reference: &mut Reference<'_>) -> Option<Tick> {
    let mut before = counter();
    let first = (reference.read)() & reference.mask;
    for _ in 0..DEAD_AFTER_READS {
        let between = counter();
        let value = (reference.read)() & reference.mask;
        if value != first {
            let width = counter().wrapping_sub(before);
            return Some(Tick { reference: value, counter: before.wrapping_add(width / 2), width });
        }
        before = between;
    }
    None
}

/// Not inlined: the same code at both ends takes the same time.
#[inline(never)]
fn tightest(counter: Counter<'_>, reference: &mut Reference<'_>) -> Option<Tick> {
    let mut best = tick(counter, reference)?;
    let mut steady = 0;
    for _ in 0..MAX_SIGHTINGS {
        let next = tick(counter, reference)?;
        steady = if next.width < best.width { 0 } else { steady + 1 };
        if next.width <= best.width {
            best = next;
        }
        if steady == STEADY {
            break;
        }
    }
    Some(best)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::Cell;

    /// A machine whose time goes on with each read of its counters.
    struct Machine {
        now_ns: Cell<u64>,
        read_cost_ns: u64,
        hz: u64,
        reference_hz: u64,
        mask: u64,
        /// Every so many reads, one takes 300 us longer.
        hiccup: u64,
        reads: Cell<u64>,
    }

    impl Machine {
        fn ticks(&self, hz: u64) -> u64 {
            (u128::from(self.now_ns.get()) * u128::from(hz) / 1_000_000_000) as u64
        }

        fn measure(&self) -> Option<Measurement> {
            let mut read = || {
                self.reads.set(self.reads.get() + 1);
                let late = if self.reads.get().is_multiple_of(self.hiccup) { 300_000 } else { 0 };
                self.now_ns.set(self.now_ns.get() + self.read_cost_ns / 2);
                let value = self.ticks(self.reference_hz) & self.mask;
                self.now_ns.set(self.now_ns.get() + self.read_cost_ns / 2 + late);
                value
            };
            measure(
                &mut || self.ticks(self.hz),
                &mut Reference { read: &mut read, hz: self.reference_hz, mask: self.mask },
                1_000_000,
            )
        }
    }

    proptest! {
        #[test]
        fn the_true_rate_is_within_the_error(
            hz in 1_000_000u64..10_000_000_000,
            read_cost_ns in 100u64..70_000,
            hiccup in 3u64..50,
            start_ns in 0u64..10_000_000_000,
            (reference_hz, mask) in prop_oneof![
                Just((1_193_182, 0xffff)), Just((3_579_545, 0xff_ffff)), Just((100_000_000, 0xffff_ffff)),
            ],
        ) {
            let machine = Machine {
                now_ns: Cell::new(start_ns), read_cost_ns, hz, reference_hz, mask, hiccup, reads: Cell::new(0),
            };
            if let Some(Measurement { hz: measured, error_ppm }) = machine.measure() {
                let off_ppm = measured.abs_diff(hz) as u128 * 1_000_000 / u128::from(hz);
                prop_assert!(off_ppm <= u128::from(error_ppm) + 100, "off by {off_ppm} ppm, said {error_ppm}");
            } else {
                prop_assert!(false, "no measurement");
            }
        }
    }

    #[test]
    fn a_reference_that_stands_still_is_given_up_at_once() {
        let reads = Cell::new(0u32);
        let mut read = || {
            reads.set(reads.get() + 1);
            u64::MAX
        };
        let mut tsc = 0;
        let mut counter = || {
            tsc += 1000;
            tsc
        };
        assert_eq!(
            measure(&mut counter, &mut Reference { read: &mut read, hz: 1_193_182, mask: 0xffff }, 1_000_000),
            None
        );
        assert!(reads.get() < 300, "{}", reads.get());
    }

    #[test]
    fn a_counter_that_stands_still_gives_nothing() {
        let mut time = 0;
        let mut read = || {
            time += 100;
            time
        };
        assert_eq!(
            measure(&mut || 7, &mut Reference { read: &mut read, hz: 1_000_000, mask: u64::MAX }, 1_000_000),
            None
        );
    }
}
