//! The FIFO ABI: a word a channel in pages of the guest, which Xen links to queues, one a priority and CPU
//! (event_channel.h, `evtchn_fifo_control_block`, `event_word_t`).
//!
//! A queue is a list through the words: the control block has its head, each word the number of the next. Xen appends
//! at the tail; the guest takes from the head, and clears a word's link before it looks at its state.
//! Neighbours: `two_level` (the other ABI), `mod` (who chooses).

use super::Port;
use crate::xen::shared_info::VCPUS;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

/// Words of a page.
pub const WORDS_PER_PAGE: usize = 1024;
/// Pages at most: 2^17 channels.
#[doc(alias = "EVTCHN_FIFO_NR_CHANNELS")]
const PAGES: usize = 128;
/// Priorities; 0 goes first.
#[doc(alias = "EVTCHN_FIFO_MAX_QUEUES")]
const QUEUES: usize = 16;

/// An event came.
#[doc(alias = "EVTCHN_FIFO_PENDING")]
const PENDING: u32 = 1 << 31;
/// It is held back.
#[doc(alias = "EVTCHN_FIFO_MASKED")]
const MASKED: u32 = 1 << 30;
/// It is in a queue.
#[doc(alias = "EVTCHN_FIFO_LINKED")]
const LINKED: u32 = 1 << 29;
/// The next channel in the queue.
#[doc(alias = "EVTCHN_FIFO_LINK_MASK")]
const LINK: u32 = (1 << 17) - 1;

/// Words of the control block: which queues are not empty, and the heads of all.
const READY: usize = 0;
const HEADS: usize = 2;

type Page = [AtomicU32; WORDS_PER_PAGE];

/// The words and queues of all CPUs.
pub struct Fifo {
    pages: [AtomicPtr<Page>; PAGES],
    controls: [AtomicPtr<Page>; VCPUS],
    /// Where this side stands in each queue; 0 is "at the head that the control block has".
    heads: [[AtomicU32; QUEUES]; VCPUS],
}

impl Fifo {
    /// No page and no CPU yet.
    pub const fn new() -> Self {
        Self {
            pages: [const { AtomicPtr::new(core::ptr::null_mut()) }; PAGES],
            controls: [const { AtomicPtr::new(core::ptr::null_mut()) }; VCPUS],
            heads: [const { [const { AtomicU32::new(0) }; QUEUES] }; VCPUS],
        }
    }

    /// Gives a CPU its control block, at the beginning of `page`; `None` if there is no such CPU.
    pub fn set_control(&self, vcpu: u32, page: &'static Page) -> Option<()> {
        self.controls.get(vcpu as usize)?.store(core::ptr::from_ref(page).cast_mut(), Ordering::Release);
        Some(())
    }

    /// Gives the channels from `number` * 1024 on their words, all masked; `None` if there are no such channels.
    pub fn set_page(&self, number: u32, page: &'static Page) -> Option<()> {
        page.iter().for_each(|word| word.store(MASKED, Ordering::Relaxed));
        self.pages.get(number as usize)?.store(core::ptr::from_ref(page).cast_mut(), Ordering::Release);
        Some(())
    }

    /// Forgets all pages and CPUs.
    pub fn forget(&self) {
        for place in self.pages.iter().chain(&self.controls) {
            place.store(core::ptr::null_mut(), Ordering::Release);
        }
        self.heads.iter().flatten().for_each(|head| head.store(0, Ordering::Release));
    }

    fn word(&self, port: u32) -> Option<&'static AtomicU32> {
        get(self.pages.get(port as usize / WORDS_PER_PAGE)?)?.get(port as usize % WORDS_PER_PAGE)
    }

    /// Holds `port` back.
    pub fn mask(&self, port: Port) {
        if let Some(word) = self.word(port.0) {
            word.fetch_or(MASKED, Ordering::AcqRel);
        }
    }

    /// Takes an event back that came while `port` was held back.
    pub fn take_back(&self, port: Port) {
        if let Some(word) = self.word(port.0) {
            word.fetch_and(!PENDING, Ordering::SeqCst);
        }
    }

    /// Calls `each` for what came for this CPU, by priority; what comes meanwhile is told too.
    pub fn scan(&self, vcpu: u32, each: &mut dyn FnMut(Port)) {
        let (Some(control), Some(heads)) =
            (self.controls.get(vcpu as usize).and_then(get), self.heads.get(vcpu as usize))
        else {
            return;
        };
        let mut ready = control[READY].swap(0, Ordering::SeqCst);
        while ready != 0 {
            let queue = ready.trailing_zeros() as usize;
            if queue >= QUEUES {
                return;
            }
            if !self.take_one(&control[HEADS + queue], &heads[queue], each) {
                ready &= !(1 << queue);
            }
            ready |= control[READY].swap(0, Ordering::SeqCst);
        }
    }

    /// Takes the first of a queue; whether there is another behind it.
    fn take_one(&self, xen_head: &AtomicU32, head: &AtomicU32, each: &mut dyn FnMut(Port)) -> bool {
        let port = match head.load(Ordering::Relaxed) {
            0 => xen_head.load(Ordering::Acquire),
            port => port,
        };
        let Some(word) = self.word(port) else {
            // A link to nowhere ends the queue.
            head.store(0, Ordering::Relaxed);
            return false;
        };
        // Out of the queue before its state is read: from here on Xen queues it anew.
        let next = word.fetch_and(!(LINKED | LINK), Ordering::SeqCst) & LINK;
        head.store(next, Ordering::Relaxed);
        let state = word.load(Ordering::SeqCst);
        if state & PENDING != 0 && state & MASKED == 0 {
            word.fetch_and(!PENDING, Ordering::SeqCst);
            each(Port(port));
        }
        next != 0
    }
}

impl Default for Fifo {
    fn default() -> Self {
        Self::new()
    }
}

fn get(place: &AtomicPtr<Page>) -> Option<&'static Page> {
    // SAFETY: it is null, or came from a `&'static Page` in `set_control` or `set_page`; all in it is atomic.
    unsafe { place.load(Ordering::Acquire).as_ref() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{boxed::Box, vec::Vec};

    fn page() -> &'static Page {
        Box::leak(Box::new([const { AtomicU32::new(0) }; WORDS_PER_PAGE]))
    }

    /// Xen's side: appends to the tail of a queue as its `event_fifo.c` documents.
    struct Xen {
        fifo: Fifo,
        control: &'static Page,
        tails: [u32; QUEUES],
    }

    impl Xen {
        fn new(pages: u32) -> Self {
            let (fifo, control) = (Fifo::new(), page());
            fifo.set_control(0, control).unwrap();
            for number in 0..pages {
                fifo.set_page(number, page()).unwrap();
            }
            Self { fifo, control, tails: [0; QUEUES] }
        }

        fn unmask(&self, port: u32) {
            self.fifo.word(port).unwrap().fetch_and(!MASKED, Ordering::Relaxed);
        }

        fn raise(&mut self, port: u32, queue: usize) {
            let word = self.fifo.word(port).unwrap();
            let before = word.fetch_or(PENDING, Ordering::Relaxed);
            if before & (MASKED | LINKED) != 0 {
                return;
            }
            word.fetch_or(LINKED, Ordering::Relaxed);
            let tail = core::mem::replace(&mut self.tails[queue], port);
            let linked = tail != 0 && tail != port && {
                let tail = self.fifo.word(tail).unwrap();
                let is_queued = tail.load(Ordering::Relaxed) & LINKED != 0;
                if is_queued {
                    tail.fetch_or(port, Ordering::Relaxed);
                }
                is_queued
            };
            if !linked {
                self.control[HEADS + queue].store(port, Ordering::Relaxed);
                self.control[READY].fetch_or(1 << queue, Ordering::Relaxed);
            }
        }

        fn scan(&self) -> Vec<u32> {
            let mut told = Vec::new();
            self.fifo.scan(0, &mut |port| told.push(port.0));
            told
        }
    }

    #[test]
    fn events_come_in_order_and_by_priority() {
        let mut xen = Xen::new(2);
        for port in [3, 4, 1500, 7] {
            xen.unmask(port);
        }
        for (port, queue) in [(3, 7), (1500, 7), (4, 7), (7, 2), (3, 7)] {
            xen.raise(port, queue);
        }
        assert_eq!(xen.scan(), [7, 3, 1500, 4]);
        assert_eq!(xen.scan(), [0; 0]);
        xen.raise(1500, 7);
        assert_eq!(xen.scan(), [1500]);
    }

    #[test]
    fn what_is_masked_waits() {
        let mut xen = Xen::new(1);
        xen.raise(9, 7);
        assert_eq!(xen.scan(), [0; 0]);
        // The hypercall lets it through and queues what came.
        xen.unmask(9);
        xen.raise(9, 7);
        xen.fifo.mask(Port(9));
        assert_eq!(xen.scan(), [0; 0]);
    }

    proptest! {
        #[test]
        fn every_event_is_told_once(raised in prop::collection::vec((1..2048_u32, any::<bool>()), 0..200)) {
            let mut xen = Xen::new(2);
            let mut expected = std::collections::BTreeSet::new();
            for (port, scan) in raised {
                xen.unmask(port);
                // A channel keeps its priority here, which its queue hangs on.
                xen.raise(port, port as usize % QUEUES);
                expected.insert(port);
                if scan {
                    let mut told = xen.scan();
                    told.sort_unstable();
                    prop_assert_eq!(told, core::mem::take(&mut expected).into_iter().collect::<Vec<_>>());
                }
            }
            let mut told = xen.scan();
            told.sort_unstable();
            prop_assert_eq!(told, expected.into_iter().collect::<Vec<_>>());
        }

        /// Any words in control block and array: the scan ends, and tells no channel that has no word.
        #[test]
        fn nonsense_in_the_queues_is_survived(
            words in prop::collection::vec((0..1024_usize, any::<u32>()), 0..50),
            control in prop::collection::vec(any::<u32>(), HEADS + QUEUES),
        ) {
            let xen = Xen::new(1);
            for (place, word) in words {
                xen.fifo.word(place as u32).unwrap().store(word, Ordering::Relaxed);
            }
            for (place, word) in xen.control.iter().zip(control) {
                place.store(word, Ordering::Relaxed);
            }
            prop_assert!(xen.scan().iter().all(|&port| port < 1024));
        }
    }
}
