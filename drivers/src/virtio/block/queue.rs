//! One queue of a disk: requests go in, answers come out (VirtIO 1.3 §5.2.6).
//! Neighbours: `submit` (requests on their way in), `request` (a request as the device reads it), `mod` (the disk, which has several of these).
#![forbid(unsafe_code)]

use core::task::Waker;

use super::{gather::settle, request::status};
use crate::{
    class::{self, BlockInfo, BlockRequest, Outcome, Submitted},
    error::Error,
    virtio::{
        Fault, Token,
        requests::{Answer, For, Requests},
    },
};

pub(super) type Batch = class::Batch<BlockRequest, Outcome>;

/// A queue, and what it has to know of its disk.
pub(super) struct Queue {
    pub(super) requests: Requests,
    pub(super) info: BlockInfo,
    /// Neighbouring requests of a batch that may be one to the device; 1 if none.
    pub(super) gathers: usize,
}

impl Queue {
    /// Sends what `batch` has unsent, in order, as far as there is room and until the device is to be told; says of how many
    /// requests, and with what.
    pub(super) fn send(&mut self, number: u16, batch: &mut Batch, waker: &Waker) -> (u32, Option<u16>) {
        let (mut count, mut told) = (0, None);
        while told.is_none()
            && let Some(sent) = self.send_next(batch, waker)
        {
            batch.kept.add(number, sent);
            count += sent;
            told = self.requests.take_notification_of_many();
        }
        (count as u32, told)
    }

    /// Sends the next one, or more as one; says how many, if anything was there that may be sent now.
    #[inline(always)]
    fn send_next(&mut self, batch: &mut Batch, waker: &Waker) -> Option<usize> {
        if batch.goes_one_by_one() {
            return self.send_again(batch, waker);
        }
        let several = self.neighbours(&batch.unsent);
        if several > 1 && self.gather(batch, several).is_ok() {
            return Some(several);
        }
        let next = batch.unsent.pop_front()?;
        self.send_one(next, batch, waker).map_err(|next| batch.unsent.push_front(next)).ok()
    }

    /// Sends the next one of those that are asked for again, if `batch` has nothing else under way.
    #[cold]
    fn send_again(&mut self, batch: &mut Batch, waker: &Waker) -> Option<usize> {
        if !batch.kept.is_empty() {
            return None;
        }
        batch.is_alone = false;
        let Some(next) = batch.again.pop_front() else { return Some(0) };
        let sent = self.send_one(next, batch, waker).map_err(|next| batch.again.push_front(next)).ok()?;
        batch.is_alone = sent > 0;
        Some(sent)
    }

    /// Sends one; says how many that were.
    ///
    /// # Errors
    /// There is no room now; then `waker` is called when there is.
    #[inline(always)]
    fn send_one(
        &mut self,
        (tag, request): (u64, BlockRequest),
        batch: &mut Batch,
        waker: &Waker,
    ) -> Result<usize, (u64, BlockRequest)> {
        match self.submit(request, For::Batch(batch.id, tag)) {
            Submitted::Sent(_) => Ok(1),
            Submitted::Refused(outcome) => {
                batch.done.push_back((tag, outcome));
                Ok(0)
            }
            Submitted::Full(request) => {
                self.requests.wait_for_room(waker);
                Err((tag, request))
            }
        }
    }

    /// Takes the answers to those of `batch` that were sent in this queue, which is number `number`; whether there is something to
    /// do now, as then nobody looks any more.
    ///
    /// # Errors
    /// The device lies.
    pub(super) fn take(&mut self, number: u16, batch: &mut Batch) -> Result<bool, Fault> {
        let Batch { id, again, done, kept, .. } = batch;
        let (mut count, before) = (0, again.len());
        let took = self.requests.take_for(*id, |tag, answer| {
            count += 1;
            match settle(answer) {
                Ok(outcome) => done.push_back((tag, outcome)),
                Err(request) => again.push_back((tag, request)),
            }
        });
        kept.remove(number, count);
        let found = !done.is_empty() || again.len() > before;
        took?;
        if found {
            self.requests.unwatch(*id);
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
        if !self.take(number, batch)? && batch.kept.are_some_in(number) {
            self.requests.watch(batch.id, waker);
        }
        self.requests.attend()
    }

    /// Takes the answer to a request, or gives the token back.
    pub(super) fn poll(&mut self, token: Token, waker: &Waker) -> Result<Outcome, Token> {
        self.requests.poll(token, waker).map(outcome)
    }
}

/// What the device's answer comes to.
#[inline(always)]
pub(super) fn outcome(Answer { buffer, data_bytes, written, unwritten, status, .. }: Answer) -> Outcome {
    let result = written.and(match status as u8 {
        // The status byte is the last of what the device writes.
        status::OK if unwritten > 0 => Err(Error::Failed("success, but wrote less than was asked for")),
        status::OK => Ok(data_bytes),
        status::IOERR => Err(Error::Failed("an I/O error")),
        status::UNSUPP => Err(Error::Failed("that it does not support the request")),
        status::NONE => Err(Error::Failed("no status")),
        _ => Err(Error::Failed("an unknown status")),
    });
    Outcome { result, buffer }
}
