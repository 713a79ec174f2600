//! Rings of requests and responses in a shared page (io/ring.h): this side, the frontend, asks; the backend answers in
//! the same slots, in any order.
//!
//! ```text
//! byte  0 req_prod   4 req_event   8 rsp_prod   12 rsp_event   16..64 unused   64 slot 0, slot 1, ..
//! ```
//! Each side counts in indices of its own and tells them in the page; what the other side tells is checked where it
//! enters, in [`FrontRing::pop`]. An event index says from which entry on its owner wants to be rung for.
//! Neighbours: `page` (the memory), the frontends (what a slot holds).
#![forbid(unsafe_code)]

use super::{SharedPage, page::PAGE_BYTES};
use core::sync::atomic::{Ordering, fence};
use thiserror::Error;

const REQ_PROD: usize = 0;
const REQ_EVENT: usize = 4;
const RSP_PROD: usize = 8;
const RSP_EVENT: usize = 12;
const SLOTS: usize = 64;

/// Slots of `slot_bytes` bytes in one page: the largest power of two that fits.
#[doc(alias = "__CONST_RING_SIZE")]
pub const fn slots(slot_bytes: usize) -> u32 {
    1 << ((PAGE_BYTES - SLOTS) / slot_bytes).ilog2()
}

/// Why an entry cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// Every slot holds a request without an answer.
    #[error("all {0} slots of the ring are in use")]
    Full(u32),
    /// The backend claims to have answered more than it was asked.
    #[error("the backend's index says {claimed} answers, but only {outstanding} requests are out")]
    BadIndex {
        /// Answers that the index in the page stands for.
        claimed: u32,
        /// Requests that were published and not answered.
        outstanding: u32,
    },
}

/// The frontend's side of a ring.
#[derive(Debug)]
#[doc(alias = "FRONT_RING")]
pub struct FrontRing {
    slot_bytes: usize,
    slots: u32,
    /// Requests written.
    #[doc(alias = "req_prod_pvt")]
    written: u32,
    /// Of these, told to the backend.
    published: u32,
    /// Responses taken.
    #[doc(alias = "rsp_cons")]
    taken: u32,
}

impl FrontRing {
    /// A ring of slots of `slot_bytes` bytes: the larger of request and response. The page becomes an empty ring.
    ///
    /// # Panics
    /// When no slot fits into a page.
    #[doc(alias = "SHARED_RING_INIT")]
    pub fn new(page: &SharedPage, slot_bytes: usize) -> Self {
        page.clear();
        // Both sides want to hear of the first entry.
        page.word(REQ_EVENT).store(1, Ordering::Relaxed);
        page.word(RSP_EVENT).store(1, Ordering::Release);
        Self { slot_bytes, slots: slots(slot_bytes), written: 0, published: 0, taken: 0 }
    }

    /// Slots in all.
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// Requests that can be written before an answer must come.
    #[doc(alias = "RING_FREE_REQUESTS")]
    pub fn free(&self) -> u32 {
        self.slots - self.written.wrapping_sub(self.taken)
    }

    fn slot(&self, index: u32) -> usize {
        SLOTS + (index & (self.slots - 1)) as usize * self.slot_bytes
    }

    /// Writes a request, which the backend sees after [`publish`](Self::publish).
    ///
    /// # Errors
    /// [`Error::Full`].
    ///
    /// # Panics
    /// When it is longer than a slot.
    pub fn push(&mut self, page: &SharedPage, request: &[u8]) -> Result<(), Error> {
        assert!(
            request.len() <= self.slot_bytes,
            "{} bytes for a slot of {}",
            request.len(),
            self.slot_bytes
        );
        if self.free() == 0 {
            return Err(Error::Full(self.slots));
        }
        page.write(self.slot(self.written), request);
        self.written = self.written.wrapping_add(1);
        Ok(())
    }

    /// Lets the backend see all requests written. Whether it wants to be rung for them.
    #[doc(alias = "RING_PUSH_REQUESTS_AND_CHECK_NOTIFY")]
    #[must_use = "a backend that sleeps must be woken"]
    pub fn publish(&mut self, page: &SharedPage) -> bool {
        let before = core::mem::replace(&mut self.published, self.written);
        // The requests come before the index that announces them.
        page.word(REQ_PROD).store(self.written, Ordering::Release);
        // Either we see the event index that the backend wrote before it slept, or it sees our requests.
        fence(Ordering::SeqCst);
        let event = page.word(REQ_EVENT).load(Ordering::Relaxed);
        self.written.wrapping_sub(event) < self.written.wrapping_sub(before)
    }

    /// Takes the next response into `response`; `false` if there is none.
    ///
    /// # Errors
    /// [`Error::BadIndex`]: the backend is not to be trusted any more.
    pub fn pop(&mut self, page: &SharedPage, response: &mut [u8]) -> Result<bool, Error> {
        let claimed = page.word(RSP_PROD).load(Ordering::Acquire).wrapping_sub(self.taken);
        let outstanding = self.published.wrapping_sub(self.taken);
        if claimed > outstanding {
            return Err(Error::BadIndex { claimed, outstanding });
        }
        if claimed == 0 {
            return Ok(false);
        }
        let len = response.len().min(self.slot_bytes);
        page.read(self.slot(self.taken), &mut response[..len]);
        self.taken = self.taken.wrapping_add(1);
        Ok(true)
    }

    /// Asks to be rung for the next response. Whether one has come already: then nobody may ring for it.
    #[doc(alias = "RING_FINAL_CHECK_FOR_RESPONSES")]
    #[must_use = "a response that is there already may never be announced"]
    pub fn wait_for_next(&self, page: &SharedPage) -> bool {
        page.word(RSP_EVENT).store(self.taken.wrapping_add(1), Ordering::Relaxed);
        // As in `publish`, the other way round.
        fence(Ordering::SeqCst);
        page.word(RSP_PROD).load(Ordering::Acquire) != self.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{
        sync::{Arc, atomic::AtomicU32},
        thread,
    };

    /// The other side, as io/ring.h has it.
    struct BackRing {
        slots: u32,
        taken: u32,
        answered: u32,
        told: u32,
    }

    impl BackRing {
        fn new(slots: u32) -> Self {
            Self { slots, taken: 0, answered: 0, told: 0 }
        }

        /// Takes one request and answers it with its bitwise complement.
        fn serve(&mut self, page: &SharedPage) -> bool {
            if page.word(REQ_PROD).load(Ordering::Acquire) == self.taken {
                return false;
            }
            let slot = |index: u32| SLOTS + (index & (self.slots - 1)) as usize * 16;
            let mut request = [0; 4];
            page.read(slot(self.taken), &mut request);
            self.taken = self.taken.wrapping_add(1);
            page.write(slot(self.answered), &request.map(|byte| !byte));
            self.answered = self.answered.wrapping_add(1);
            true
        }

        fn publish(&mut self, page: &SharedPage) -> bool {
            let before = core::mem::replace(&mut self.told, self.answered);
            page.word(RSP_PROD).store(self.answered, Ordering::Release);
            fence(Ordering::SeqCst);
            let event = page.word(RSP_EVENT).load(Ordering::Relaxed);
            self.answered.wrapping_sub(event) < self.answered.wrapping_sub(before)
        }

        fn wait_for_next(&self, page: &SharedPage) -> bool {
            page.word(REQ_EVENT).store(self.taken.wrapping_add(1), Ordering::Relaxed);
            fence(Ordering::SeqCst);
            page.word(REQ_PROD).load(Ordering::Acquire) != self.taken
        }
    }

    #[test]
    fn a_page_has_as_many_slots_as_the_header_computes() {
        assert_eq!(slots(112), 32);
        assert_eq!(slots(12), 256);
        assert_eq!(slots(8), 256);
        assert_eq!(slots(16), 128);
    }

    proptest! {
        #[test]
        fn the_ring_never_holds_more_than_its_slots_and_loses_nothing(
            steps in prop::collection::vec((0..4_u8, 1..80_u32), 0..80),
        ) {
            let page = SharedPage::new();
            let mut front = FrontRing::new(&page, 16);
            let mut back = BackRing::new(front.slots());
            let (mut asked, mut answered) = (0_u32, 0_u32);
            for (step, times) in steps {
                for _ in 0..times {
                    match step {
                        0 => match front.push(&page, &asked.to_le_bytes()) {
                            Ok(()) => asked += 1,
                            Err(error) => {
                                prop_assert_eq!(error, Error::Full(128));
                                prop_assert_eq!(asked - answered, 128);
                            }
                        },
                        1 => _ = front.publish(&page),
                        2 => {
                            back.serve(&page);
                            let _ = back.publish(&page);
                        }
                        _ => {
                            let mut response = [0; 4];
                            if front.pop(&page, &mut response).unwrap() {
                                prop_assert_eq!(!u32::from_le_bytes(response), answered);
                                answered += 1;
                            }
                        }
                    }
                }
                prop_assert_eq!(front.free(), 128 - (asked - answered));
            }
        }

        /// Whatever the backend writes into the indices, in whatever order with our steps: no request is lost, none
        /// is answered twice, and the ring never holds more than its slots.
        #[test]
        fn indices_that_jump_are_survived(steps in prop::collection::vec((0..5_u8, any::<u32>()), 1..200)) {
            let page = SharedPage::new();
            let mut front = FrontRing::new(&page, 112);
            let (mut asked, mut published, mut answered) = (0_u32, 0_u32, 0_u32);
            for (step, value) in steps {
                match step {
                    0 => asked += u32::from(front.push(&page, &[0; 112]).is_ok()),
                    1 => {
                        let _ = front.publish(&page);
                        published = asked;
                    }
                    2 => answered += u32::from(front.pop(&page, &mut [0; 16]) == Ok(true)),
                    3 => page.word(value as usize % 4 * 4).store(value, Ordering::Relaxed),
                    _ => page.word(RSP_PROD).store(answered + value % 40, Ordering::Relaxed),
                }
                prop_assert!(answered <= published && published <= asked && asked - answered <= front.slots());
                prop_assert_eq!(front.free(), front.slots() - (asked - answered));
                let _ = front.wait_for_next(&page);
            }
        }

        /// Whatever stands in the index, nothing is taken that was not asked for.
        #[test]
        fn more_answers_than_requests_are_refused(asked in 0..128_u32, claimed: u32) {
            let page = SharedPage::new();
            let mut front = FrontRing::new(&page, 16);
            for _ in 0..asked {
                front.push(&page, &[0; 16]).unwrap();
            }
            let _ = front.publish(&page);
            page.word(RSP_PROD).store(claimed, Ordering::Relaxed);
            let expected = match claimed {
                0 => Ok(false),
                claimed if claimed <= asked => Ok(true),
                _ => Err(Error::BadIndex { claimed, outstanding: asked }),
            };
            prop_assert_eq!(front.pop(&page, &mut [0; 16]), expected);
        }
    }

    /// io/ring.h, the comment on the event indices: rung at the first entry after a sleep, not at each.
    #[test]
    fn a_busy_backend_is_not_rung() {
        let page = SharedPage::new();
        let mut front = FrontRing::new(&page, 16);
        let mut back = BackRing::new(front.slots());
        front.push(&page, &[1]).unwrap();
        assert!(front.publish(&page));
        front.push(&page, &[2]).unwrap();
        assert!(!front.publish(&page));
        assert!(back.serve(&page) && back.serve(&page) && !back.serve(&page));
        assert!(!back.wait_for_next(&page));
        front.push(&page, &[3]).unwrap();
        assert!(front.publish(&page));
    }

    /// Both sides sleep unless rung: a lost wake-up would hang here.
    #[test]
    fn two_sides_that_sleep_in_between_wake_each_other() {
        const REQUESTS: u32 = 40_000;
        let page = Arc::new(SharedPage::new());
        let bells = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
        let mut front = FrontRing::new(&page, 16);
        let sleep = |bell: &AtomicU32| {
            while bell.swap(0, Ordering::SeqCst) == 0 {
                thread::yield_now();
            }
        };
        let other = thread::spawn({
            let (page, bells, mut back) = (page.clone(), bells.clone(), BackRing::new(front.slots()));
            move || {
                while back.answered < REQUESTS {
                    while back.serve(&page) {
                        if back.publish(&page) {
                            bells[0].store(1, Ordering::SeqCst);
                        }
                    }
                    if !back.wait_for_next(&page) && back.answered < REQUESTS {
                        sleep(&bells[1]);
                    }
                }
            }
        });
        let (mut asked, mut answered) = (0_u32, 0_u32);
        while answered < REQUESTS {
            while asked < REQUESTS && front.push(&page, &asked.to_le_bytes()).is_ok() {
                asked += 1;
            }
            if front.publish(&page) {
                bells[1].store(1, Ordering::SeqCst);
            }
            let mut response = [0; 4];
            while front.pop(&page, &mut response).unwrap() {
                assert_eq!(!u32::from_le_bytes(response), answered);
                answered += 1;
            }
            if !front.wait_for_next(&page) && answered < REQUESTS && front.free() == 0 {
                sleep(&bells[0]);
            }
        }
        other.join().unwrap();
    }
}
