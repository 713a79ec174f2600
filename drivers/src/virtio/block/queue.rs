//! One queue of a disk: requests go in, answers come out (VirtIO 1.3 §5.2.6).
//! Neighbours: `request` (a request as the device reads it), `mod` (the disk, which has several of these).
#![forbid(unsafe_code)]

use core::{sync::atomic::Ordering::Relaxed, task::Waker};

use super::request::{Head, ID_BYTES, Type, area, sectors, status};
use crate::{
    class::{self, BlockInfo, BlockRequest, Outcome, SECTOR_BYTES, Submitted},
    dma::{Direction, DmaBuffer, Segment},
    error::Error,
    virtio::{
        Fault, Token,
        requests::{Answer, NotSent, Requests},
    },
};

type Batch = class::Batch<BlockRequest, Outcome>;

/// A queue, and what it has to know of its disk.
pub(super) struct Queue {
    pub(super) requests: Requests,
    pub(super) info: BlockInfo,
}

impl Queue {
    /// Makes a request available to the device, which is to be told of it; `waker` is called when there is an answer.
    #[inline]
    pub(super) fn submit(
        &mut self,
        request: BlockRequest,
        waker: Option<&Waker>,
    ) -> Submitted<BlockRequest, Outcome> {
        let (head, buffer) = Head::split(request);
        if let Err(error) = self.check(&head, buffer.as_ref()) {
            return Submitted::Refused(Outcome { result: Err(error), buffer });
        }
        let requests = &mut self.requests;
        let Some(token) = requests.reserve() else { return Submitted::Full(head.into_request(buffer)) };
        head.write(requests, &token);
        let mut segments = [requests.area(&token, area::HEADER, Direction::ToDevice); 3];
        let mut count = 1;
        let mut push = |segment: Segment| {
            segments[count] = segment;
            count += 1;
        };
        let mut data_bytes = 0;
        if let Some(buffer) = &buffer {
            if head.kind == Type::Out {
                push(buffer.segment(0..buffer.len(), Direction::ToDevice));
            } else {
                data_bytes = if head.kind == Type::GetId { ID_BYTES } else { buffer.len() };
                push(buffer.segment(0..data_bytes, Direction::FromDevice));
            }
        } else if head.has_range() {
            push(requests.area(&token, area::RANGE, Direction::ToDevice));
        }
        push(requests.area(&token, area::STATUS, Direction::FromDevice));
        match requests.send(token, &segments[..count], (buffer, data_bytes), waker) {
            Ok(token) => Submitted::Sent(token),
            Err(NotSent::Full(buffer)) => Submitted::Full(head.into_request(buffer)),
            Err(NotSent::Dead(error, buffer)) => Submitted::Refused(Outcome { result: Err(error), buffer }),
        }
    }

    /// Whether the device can be asked this.
    #[inline]
    fn check(&self, head: &Head, buffer: Option<&DmaBuffer>) -> Result<(), Error> {
        let info = &self.info;
        let bytes = buffer.map_or(0, DmaBuffer::len);
        let (sectors, limit) = match head.kind {
            Type::In | Type::Out => (sectors(bytes)?, info.max_bytes / SECTOR_BYTES as u32),
            Type::Discard => (head.count, info.max_discard_sectors),
            Type::WriteZeroes => (head.count, info.max_write_zeroes_sectors),
            Type::GetId if bytes < ID_BYTES => {
                return Err(Error::Request("the buffer for a name is shorter than 20 bytes"));
            }
            Type::Flush | Type::GetId => return Ok(()),
        };
        match () {
            () if info.read_only && head.kind != Type::In => Err(Error::Request("the device is read-only")),
            () if sectors == 0 => Err(Error::Request("it is about no sector")),
            () if sectors > limit => Err(Error::Request("it is longer than the device takes")),
            () if head.sector.checked_add(sectors.into()).is_none_or(|end| end > info.sectors) => {
                Err(Error::Request("it goes beyond the end of the device"))
            }
            () => Ok(()),
        }
    }

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
        let mut at = 0;
        while self.requests.has_answers()
            && let Some((_, token)) = batch.sent.get(at)
        {
            if token.queue != number || !self.requests.is_done(token) {
                at += 1;
                continue;
            }
            // Most devices answer in order.
            let taken = if at == 0 { batch.sent.pop_front() } else { batch.sent.remove(at) };
            batch.done.extend(taken.map(|(tag, token)| (tag, self.take_outcome(token))));
        }
    }

    /// Takes the answer to a request, or gives the token back.
    pub(super) fn poll(&mut self, token: Token, waker: &Waker) -> Result<Outcome, Token> {
        if self.requests.is_done(&token) {
            return Ok(self.take_outcome(token));
        }
        self.requests.wake_when_done(&token, waker);
        Err(token)
    }

    #[inline]
    fn take_outcome(&mut self, token: Token) -> Outcome {
        let requests = &mut self.requests;
        let status =
            requests.area_memory().u8(requests.area_offset(&token, area::STATUS.start)).load(Relaxed);
        let Answer { buffer, data_bytes, written } = requests.take_answer(token);
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
