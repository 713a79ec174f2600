//! Requests on their way to the device.
//! Neighbours: `table` (where they wait for the answer), `queue` (the ring).
#![forbid(unsafe_code)]

use super::{Area, For, NoRoom, Requests, Token};
use crate::dma::{DmaBuffer, Segment};

/// The buffer comes back if nothing was sent.
pub(in crate::virtio) type Sent = Result<Token, (NoRoom, Option<DmaBuffer>)>;

impl Requests {
    /// The own memory of the request to be sent next; else why it cannot be sent.
    #[inline(always)]
    pub(in crate::virtio) fn room(&self) -> Result<Area<'_>, NoRoom> {
        if let Some(error) = self.fault {
            return Err(NoRoom::Dead(error));
        }
        let id = self.queue.next_id().filter(|_| self.table.places() > 0).ok_or(NoRoom::Full)?;
        Ok(self.areas.piece(id.into()))
    }

    /// Makes a request available, with its buffer and the bytes of it that the device is to fill. The device is to be
    /// [told](Self::take_notification).
    pub(in crate::virtio) fn send(
        &mut self,
        segments: &[Segment],
        data: (Option<DmaBuffer>, usize),
        whom: For<'_>,
    ) -> Sent {
        match self.reserve() {
            Ok(entry) => {
                let is_sent = self.queue.add(segments, entry).is_ok();
                self.note(is_sent, entry, data, whom)
            }
            Err(why) => Err((why, data.0)),
        }
    }

    /// As [`send`](Self::send), for a request of three segments of which the first and the last lie in its own memory, where `frame`
    /// says.
    #[inline(always)]
    pub(in crate::virtio) fn send_framed(
        &mut self,
        frame: impl FnOnce(Area<'_>) -> [Segment; 2],
        segment: Segment,
        data: (Option<DmaBuffer>, usize),
        whom: For<'_>,
    ) -> Sent {
        match self.reserve() {
            Ok(entry) => {
                let frame = |id: u16| frame(self.areas.piece(id.into()));
                let is_sent = self.queue.add_framed(frame, segment, entry).is_ok();
                self.note(is_sent, entry, data, whom)
            }
            Err(why) => Err((why, data.0)),
        }
    }

    #[inline(always)]
    fn reserve(&mut self) -> Result<u16, NoRoom> {
        match self.fault {
            None => self.table.reserve().ok_or(NoRoom::Full),
            Some(error) => Err(NoRoom::Dead(error)),
        }
    }

    /// A request was sent, for which `entry` was reserved, or not.
    #[inline(always)]
    fn note(&mut self, is_sent: bool, entry: u16, data: (Option<DmaBuffer>, usize), whom: For<'_>) -> Sent {
        if !is_sent {
            self.table.put_back(entry);
            return Err((NoRoom::Full, data.0));
        }
        self.table.fill(entry, data, whom);
        self.untold += 1;
        Ok(Token { queue: self.index, entry })
    }
}
