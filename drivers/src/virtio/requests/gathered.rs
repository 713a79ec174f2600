//! Several requests of a batch that are one to the device: each has a place of its own, and what the device answers is of all of them.
//! Neighbours: `table` (all places), `send` (requests that go alone).
#![forbid(unsafe_code)]

use super::{
    NoRoom, Requests,
    entry::{For, Gathered},
    table::Table,
};
use crate::{
    class::BatchId,
    dma::{DmaBuffer, Segment},
};

/// One of the requests that are gathered.
pub(in crate::virtio) struct Member {
    /// By which its batch knows it.
    pub(in crate::virtio) tag: u64,
    pub(in crate::virtio) buffer: DmaBuffer,
    /// Bytes of the buffer that the device is to fill.
    pub(in crate::virtio) data_bytes: usize,
    /// Where on the device it begins, for who asks for it again.
    pub(in crate::virtio) from: u64,
}

impl Requests {
    /// Requests that there are places for.
    pub(in crate::virtio) fn places(&self) -> usize {
        self.table.places()
    }

    /// Makes one request of `segments` available for the first `count` of `members`, for which there must be [places](Self::places).
    /// The device is to be [told](Self::take_notification).
    ///
    /// # Errors
    /// There is no room in the ring: none is taken.
    pub(in crate::virtio) fn send_gathered(
        &mut self,
        segments: &[Segment],
        batch: BatchId,
        members: impl Iterator<Item = Member>,
        count: usize,
    ) -> Result<(), NoRoom> {
        let first = self.table.next_place().ok_or(NoRoom::Full)?;
        self.queue.add(segments, first).map_err(|_| NoRoom::Full)?;
        self.untold += count as u16;
        // Not one member more is asked for than there are numbers.
        for (others, Member { tag, buffer, data_bytes, from }) in (0..count).rev().zip(members) {
            let Some(place) = self.table.reserve() else { return Ok(()) };
            let next = self.table.next_place().filter(|_| others > 0);
            self.table.fill(place, (Some(buffer), data_bytes), For::Batch(batch, tag));
            self.table.gather(place, Gathered { next, from });
        }
        Ok(())
    }
}

impl Table {
    /// Places that are free.
    #[inline]
    pub(super) fn places(&self) -> usize {
        self.free.len()
    }

    /// The place that is [reserved](Self::reserve) next.
    fn next_place(&self) -> Option<u16> {
        self.free.last().copied()
    }

    /// The request in the place is one of several.
    #[inline(always)]
    fn gather(&mut self, index: u16, gathered: Gathered) {
        self.entries[usize::from(index)].gathered = Some(gathered);
    }

    /// Does `act` with the place `first`, and with those of the requests that were gathered with its own.
    #[inline(always)]
    pub(super) fn each_gathered(&mut self, first: u16, mut act: impl FnMut(&mut Self, u16)) {
        let mut place = Some(first);
        while let Some(index) = place {
            place = self.entries[usize::from(index)].gathered.and_then(|gathered| gathered.next);
            act(self, index);
        }
    }
}
