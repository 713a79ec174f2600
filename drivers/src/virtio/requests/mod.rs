//! Requests that wait for their answer: who sent it, which buffer went with it, whom to wake.
//!
//! A request is known by its [`Token`], which its owner gives up for the outcome, or to say that nobody wants it: then
//! the buffer stays here until the device is done with it. Nothing is allocated for a request: the table is made with
//! the queue. Files: `entry` (one request), this one (those of a queue).
//! Neighbours: `queue` (buffers in flight), `block`, `entropy` (what is asked).
#![forbid(unsafe_code)]

mod entry;

use alloc::{boxed::Box, collections::VecDeque, vec::Vec};
use core::{ops::Range, task::Waker};

use self::entry::{Entry, State};
use super::{
    Fault, Init,
    device::Device,
    queue::{Counts, Queue},
};
use crate::{
    class::TOGETHER,
    dma::{Direction, Dma, DmaBuffer, Segment},
    error::Error,
    hal::Hal,
};

pub use entry::Token;
pub(super) use entry::{Answer, NotSent};

/// Bytes of DMA memory that each request has beside its buffer: for headers and status bytes.
pub(super) const AREA_BYTES: usize = 64;

/// A queue of requests. Its device must be reset before it is dropped, or it be kept for ever.
pub(super) struct Requests {
    index: u16,
    queue: Queue<u16>,
    entries: Box<[Entry]>,
    free: Vec<u16>,
    waiting: VecDeque<Waker>,
    areas: Dma,
    /// Requests of which the device was not told.
    untold: u16,
    /// Answers that nobody has taken.
    answered: u16,
    /// Requests that the device has of which an interrupt is to tell: somebody is to be woken, or a buffer to be freed.
    awaited: u16,
    /// The device was asked not to interrupt.
    is_quiet: bool,
    /// Why nothing is sent any more, if nothing is.
    fault: Option<Error>,
}

impl Requests {
    /// Makes queue `index` of a device.
    pub(super) fn new(init: &mut Init, hal: &dyn Hal, index: u16) -> Result<Self, Error> {
        // The device is told of the queue last, when nothing of it can fail any more.
        let count = init.queue_size(index)?;
        let areas = hal.dma(usize::from(count) * AREA_BYTES)?;
        let mut queue: Queue<u16> = init.queue(index, hal)?;
        queue.ask_for_interrupt();
        Ok(Self {
            index,
            entries: (0..count).map(|_| Entry::FREE).collect(),
            free: (0..count).collect(),
            waiting: VecDeque::with_capacity(usize::from(count)),
            areas,
            queue,
            untold: 0,
            answered: 0,
            awaited: 0,
            is_quiet: false,
            fault: None,
        })
    }

    /// A token for the request to be sent next, if there is room.
    pub(super) fn reserve(&mut self) -> Option<Token> {
        self.free.pop().map(|entry| Token { queue: self.index, entry })
    }

    /// The bytes `range` of the request's own memory.
    pub(super) fn area(&self, token: &Token, range: Range<usize>, direction: Direction) -> Segment {
        let start = self.area_offset(token, range.start);
        Segment::new(&self.areas, start..start + range.len(), direction)
    }

    /// All the requests' own memory, and where in it byte `offset` of one request's is.
    pub(super) fn area_memory(&self) -> &Dma {
        &self.areas
    }

    /// Where in [`area_memory`](Self::area_memory) the request has its byte `offset`.
    pub(super) fn area_offset(&self, token: &Token, offset: usize) -> usize {
        usize::from(token.entry) * AREA_BYTES + offset
    }

    /// Makes a request available for which `reserve` gave the token, with its buffer and the bytes of it that the device is
    /// to fill; `waker` is called when there is an answer. The device is to be [told](Self::take_notification).
    pub(super) fn send(
        &mut self,
        token: Token,
        segments: &[Segment],
        (buffer, data_bytes): (Option<DmaBuffer>, usize),
        waker: Option<&Waker>,
    ) -> Result<Token, NotSent> {
        if let Some(error) = self.fault {
            self.free.push(token.entry);
            return Err(NotSent::Dead(error, buffer));
        }
        if self.queue.add(segments, token.entry).is_err() {
            self.free.push(token.entry);
            return Err(NotSent::Full(buffer));
        }
        let entry = &mut self.entries[usize::from(token.entry)];
        (entry.state, entry.buffer, entry.data_bytes) = (State::Sent, buffer, data_bytes);
        entry.waker = waker.cloned();
        self.awaited += u16::from(waker.is_some());
        self.untold += 1;
        Ok(token)
    }

    /// What to notify the device with, if requests were made available since it was last asked and it wants to know.
    pub(super) fn take_notification(&mut self) -> Option<u16> {
        self.untold = 0;
        match self.fault {
            None => self.queue.take_notification(),
            Some(_) => None,
        }
    }

    /// As [`take_notification`](Self::take_notification), if there are so many that it is better not to wait for more: the device
    /// works while the next are asked.
    pub(super) fn take_notification_of_many(&mut self) -> Option<u16> {
        if self.untold < TOGETHER { None } else { self.take_notification() }
    }

    /// Whether the device has requests.
    pub(super) fn is_busy(&self) -> bool {
        self.queue.in_flight() > 0
    }

    /// Calls `waker` when a request may be sent.
    pub(super) fn wait_for_room(&mut self, waker: &Waker) {
        // As many wait as were foreseen; more try again at once, so that no memory is taken here.
        if self.waiting.iter().any(|waiting| waiting.will_wake(waker)) {
        } else if self.waiting.len() < self.waiting.capacity() {
            self.waiting.push_back(waker.clone());
        } else {
            waker.wake_by_ref();
        }
    }

    /// The answer, or the token back; then the waker is called when there is one.
    pub(super) fn poll(&mut self, token: Token, waker: &Waker) -> Result<Answer, Token> {
        if self.is_done(&token) {
            return Ok(self.take_answer(token));
        }
        self.wake_when_done(&token, waker);
        Err(token)
    }

    /// Whether there are answers that nobody has taken.
    pub(super) fn has_answers(&self) -> bool {
        self.answered > 0
    }

    /// Whether there is an answer.
    pub(super) fn is_done(&self, token: &Token) -> bool {
        match self.entries[usize::from(token.entry)].state {
            State::Done | State::Failed | State::Cancelled => true,
            State::Sent => false,
            State::Free | State::Forgotten => unreachable!("a token names a request that was sent"),
        }
    }

    /// Calls `waker` when there is an answer.
    pub(super) fn wake_when_done(&mut self, token: &Token, waker: &Waker) {
        let place = &mut self.entries[usize::from(token.entry)].waker;
        if !place.as_ref().is_some_and(|old| old.will_wake(waker)) {
            self.awaited += u16::from(place.is_none());
            *place = Some(waker.clone());
        }
    }

    /// The answer that there is.
    pub(super) fn take_answer(&mut self, token: Token) -> Answer {
        let Entry { state, buffer, data_bytes, written, .. } = &mut self.entries[usize::from(token.entry)];
        let written = match state {
            State::Failed => Err(self.fault.unwrap_or(Error::Cancelled)),
            State::Cancelled => Err(Error::Cancelled),
            _ => Ok(*written),
        };
        let answer = Answer { buffer: buffer.take(), data_bytes: *data_bytes, written };
        self.answered -= 1;
        self.give_back(token.entry);
        answer
    }

    /// Nobody wants the answer.
    pub(super) fn forget(&mut self, token: Token) {
        let entry = &mut self.entries[usize::from(token.entry)];
        match entry.state {
            State::Sent => {
                entry.state = State::Forgotten;
                self.awaited += u16::from(entry.waker.take().is_none());
            }
            _ => {
                self.answered -= 1;
                self.give_back(token.entry);
            }
        }
    }

    fn give_back(&mut self, index: u16) {
        let entry = &mut self.entries[usize::from(index)];
        (entry.state, entry.buffer) = (State::Free, None);
        self.free.push(index);
        while let Some(waker) = self.waiting.pop_front() {
            waker.wake();
        }
    }

    /// Takes what the device has answered, and wakes who waits for it.
    ///
    /// # Errors
    /// The device lies.
    pub(super) fn collect(&mut self) -> Result<(), Fault> {
        if self.fault.is_some() {
            return Ok(());
        }
        self.is_quiet = false;
        loop {
            self.take()?;
            if !self.queue.ask_for_interrupt() {
                return Ok(());
            }
        }
    }

    /// Wants no interrupts: who calls this looks for answers, and [attends](Self::attend) when it has ceased to.
    pub(super) fn hush(&mut self) {
        if !self.is_quiet && self.fault.is_none() {
            self.is_quiet = true;
            self.queue.suppress_interrupts();
        }
    }

    /// Takes what the device has answered, and wants no interrupts; says how much there was.
    ///
    /// # Errors
    /// The device lies.
    pub(super) fn look(&mut self) -> Result<u16, Fault> {
        self.hush();
        self.take()
    }

    /// [Collects](Self::collect) if there are no interrupts, but somebody who waits for one.
    ///
    /// # Errors
    /// The device lies.
    pub(super) fn attend(&mut self) -> Result<(), Fault> {
        let is_awaited = self.awaited > 0 || !self.waiting.is_empty();
        if self.is_quiet && is_awaited { self.collect() } else { Ok(()) }
    }

    /// Takes what the device has answered. No more than the queue holds at a time: a device cannot keep the caller for ever.
    ///
    /// # Errors
    /// The device lies.
    pub(super) fn take(&mut self) -> Result<u16, Fault> {
        if self.fault.is_some() {
            return Ok(0);
        }
        for taken in 0..self.queue.size() {
            let Some((index, written)) = self.queue.pop()? else { return Ok(taken) };
            self.answer(index, State::Done, written);
        }
        Ok(self.queue.size())
    }

    fn answer(&mut self, index: u16, state: State, written: Option<u32>) {
        let entry = &mut self.entries[usize::from(index)];
        if entry.state == State::Sent {
            (entry.state, entry.written) = (state, written);
            self.answered += 1;
            if let Some(waker) = entry.waker.take() {
                self.awaited -= 1;
                waker.wake();
            }
        } else {
            self.awaited -= 1;
            self.give_back(index);
        }
    }

    /// Takes everything back that the device was asked for and has not answered, by a reset of the queue alone: it fails with
    /// [`Error::Cancelled`].
    ///
    /// # Errors
    /// The device cannot, or there is no memory for the new ring: then all stays as it is.
    pub(super) fn cancel(&mut self, device: &mut Device, hal: &dyn Hal) -> Result<(), Error> {
        let mut again = Queue::new(hal, self.queue.size(), device.features())?;
        again.carry_on(self.queue.counts());
        device.restart_queue(self.index, &again)?;
        again.ask_for_interrupt();
        self.is_quiet = false;
        // The old ring is freed only now: the device does not look at it any more.
        self.queue = again;
        self.untold = 0;
        self.answer_all(State::Cancelled, true);
        Ok(())
    }

    /// Fails everything that the device was asked for. If it did not finish its reset, what it may still write to is
    /// never freed.
    pub(super) fn fail(&mut self, error: Error, is_reset: bool) {
        self.fault = Some(error);
        self.answer_all(State::Failed, is_reset);
    }

    fn answer_all(&mut self, state: State, is_reset: bool) {
        for index in 0..self.entries.len() as u16 {
            if !is_reset {
                self.keep_entry(index);
            }
            if matches!(self.entries[usize::from(index)].state, State::Sent | State::Forgotten) {
                self.answer(index, state, None);
            }
        }
        self.waiting.drain(..).for_each(Waker::wake);
        if !is_reset {
            self.keep_for_ever();
        }
    }

    /// A device that does not finish its reset may write to anything it was told of, at any time.
    pub(super) fn keep_for_ever(&mut self) {
        (0..self.entries.len() as u16).for_each(|index| self.keep_entry(index));
        self.queue.keep_for_ever();
        self.areas.keep_for_ever();
    }

    fn keep_entry(&mut self, index: u16) {
        let entry = &mut self.entries[usize::from(index)];
        if matches!(entry.state, State::Sent | State::Forgotten) {
            core::mem::forget(entry.buffer.take());
        }
    }

    /// What the queue has done so far.
    pub(super) fn counts(&self) -> Counts {
        self.queue.counts()
    }
}
