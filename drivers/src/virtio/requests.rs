//! Requests that wait for their answer: who sent it, which buffer went with it, whom to wake.
//!
//! A request is known by its [`Token`], which its owner gives up for the outcome, or to say that nobody wants it: then
//! the buffer stays here until the device is done with it. Nothing is allocated for a request: the table is made with
//! the queue. Neighbours: `queue` (buffers in flight), `block`, `entropy` (what is asked).
#![forbid(unsafe_code)]

use alloc::{boxed::Box, collections::VecDeque, vec::Vec};
use core::{ops::Range, task::Waker};

use super::{
    Fault, Features, Init, Status,
    init::reset,
    queue::{Counts, Queue},
    transport::{Interrupt, Transport, read_config},
};
use crate::{
    dma::{Direction, Dma, DmaBuffer, Segment},
    error::Error,
    hal::Hal,
};

/// Bytes of DMA memory that each request has beside its buffer: for headers and status bytes.
pub(super) const AREA_BYTES: usize = 64;

/// A request that was sent. It must be given to `poll` until that takes it, or to `forget`.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a request whose token is lost keeps its place for ever"]
pub struct Token(u16);

/// For other drivers of the same classes, which number their requests too.
impl Token {
    pub(crate) fn new(entry: u16) -> Self {
        Self(entry)
    }

    pub(crate) fn entry(&self) -> u16 {
        self.0
    }
}

#[derive(Debug)]
enum Entry {
    Free,
    /// The device has it.
    Sent {
        buffer: Option<DmaBuffer>,
        waker: Option<Waker>,
        data_bytes: usize,
    },
    /// Nobody waits for it any more; the buffer is freed when it comes back.
    Forgotten {
        _buffer: Option<DmaBuffer>,
    },
    Done(Answer),
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
    /// There is no room; the waker is called when there may be.
    Full(Option<DmaBuffer>),
    /// The device has failed.
    Dead(Error, Option<DmaBuffer>),
}

/// A queue of requests and the device behind.
pub(super) struct Requests {
    transport: Box<dyn Transport>,
    index: u16,
    queue: Queue<u16>,
    entries: Box<[Entry]>,
    free: Vec<u16>,
    waiting: VecDeque<Waker>,
    areas: Dma,
    tells_position: bool,
    fault: Option<Error>,
}

impl Requests {
    /// Makes queue `index` of a device and lets the device run.
    pub(super) fn new(mut init: Init, hal: &dyn Hal, index: u16) -> Result<Self, Error> {
        let tells_position = init.features().contains(Features::NOTIFICATION_DATA);
        // The device is told of the queue last, when nothing can fail any more.
        let count = init.queue_size(index)?;
        let areas = hal.dma(usize::from(count) * AREA_BYTES)?;
        let queue: Queue<u16> = init.queue(index, hal)?;
        let mut requests = Self {
            index,
            entries: (0..count).map(|_| Entry::Free).collect(),
            free: (0..count).collect(),
            waiting: VecDeque::with_capacity(usize::from(count)),
            areas,
            tells_position,
            fault: None,
            transport: init.finish(),
            queue,
        };
        requests.queue.ask_for_interrupt();
        Ok(requests)
    }

    /// A token for the request to be sent next, if there is room.
    pub(super) fn reserve(&mut self) -> Option<Token> {
        self.free.pop().map(Token)
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
        usize::from(token.0) * AREA_BYTES + offset
    }

    /// Sends a request for which `reserve` gave the token, with its buffer and the bytes of it that the device is to fill.
    pub(super) fn send(
        &mut self,
        token: Token,
        segments: &[Segment],
        (buffer, data_bytes): (Option<DmaBuffer>, usize),
        waker: &Waker,
    ) -> Result<Token, NotSent> {
        if let Some(error) = self.fault {
            self.free.push(token.0);
            return Err(NotSent::Dead(error, buffer));
        }
        if self.queue.add(segments, token.0).is_err() {
            self.free.push(token.0);
            self.wait_for_room(waker);
            return Err(NotSent::Full(buffer));
        }
        self.entries[usize::from(token.0)] = Entry::Sent { buffer, waker: Some(waker.clone()), data_bytes };
        let (transport, index, tells_position) = (&mut self.transport, self.index, self.tells_position);
        self.queue.notify(|position| transport.notify(index, tells_position.then_some(position)));
        Ok(token)
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
        let entry = &mut self.entries[usize::from(token.0)];
        match core::mem::replace(entry, Entry::Free) {
            Entry::Done(answer) => {
                self.give_back(token.0);
                Ok(answer)
            }
            Entry::Sent { buffer, waker: old, data_bytes } => {
                let waker = old.filter(|old| old.will_wake(waker)).unwrap_or_else(|| waker.clone());
                *entry = Entry::Sent { buffer, waker: Some(waker), data_bytes };
                Err(token)
            }
            Entry::Free | Entry::Forgotten { .. } => unreachable!("a token names a request that was sent"),
        }
    }

    /// Nobody wants the answer.
    pub(super) fn forget(&mut self, token: Token) {
        let entry = &mut self.entries[usize::from(token.0)];
        match core::mem::replace(entry, Entry::Free) {
            Entry::Sent { buffer, .. } => *entry = Entry::Forgotten { _buffer: buffer },
            _ => self.give_back(token.0),
        }
    }

    fn give_back(&mut self, index: u16) {
        self.free.push(index);
        self.waiting.drain(..).for_each(Waker::wake);
    }

    /// Takes what the device has answered, and wakes who waits for it. Says whether the configuration changed.
    pub(super) fn interrupt(&mut self) -> bool {
        if self.fault.is_some() {
            return false;
        }
        let cause = self.transport.take_interrupt();
        if let Err(fault) = self.collect() {
            self.fail(fault);
            return false;
        }
        let has_changed = cause.contains(Interrupt::CONFIG);
        if has_changed && self.transport.status().contains(Status::DEVICE_NEEDS_RESET) {
            self.fail(Fault::NeedsReset);
        }
        has_changed && self.fault.is_none()
    }

    fn collect(&mut self) -> Result<(), Fault> {
        loop {
            // No more than the queue holds at a time: a device cannot keep the handler for ever.
            for _ in 0..self.queue.size() {
                let Some((index, written)) = self.queue.pop()? else { break };
                self.answer(index, Ok(written));
            }
            if !self.queue.ask_for_interrupt() {
                return Ok(());
            }
        }
    }

    fn answer(&mut self, index: u16, written: Result<Option<u32>, Error>) {
        let entry = &mut self.entries[usize::from(index)];
        match core::mem::replace(entry, Entry::Free) {
            Entry::Sent { buffer, waker, data_bytes } => {
                *entry = Entry::Done(Answer { buffer, data_bytes, written });
                waker.into_iter().for_each(Waker::wake);
            }
            _ => self.give_back(index),
        }
    }

    /// Gives the device up: it is reset, and what it was asked for fails.
    fn fail(&mut self, fault: Fault) {
        let error = Error::Fault(fault);
        self.fault = Some(error);
        let is_reset = reset(&mut *self.transport);
        log::error!(
            "virtio-{}: {error}: it is reset and not used any more",
            self.transport.device_id().name()
        );
        if let Err(stuck) = &is_reset {
            log::error!("virtio-{}: {stuck}: its buffers are lost", self.transport.device_id().name());
        }
        for index in 0..self.entries.len() as u16 {
            if is_reset.is_err() {
                self.keep_for_ever(index);
            }
            if matches!(self.entries[usize::from(index)], Entry::Sent { .. } | Entry::Forgotten { .. }) {
                self.answer(index, Err(error));
            }
        }
        self.waiting.drain(..).for_each(Waker::wake);
    }

    /// A device that does not finish its reset may write to a buffer at any time.
    fn keep_for_ever(&mut self, index: u16) {
        match &mut self.entries[usize::from(index)] {
            Entry::Sent { buffer, .. } | Entry::Forgotten { _buffer: buffer } => {
                core::mem::forget(buffer.take())
            }
            Entry::Free | Entry::Done(_) => {}
        }
    }

    /// A configuration that was read as one piece.
    pub(super) fn read_config<R>(
        &self,
        read: impl Fn(&dyn Transport) -> Result<R, Error>,
    ) -> Result<R, Error> {
        read_config(&*self.transport, read)
    }

    /// What the queue has done so far.
    pub(super) fn counts(&self) -> Counts {
        self.queue.counts()
    }

    /// Why the device is not used any more, if it is not.
    pub(super) fn fault(&self) -> Option<Error> {
        self.fault
    }
}

impl Drop for Requests {
    /// The memory that the device was told of goes, so the device must not use it any more.
    fn drop(&mut self) {
        if reset(&mut *self.transport).is_err() {
            (0..self.entries.len() as u16).for_each(|index| self.keep_for_ever(index));
            self.queue.keep_for_ever();
            self.areas.keep_for_ever();
        }
    }
}
