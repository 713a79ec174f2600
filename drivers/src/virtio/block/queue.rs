//! One queue of a disk: requests go in, answers come out (VirtIO 1.3 §5.2.6).
//! Neighbours: `submit` (requests on their way in), `request` (a request as the device reads it), `mod` (the disk, which has several of these).
#![forbid(unsafe_code)]

use core::task::Waker;

use super::request::status;
use crate::{
    class::{self, BlockInfo, BlockRequest, Outcome},
    error::Error,
    virtio::{
        Fault, Token,
        requests::{Answer, Requests},
    },
};

type Batch = class::Batch<BlockRequest, Outcome>;

/// A queue, and what it has to know of its disk.
pub(super) struct Queue {
    pub(super) requests: Requests,
    pub(super) info: BlockInfo,
}

impl Queue {
    /// Sends what `batch` has unsent, in order, as far as there is room and until the device is to be told; says of how many
    /// requests, and with what.
    pub(super) fn send(&mut self, batch: &mut Batch, waker: &Waker) -> (u32, Option<u16>) {
        let mut count = 0;
        while let Some((tag, request)) = batch.unsent.pop_front() {
            if !batch.file(tag, self.submit(request, None)) {
                self.requests.wait_for_room(waker);
                break;
            }
            count += 1;
            if let Some(position) = self.requests.take_notification_of_many() {
                return (count, Some(position));
            }
        }
        (count, None)
    }

    /// Takes the answers to those of `batch` that were sent in this queue, which is number `number`; whether there is something, as
    /// then nobody looks any more.
    ///
    /// # Errors
    /// The device lies.
    pub(super) fn take(&mut self, number: u16, batch: &mut Batch) -> Result<bool, Fault> {
        self.requests.take()?;
        // An interrupt may have taken some.
        self.gather(number, batch);
        let found = !batch.done.is_empty();
        if found {
            self.requests.attend()?;
        }
        Ok(found)
    }

    /// As [`take`](Self::take); if there is none, `waker` is called when there is one.
    ///
    /// # Errors
    /// The device lies.
    pub(super) fn take_or_wait(
        &mut self,
        number: u16,
        batch: &mut Batch,
        waker: &Waker,
    ) -> Result<(), Fault> {
        if !self.take(number, batch)? {
            let here = batch.sent.iter().filter(|(_, token)| token.queue == number);
            here.for_each(|(_, token)| self.requests.wake_when_done(token, waker));
        }
        self.requests.attend()
    }

    fn gather(&mut self, number: u16, batch: &mut Batch) {
        // Most devices answer in order.
        while self.requests.has_answers()
            && let Some((tag, token)) = batch.sent.pop_front()
        {
            if !self.has_answer(number, &token) {
                batch.sent.push_front((tag, token));
                return self.gather_behind(number, batch);
            }
            let outcome = self.take_outcome(token);
            batch.done.push_back((tag, outcome));
        }
    }

    /// Takes the answers to all but the first.
    fn gather_behind(&mut self, number: u16, batch: &mut Batch) {
        let mut at = 1;
        while self.requests.has_answers()
            && let Some((_, token)) = batch.sent.get(at)
        {
            if !self.has_answer(number, token) {
                at += 1;
            } else if let Some((tag, token)) = batch.sent.remove(at) {
                let outcome = self.take_outcome(token);
                batch.done.push_back((tag, outcome));
            }
        }
    }

    fn has_answer(&self, number: u16, token: &Token) -> bool {
        token.queue == number && self.requests.is_done(token)
    }

    /// Takes the answer to a request, or gives the token back.
    pub(super) fn poll(&mut self, token: Token, waker: &Waker) -> Result<Outcome, Token> {
        if self.requests.is_done(&token) {
            return Ok(self.take_outcome(token));
        }
        self.requests.wake_when_done(&token, waker);
        Err(token)
    }

    #[inline(always)]
    fn take_outcome(&mut self, token: Token) -> Outcome {
        let status = status::read(self.requests.area(&token));
        let Answer { buffer, data_bytes, written } = self.requests.take_answer(token);
        let result = written.and_then(|written| match status {
            // The status byte is the last of what the device writes.
            status::OK if written.is_some_and(|written| (written as usize) <= data_bytes) => {
                Err(Error::Failed("success, but wrote less than was asked for"))
            }
            status::OK => Ok(data_bytes),
            status::IOERR => Err(Error::Failed("an I/O error")),
            status::UNSUPP => Err(Error::Failed("that it does not support the request")),
            status::NONE => Err(Error::Failed("no status")),
            _ => Err(Error::Failed("an unknown status")),
        });
        Outcome { result, buffer }
    }
}
