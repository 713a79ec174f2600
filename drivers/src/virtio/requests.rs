//! Requests that wait for their answer: who sent it, which buffer went with it, whom to wake.
//!
//! A request is known by its [`Token`], which its owner gives up for the outcome, or to say that nobody wants it: then
//! the buffer stays here until the device is done with it. Nothing is allocated for a request: the table is made with
//! the queue. Neighbours: `queue` (buffers in flight), `block`, `entropy` (what is asked).
#![forbid(unsafe_code)]

use alloc::{boxed::Box, collections::VecDeque, vec::Vec};
use core::{ops::Range, task::Waker};

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

/// Bytes of DMA memory that each request has beside its buffer: for headers and status bytes.
pub(super) const AREA_BYTES: usize = 64;

/// A request that was sent. It must be given to `poll` until that takes it, or to `forget`.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a request whose token is lost keeps its place for ever"]
pub struct Token {
    pub(super) queue: u16,
    entry: u16,
}

/// For other drivers of the same classes, which number their requests too.
impl Token {
    pub(crate) fn new(entry: u16) -> Self {
        Self { queue: 0, entry }
    }

    pub(crate) fn entry(&self) -> u16 {
        self.entry
    }
}

/// A request's place. Nothing is moved while it waits there: buffers are moved in and out once.
#[derive(Debug)]
struct Entry {
    state: State,
    buffer: Option<DmaBuffer>,
    /// Whom to wake when it is done.
    waker: Option<Waker>,
    /// As in [`Answer`].
    data_bytes: usize,
    written: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    /// The device has it.
    Sent,
    /// The device has it, and nobody waits for it any more; the buffer is freed when it comes back.
    Forgotten,
    /// There is an answer.
    Done,
    /// There will be none, as the device has failed.
    Failed,
    /// It was taken back.
    Cancelled,
}

impl Entry {
    const FREE: Self = Self { state: State::Free, buffer: None, waker: None, data_bytes: 0, written: None };
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    /// The buffer that went with the request.
    pub(super) buffer: Option<DmaBuffer>,
    /// Bytes of it that the device was to fill.
    pub(super) data_bytes: usize,
    /// Bytes that the device says it wrote, if it says so.
    pub(super) written: Result<Option<u32>, Error>,
}

/// Why a request was not sent now.
#[derive(Debug)]
pub(super) enum NotSent {
    /// There is no room now.
    Full(Option<DmaBuffer>),
    /// The device has failed.
    Dead(Error, Option<DmaBuffer>),
}

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

    /// The same, if there are so many that it is better not to wait for more: the device works while the next are asked.
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
            State::Sent => (entry.state, entry.waker) = (State::Forgotten, None),
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
        loop {
            self.take()?;
            if !self.queue.ask_for_interrupt() {
                return Ok(());
            }
        }
    }

    /// As [`collect`](Self::collect), but wants no interrupt for what comes next; says how much there was.
    ///
    /// # Errors
    /// The device lies.
    pub(super) fn look(&mut self) -> Result<u16, Fault> {
        if self.fault.is_some() {
            return Ok(0);
        }
        self.queue.suppress_interrupts();
        self.take()
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
                waker.wake();
            }
        } else {
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
