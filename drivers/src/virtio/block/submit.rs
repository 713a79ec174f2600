//! Requests on their way into a queue (VirtIO 1.3 §5.2.6). Reads and writes, of which there are most, have a way of their own that is
//! compiled as one function.
//! Neighbours: `request` (a request as the device reads it), `queue` (what becomes of it).
#![forbid(unsafe_code)]

use super::{
    queue::Queue,
    request::{HEADER, Head, ID_BYTES, RANGE, STATUS, Type, sectors},
};
use crate::{
    class::{BlockRequest, Outcome, SECTOR_BYTES, Submitted},
    dma::{Direction, DmaBuffer, Segment},
    error::Error,
    virtio::requests::{Area, For, NoRoom},
};

impl Queue {
    /// Makes a request available to the device, which is to be told of it.
    #[inline]
    pub(super) fn submit(
        &mut self,
        request: BlockRequest,
        whom: For<'_>,
    ) -> Submitted<BlockRequest, Outcome> {
        match Head::split(request) {
            (head, Some(buffer)) if matches!(head.kind, Type::In | Type::Out) => {
                self.transfer(head, buffer, whom)
            }
            (head, buffer) => self.command(head, buffer, whom),
        }
    }

    /// A request to read or write sectors.
    #[inline(always)]
    fn transfer(&mut self, head: Head, buffer: DmaBuffer, whom: For<'_>) -> Submitted<BlockRequest, Outcome> {
        if let Err(error) = self.check_transfer(&head, &buffer) {
            return Submitted::Refused(Outcome { result: Err(error), buffer: Some(buffer) });
        }
        let area = match self.requests.room() {
            Ok(area) => area,
            Err(why) => return not_sent(why, head, Some(buffer)),
        };
        head.write(area);
        let data_bytes = head.data_bytes(&buffer);
        let segment = buffer.whole(head.direction());
        match self.requests.send_framed(frame, segment, (Some(buffer), data_bytes), whom) {
            Ok(token) => Submitted::Sent(token),
            Err((why, buffer)) => not_sent(why, head, buffer),
        }
    }

    /// A request of another kind.
    #[cold]
    fn command(
        &mut self,
        head: Head,
        buffer: Option<DmaBuffer>,
        whom: For<'_>,
    ) -> Submitted<BlockRequest, Outcome> {
        if let Err(error) = self.check_command(&head, buffer.as_ref()) {
            return Submitted::Refused(Outcome { result: Err(error), buffer });
        }
        let area = match self.requests.room() {
            Ok(area) => area,
            Err(why) => return not_sent(why, head, buffer),
        };
        head.write(area);
        let [header, status] = frame(area);
        let (data, data_bytes) = match &buffer {
            Some(buffer) => (buffer.segment(0..ID_BYTES, Direction::FromDevice), ID_BYTES),
            None => (area.segment(RANGE, Direction::ToDevice), 0),
        };
        let has_data = buffer.is_some() || head.has_range();
        let segments: &[_] = if has_data { &[header, data, status] } else { &[header, status] };
        match self.requests.send(segments, (buffer, data_bytes), whom) {
            Ok(token) => Submitted::Sent(token),
            Err((why, buffer)) => not_sent(why, head, buffer),
        }
    }

    /// Whether the device can be asked this.
    fn check_command(&self, head: &Head, buffer: Option<&DmaBuffer>) -> Result<(), Error> {
        let limit = match head.kind {
            Type::Discard => self.info.max_discard_sectors,
            Type::WriteZeroes => self.info.max_write_zeroes_sectors,
            _ if buffer.is_some_and(|buffer| buffer.len() < ID_BYTES) => {
                return Err(Error::Request("the buffer for a name is shorter than 20 bytes"));
            }
            _ => return Ok(()),
        };
        self.check_range(head, head.count, limit)
    }

    /// Whether the device can be asked to read or write these sectors.
    #[inline(always)]
    pub(super) fn check_transfer(&self, head: &Head, buffer: &DmaBuffer) -> Result<(), Error> {
        let limit = self.info.max_bytes / SECTOR_BYTES as u32;
        self.check_range(head, sectors(buffer.len())?, limit)
    }

    #[inline]
    fn check_range(&self, head: &Head, count: u32, limit: u32) -> Result<(), Error> {
        let info = &self.info;
        match () {
            () if info.read_only && head.kind != Type::In => Err(Error::Request("the device is read-only")),
            () if count == 0 => Err(Error::Request("it is about no sector")),
            () if count > limit => Err(Error::Request("it is longer than the device takes")),
            () if head.sector.checked_add(count.into()).is_none_or(|end| end > info.sectors) => {
                Err(Error::Request("it goes beyond the end of the device"))
            }
            () => Ok(()),
        }
    }
}

/// What lies around a request's data, in its own memory.
#[inline(always)]
pub(super) fn frame(area: Area<'_>) -> [Segment; 2] {
    [area.segment(HEADER, Direction::ToDevice), area.segment(STATUS, Direction::FromDevice)]
}

#[cold]
fn not_sent(why: NoRoom, head: Head, buffer: Option<DmaBuffer>) -> Submitted<BlockRequest, Outcome> {
    match why {
        NoRoom::Full => Submitted::Full(head.into_request(buffer)),
        NoRoom::Dead(error) => Submitted::Refused(Outcome { result: Err(error), buffer }),
    }
}
