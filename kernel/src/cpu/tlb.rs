//! TLB shoot-down: no CPU uses an old translation once a change is settled.
//!
//! Each CPU has a counter of what was asked of it and one of what it has done, and a word with the pages to flush: one
//! range, or everything as soon as a second comes before the first is done. So requests of several CPUs become one
//! flush. A CPU that sleeps is not interrupted: it says so in its counter, and flushes as the first thing when it wakes.
//!
//! Whoever waits for a CPU, for a lock too, with interrupts disabled, serves what is asked of itself meanwhile
//! ([`poll`]): two CPUs that wait for each other would wait for ever.
//! Neighbours: `requests` (the counters), `mm::tables` (asks, by `pv_ops::flush_tlb_others`), `ipi` (the interrupt), `sync` (polls).
#![forbid(unsafe_code)]

pub(super) mod requests;

use self::requests::ALL;
use super::{PerCpu, ipi, percpu};
use crate::{
    mm::layout::PAGE_SIZE,
    sync::{IrqState, atomic},
};
use pv_ops::CpuSet;

/// Pages to flush: the first's number in the upper bits, their count in the lower ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pages(u64);

/// More than so many are flushed faster by flushing everything.
const MAX_PAGES: u64 = 32;
const COUNT_BITS: u32 = 12;

impl Pages {
    const ALL: Self = Self(ALL);

    fn new(start: u64, len_bytes: u64) -> Self {
        let count = len_bytes.div_ceil(PAGE_SIZE);
        // The upper 16 bits of an address are as bit 47.
        let number = ((start / PAGE_SIZE) << (12 + COUNT_BITS)) >> 12;
        if (1..=MAX_PAGES).contains(&count) { Self(number | count) } else { Self::ALL }
    }

    /// Flushes them on this CPU.
    fn flush(self) {
        if self == Self::ALL {
            return pv_ops::flush_tlb();
        }
        let first = (self.0 << 12) as i64 >> (12 + COUNT_BITS) << 12;
        for page in 0..self.0 & ((1 << COUNT_BITS) - 1) {
            pv_ops::flush_tlb_one((first as u64).wrapping_add(page * PAGE_SIZE));
        }
    }
}

fn flush(pages: u64) {
    Pages(pages).flush();
}

/// Looks after what is asked of this CPU; for loops that wait with interrupts disabled.
#[inline]
pub fn poll() {
    if !percpu::is_ready() {
        return;
    }
    let requests = &super::current().tlb;
    if requests.is_behind() {
        let _irq = IrqState::disable();
        // This thread may have come to another CPU meanwhile.
        super::current().tlb.serve(&flush);
    }
}

/// This CPU will not use memory but its own until [`wake`]. Interrupts are disabled.
pub(super) fn sleep() {
    super::current().tlb.sleep(&flush);
}

/// This CPU uses memory again: the first thing in every interrupt. Interrupts are disabled.
#[inline]
pub(crate) fn wake(cpu: &PerCpu) {
    cpu.tlb.wake(&flush);
}

/// Times that a CPU is looked at before it is helped out of a sleep at a lock.
const LOOKS: u32 = 1 << 14;

/// What [`pv_ops::flush_tlb_others`] does natively.
pub(super) fn shoot_down(cpus: &CpuSet, start: u64, len_bytes: u64) {
    let pages = Pages::new(start, len_bytes);
    let asked = |&cpu: &u32| percpu::by_id(cpu).is_some_and(|cpu| cpu.tlb.ask(pages.0));
    let awake: CpuSet = cpus.iter().filter(asked).collect();
    ipi::send(&awake);
    for cpu in awake.iter().filter_map(percpu::by_id) {
        // What others ask meanwhile may be waited for, too.
        let goal = cpu.tlb.asked();
        let mut looks: u32 = 0;
        while cpu.tlb.done() < goal && percpu::is_up(cpu.id()) {
            poll();
            ipi::give_way(&mut looks);
            if looks.is_multiple_of(LOOKS) {
                pv_ops::lock_kick(cpu.id());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{requests::Requests, *};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_range_in_a_word_keeps_first_page_and_count(page in 0u64..1 << 36, count in 1..=MAX_PAGES, upper in any::<bool>()) {
            let start = if upper { (page | 1 << 35) << 12 | 0xffff << 48 } else { (page & !(1 << 35)) << 12 };
            let pages = Pages::new(start, count * PAGE_SIZE);
            prop_assert_ne!(pages, Pages::ALL);
            prop_assert_eq!(((pages.0 << 12) as i64 >> (12 + COUNT_BITS) << 12) as u64, start);
            prop_assert_eq!(pages.0 & 0xfff, count);
        }
    }

    #[test]
    fn many_pages_and_everything_are_everything() {
        assert_eq!(Pages::new(0, u64::MAX), Pages::ALL);
        assert_eq!(Pages::new(4096, (MAX_PAGES + 1) * PAGE_SIZE), Pages::ALL);
    }

    #[test]
    fn a_second_range_before_the_first_is_flushed_makes_it_everything() {
        let requests = Requests::new();
        let [one, two] = [Pages::new(4096, 4096), Pages::new(8192, 4096)];
        assert!(requests.ask(one.0) && requests.ask(one.0));
        let flushed = core::cell::Cell::new(0);
        requests.serve(&|pages| flushed.set(pages));
        assert_eq!((flushed.get(), requests.asked(), requests.done()), (one.0, 2, 2));
        assert!(requests.ask(one.0) && requests.ask(two.0));
        requests.serve(&|pages| flushed.set(pages));
        assert_eq!((flushed.get(), requests.asked(), requests.done()), (Pages::ALL.0, 4, 4));
    }

    #[test]
    fn a_sleeper_is_not_interrupted() {
        let requests = Requests::new();
        requests.sleep(&|_| ());
        assert!(!requests.ask(Pages::ALL.0));
        assert_eq!(requests.asked(), 1);
    }
}
