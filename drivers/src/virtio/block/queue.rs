//! One queue of a disk: requests go in, answers come out (VirtIO 1.3 §5.2.6).
//! Neighbours: `submit` (requests on their way in), `request` (a request as the device reads it), `mod` (the disk, which has several of these).
#![forbid(unsafe_code)]

use core::task::Waker;

use super::request::status;
use crate::{
    class::{self, BlockInfo, BlockRequest, Outcome, Submitted},
    error::Error,
    virtio::{
        Fault, Token,
        requests::{Answer, For, Requests},
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
    pub(super) fn send(&mut self, number: u16, batch: &mut Batch, waker: &Waker) -> (u32, Option<u16>) {
        let (mut count, mut told) = (0, None);
        while told.is_none()
            && let Some((tag, request)) = batch.unsent.pop_front()
        {
            match self.submit(request, For::Batch(batch.id, tag)) {
                Submitted::Sent(_) => count += 1,
                Submitted::Refused(outcome) => batch.done.push_back((tag, outcome)),
                Submitted::Full(request) => {
                    batch.unsent.push_front((tag, request));
                    self.requests.wait_for_room(waker);
                    break;
                }
            }
            told = self.requests.take_notification_of_many();
        }
        if count > 0 {
            batch.kept.add(number, count as usize);
        }
        (count, told)
    }

    /// Takes the answers to those of `batch` that were sent in this queue, which is number `number`; whether there is something, as
    /// then nobody looks any more.
    ///
    /// # Errors
    /// The device lies.
    pub(super) fn take(&mut self, number: u16, batch: &mut Batch) -> Result<bool, Fault> {
        let Batch { id, done, kept, .. } = batch;
        let before = done.len();
        let took = self.requests.take_for(*id, |tag, answer| done.push_back((tag, outcome(answer))));
        kept.remove(number, done.len() - before);
        took?;
        let found = !done.is_empty();
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
fn outcome(Answer { buffer, data_bytes, written, status }: Answer) -> Outcome {
    let result = written.and_then(|written| match status as u8 {
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
