//! Requests that wait for their answer: who sent it, which buffer went with it, whom to wake.
//!
//! A request is known by its [`Token`], which its owner gives up for the outcome, or to say that nobody wants it: then
//! the buffer stays here until the device is done with it. Nothing is allocated for a request: the table is made with
//! the queue. Files: `entry` (one request), `table` (all of a queue), `batches` (those that are for batches), `send` (how they
//! get to the device), `gathered` (several that are one to the device), this one (how answers come back).
//! Neighbours: `queue` (buffers in flight), `block`, `entropy` (what is asked).
#![forbid(unsafe_code)]

mod batches;
mod entry;
mod gathered;
mod send;
mod table;

use core::{sync::atomic::Ordering::Relaxed, task::Waker};

use self::{
    entry::{Came, State},
    table::Table,
};
use super::{
    Fault, Init,
    device::Device,
    queue::{Counts, Queue, Used},
};
use crate::{
    class::{BatchId, STEP, TOGETHER},
    dma::{Dma, Piece},
    error::Error,
    hal::Hal,
};

pub use entry::Token;
pub(super) use entry::{Answer, For, NoRoom};
pub(super) use gathered::Member;

/// DMA memory that each request has beside its buffer: for headers and status bytes. It is the request's until the device has
/// answered.
pub(super) type Area<'a> = Piece<'a, AREA_WORDS>;
const AREA_WORDS: usize = 8;
/// The word of it that [`Answer`] has.
pub(super) const STATUS_WORD: usize = 4;

/// A queue of requests. Its device must be reset before it is dropped, or it be kept for ever.
pub(super) struct Requests {
    index: u16,
    /// Each buffer carries the number of its request's place, or of the first one's if several were gathered.
    queue: Queue<u16>,
    table: Table,
    areas: Dma,
    /// Requests of which the device was not told.
    untold: u16,
    /// The device was asked not to interrupt.
    is_quiet: bool,
    /// Why nothing is sent any more, if nothing is.
    fault: Option<Error>,
}

impl Requests {
    /// Makes queue `index` of a device, for requests of `parts` segments each at most.
    pub(super) fn new(init: &mut Init, hal: &dyn Hal, index: u16, parts: usize) -> Result<Self, Error> {
        // The device is told of the queue last, when nothing of it can fail any more.
        let count = init.queue_size(index)?;
        let areas = hal.dma(usize::from(count) * AREA_WORDS * size_of::<u64>())?;
        let mut queue: Queue<u16> = init.queue_with_parts(index, hal, parts)?;
        queue.ask_for_interrupt();
        Ok(Self { index, queue, table: Table::new(count), areas, untold: 0, is_quiet: false, fault: None })
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
        self.table.wait_for_room(waker);
    }

    /// The answer, or the token back; then the waker is called when there is one.
    pub(super) fn poll(&mut self, token: Token, waker: &Waker) -> Result<Answer, Token> {
        if self.table.is_done(token.entry) {
            return Ok(self.table.take_answer(token.entry, self.fault));
        }
        self.table.wake_when_done(token.entry, waker);
        Err(token)
    }

    /// Nobody wants the answer.
    pub(super) fn forget(&mut self, token: Token) {
        self.table.forget(token.entry);
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
        if self.is_quiet && self.table.is_awaited() { self.collect() } else { Ok(()) }
    }

    /// Takes what the device has answered by now; says how much there was.
    ///
    /// # Errors
    /// The device lies.
    pub(super) fn take(&mut self) -> Result<u16, Fault> {
        if self.fault.is_some() {
            return Ok(0);
        }
        let Self { table, areas, .. } = self;
        self.queue.pop_all(|used, first| {
            let came = came(areas, used);
            table.each_gathered(first, |table, entry| table.answer(entry, State::Done, came));
            true
        })
    }

    /// As [`take`](Self::take), until there are answers for a [`STEP`] of `batch`; gives `done` each of them, with its tag.
    ///
    /// # Errors
    /// The device lies.
    #[inline(always)]
    pub(super) fn take_for(
        &mut self,
        batch: BatchId,
        mut done: impl FnMut(u64, Answer),
    ) -> Result<(), Fault> {
        let Self { table, areas, .. } = self;
        if self.fault.is_none() {
            let mut count = 0;
            self.queue.pop_all(|used, first| {
                let came = came(areas, used);
                table.each_gathered(first, |table, entry| match table.answer_to(batch, entry, came) {
                    Some((tag, answer)) => {
                        count += 1;
                        done(tag, answer);
                    }
                    None => table.answer(entry, State::Done, came),
                });
                count < STEP
            })?;
        }
        // Others have taken some.
        while let Some((tag, entry)) = table.next_ready(batch) {
            done(tag, table.take_answer(entry, self.fault));
        }
        Ok(())
    }

    /// Calls `waker` when there is one more answer for `batch`.
    pub(super) fn watch(&mut self, batch: BatchId, waker: &Waker) {
        self.table.watch(batch, waker);
    }

    /// `batch` looks for answers itself.
    pub(super) fn unwatch(&mut self, batch: BatchId) {
        self.table.unwatch(batch);
    }

    /// Nobody wants the answers for `batch`.
    pub(super) fn forget_batch(&mut self, batch: BatchId) {
        self.table.forget_batch(batch);
    }

    /// Takes everything back that the device was asked for and has not answered, by a reset of the queue alone: it fails with
    /// [`Error::Cancelled`].
    ///
    /// # Errors
    /// The device cannot, or there is no memory for the new ring: then all stays as it is.
    pub(super) fn cancel(&mut self, device: &mut Device, hal: &dyn Hal) -> Result<(), Error> {
        let mut again = Queue::with_parts(hal, self.queue.shape(), device.features())?;
        again.carry_on(self.queue.counts());
        device.restart_queue(self.index, &again)?;
        again.ask_for_interrupt();
        self.is_quiet = false;
        // The old ring is freed only now: the device does not look at it any more.
        self.queue = again;
        self.untold = 0;
        self.table.answer_all(State::Cancelled, false);
        Ok(())
    }

    /// Fails everything that the device was asked for. If it did not finish its reset, what it may still write to is
    /// never freed.
    pub(super) fn fail(&mut self, error: Error, is_reset: bool) {
        self.fault = Some(error);
        self.table.answer_all(State::Failed, !is_reset);
        if !is_reset {
            self.keep_for_ever();
        }
    }

    /// A device that does not finish its reset may write to anything it was told of, at any time.
    pub(super) fn keep_for_ever(&mut self) {
        self.table.keep_for_ever();
        self.queue.keep_for_ever();
        self.areas.keep_for_ever();
    }

    /// What the queue has done so far.
    pub(super) fn counts(&self) -> Counts {
        self.queue.counts()
    }
}

/// What came with a buffer.
#[inline(always)]
fn came(areas: &Dma, Used { id, len_bytes, unwritten }: Used) -> Came {
    let area: Area<'_> = areas.piece(id.into());
    Came { written: len_bytes, unwritten, status: area.words()[STATUS_WORD].load(Relaxed) }
}
