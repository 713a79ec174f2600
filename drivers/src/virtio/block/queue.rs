//! One queue of a disk: requests go in, answers come out (VirtIO 1.3 §5.2.6).
//! Neighbours: `request` (a request as the device reads it), `mod` (the disk, which has several of these).
#![forbid(unsafe_code)]

use core::{sync::atomic::Ordering::Relaxed, task::Waker};

use super::request::{Head, ID_BYTES, area, into_buffer, sectors, status};
use crate::{
    class::{self, BlockInfo, BlockRequest, Outcome, Submitted},
    dma::{Direction, Segment},
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
        if let Err(error) = self.check(&request) {
            return Submitted::Refused(Outcome { result: Err(error), buffer: into_buffer(request) });
        }
        let requests = &mut self.requests;
        let Some(token) = requests.reserve() else { return Submitted::Full(request) };
        let head = Head::of(&request);
        head.write(requests, &token);
        let mut segments = [requests.area(&token, area::HEADER, Direction::ToDevice); 3];
        let mut count = 1;
        let mut push = |segment: Segment| {
            segments[count] = segment;
            count += 1;
        };
        let mut data_bytes = 0;
        match &request {
            BlockRequest::Read { buffer, .. } => {
                data_bytes = buffer.len();
                push(buffer.segment(0..data_bytes, Direction::FromDevice));
            }
            BlockRequest::Write { buffer, .. } => push(buffer.segment(0..buffer.len(), Direction::ToDevice)),
            BlockRequest::GetId { buffer } => {
                data_bytes = ID_BYTES;
                push(buffer.segment(0..ID_BYTES, Direction::FromDevice));
            }
            BlockRequest::Discard { .. } | BlockRequest::WriteZeroes { .. } => {
                push(requests.area(&token, area::RANGE, Direction::ToDevice))
            }
            BlockRequest::Flush => {}
        }
        push(requests.area(&token, area::STATUS, Direction::FromDevice));
        match requests.send(token, &segments[..count], (into_buffer(request), data_bytes), waker) {
            Ok(token) => Submitted::Sent(token),
            Err(NotSent::Full(buffer)) => Submitted::Full(head.into_request(buffer)),
            Err(NotSent::Dead(error, buffer)) => Submitted::Refused(Outcome { result: Err(error), buffer }),
        }
    }

    /// Whether the device can be asked this.
    fn check(&self, request: &BlockRequest) -> Result<(), Error> {
        let info = &self.info;
        let (is_write, sector, sectors, limit) = match request {
            BlockRequest::Read { sector, buffer } => (false, *sector, sectors(buffer)?, info.max_bytes / 512),
            BlockRequest::Write { sector, buffer } => (true, *sector, sectors(buffer)?, info.max_bytes / 512),
            BlockRequest::Discard { sector, count } => (true, *sector, *count, info.max_discard_sectors),
            BlockRequest::WriteZeroes { sector, count, .. } => {
                (true, *sector, *count, info.max_write_zeroes_sectors)
            }
            BlockRequest::GetId { buffer } if buffer.len() < ID_BYTES => {
                return Err(Error::Request("the buffer for a name is shorter than 20 bytes"));
            }
            BlockRequest::Flush | BlockRequest::GetId { .. } => return Ok(()),
        };
        match () {
            () if is_write && info.read_only => Err(Error::Request("the device is read-only")),
            () if sectors == 0 => Err(Error::Request("it is about no sector")),
            () if sectors > limit => Err(Error::Request("it is longer than the device takes")),
            () if sector.checked_add(sectors.into()).is_none_or(|end| end > info.sectors) => {
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

    /// Takes the answers to those of `batch` that were sent in this queue, which is number `number`. If there is none, `waker` is
    /// called when there is one.
    ///
    /// # Errors
    /// The device lies.
    pub(super) fn take(&mut self, number: u16, batch: &mut Batch, waker: &Waker) -> Result<(), Fault> {
        self.requests.take()?;
        self.gather(number, batch);
        if batch.done.is_empty() {
            let here = batch.sent.iter().filter(|(_, token)| token.queue == number);
            here.for_each(|(_, token)| self.requests.wake_when_done(token, waker));
        }
        Ok(())
    }

    /// As [`take`](Self::take), for one who looks again and again and wants no interrupts meanwhile; whether there is something.
    ///
    /// # Errors
    /// The device lies.
    pub(super) fn look(&mut self, number: u16, batch: &mut Batch) -> Result<bool, Fault> {
        self.requests.look()?;
        // An interrupt may have taken some.
        self.gather(number, batch);
        Ok(!batch.done.is_empty())
    }

    fn gather(&mut self, number: u16, batch: &mut Batch) {
        let mut at = 0;
        while self.requests.has_answers()
            && let Some((_, token)) = batch.sent.get(at)
        {
            if token.queue == number
                && self.requests.is_done(token)
                && let Some((tag, token)) = batch.sent.remove(at)
            {
                batch.done.push_back((tag, self.take_outcome(token)));
            } else {
                at += 1;
            }
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
