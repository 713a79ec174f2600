//! Split virtqueue: a table of descriptors, a ring of what is available, a ring of what is used (VirtIO 1.3 §2.7).
//!
//! The table that the device sees is written and never read: who owns which descriptor stands in `shadow`.
//! Neighbours: `packed` (the other format, the same operations), `mod` (which of them a queue has).
#![forbid(unsafe_code)]

use core::sync::atomic::Ordering::Relaxed;

use super::{
    Full, Used,
    base::Base,
    event_idx::has_passed,
    layout::{INDIRECT, Layout, NEXT, direction_flag, writable_bytes, write_descriptor},
    order,
};
use crate::{
    dma::Segment,
    error::Error,
    hal::Hal,
    virtio::{Fault, Features},
};

/// The device does not want to be notified (§2.7.10).
#[doc(alias = "VIRTQ_USED_F_NO_NOTIFY")]
const NO_NOTIFY: u16 = 1;
/// The driver does not want to be interrupted (§2.7.7).
#[doc(alias = "VIRTQ_AVAIL_F_NO_INTERRUPT")]
const NO_INTERRUPT: u16 = 1;

/// Fields of the rings: flags, index, entries (§2.7.6, §2.7.8).
const RING_INDEX: usize = 2;
const RING_ENTRIES: usize = 4;

/// Flags of a descriptor in a table, and the next one (§2.7.5.3.1).
fn chained(flag: u16, number: u16, last: u16) -> [u16; 2] {
    if number < last { [flag | NEXT, number + 1] } else { [flag, 0] }
}

/// A split virtqueue.
#[derive(Debug)]
pub(super) struct Split {
    base: Base,
    /// Index of the available ring: all ever made available, modulo 65536.
    available: u16,
    /// Its value when the device was last asked whether it wants to know.
    notified: u16,
    /// Index of the used ring up to which it was read.
    used: u16,
}

impl Split {
    /// A queue of `size` descriptors, a power of two, for buffers of `parts` segments at most.
    pub(super) fn new(hal: &dyn Hal, (size, parts): (u16, usize), features: Features) -> Result<Self, Error> {
        let base = Base::new(hal, Layout::split(size), (size, parts), features)?;
        Ok(Self { base, available: 0, notified: 0, used: 0 })
    }

    pub(super) fn base(&self) -> &Base {
        &self.base
    }

    pub(super) fn base_mut(&mut self) -> &mut Base {
        &mut self.base
    }

    /// How far the ring has come, as a notification may tell it (§2.9).
    pub(super) fn position(&self) -> u16 {
        self.available
    }

    /// Makes a buffer available; gives its id, which no other buffer in flight has.
    pub(super) fn add(&mut self, segments: &[Segment]) -> Result<u16, Full> {
        let head = self.base.free_head;
        let table = self.base.indirect.as_ref().filter(|_| segments.len() > 1);
        let count = if table.is_some() { 1 } else { segments.len() as u16 };
        if count > self.base.free_count {
            return Err(Full);
        }
        let next_free = match table {
            Some(indirect) => {
                let (address, len_bytes) = indirect.write(head, segments, chained);
                self.write_descriptor(head, address, len_bytes, INDIRECT, 0);
                None
            }
            None => Some(self.write_chain(segments)),
        };
        let buffer = &mut self.base.shadow[usize::from(head)];
        (buffer.count, buffer.writable, buffer.frame) = (count, writable_bytes(segments), None);
        self.base.free_head = next_free.unwrap_or(buffer.next);
        self.publish(head, count);
        Ok(head)
    }

    /// As [`add`](Self::add), for a buffer of three segments. The first and the last, which `frame` gives, are the same whenever the
    /// buffer gets this id: its table keeps them, if there are tables.
    #[inline(always)]
    pub(super) fn add_framed(
        &mut self,
        frame: impl FnOnce(u16) -> [Segment; 2],
        data: Segment,
    ) -> Result<u16, Full> {
        let head = self.base.free_head;
        let buffer = &mut self.base.shadow[usize::from(head)];
        match (&self.base.indirect, buffer.frame) {
            (Some(indirect), Some(writable)) if self.base.free_count > 0 => {
                indirect.write_one(head, 1, &data, chained(direction_flag(&data), 1, 2));
                buffer.count = 1;
                buffer.writable = writable.saturating_add(writable_bytes(&[data]));
                self.base.free_head = buffer.next;
                self.publish(head, 1);
                Ok(head)
            }
            _ => self.add_with_frame(frame(head), data),
        }
    }

    /// Makes a buffer available, and has its table keep what lies around `data`.
    #[cold]
    fn add_with_frame(&mut self, [first, last]: [Segment; 2], data: Segment) -> Result<u16, Full> {
        let head = self.add(&[first, data, last])?;
        self.base.shadow[usize::from(head)].frame = Some(writable_bytes(&[first, last]));
        Ok(head)
    }

    /// Makes the buffer `head` of `count` descriptors public, when all of it is written.
    #[inline(always)]
    fn publish(&mut self, head: u16, count: u16) {
        self.base.free_count -= count;
        self.base.in_flight += 1;
        let entry = self.base.layout.driver + RING_ENTRIES + 2 * self.slot(self.available);
        self.base.memory.u16(entry).store(head, Relaxed);
        self.available = self.available.wrapping_add(1);
        order::publish(self.base.memory.u16(self.base.layout.driver + RING_INDEX), self.available);
    }

    /// Writes the descriptors of a buffer; gives the first one that it did not need.
    fn write_chain(&self, segments: &[Segment]) -> u16 {
        segments.iter().enumerate().fold(self.base.free_head, |index, (number, segment)| {
            let next = self.base.shadow[usize::from(index)].next;
            let more = if number + 1 < segments.len() { NEXT } else { 0 };
            let flags = direction_flag(segment) | more;
            self.write_descriptor(index, segment.address(), segment.len_bytes(), flags, next);
            next
        })
    }

    #[inline]
    fn write_descriptor(&self, index: u16, address: u64, len_bytes: u32, flags: u16, next: u16) {
        // They are the first in the memory.
        let descriptor = self.base.memory.piece(index.into());
        write_descriptor(descriptor.words(), (address, len_bytes), [flags, next]);
    }

    /// Whether the device wants to know of what was made available since the last call (§2.7.10.1).
    #[inline]
    pub(super) fn take_should_notify(&mut self) -> bool {
        let old = core::mem::replace(&mut self.notified, self.available);
        if old == self.available {
            return false;
        }
        if self.base.event_idx {
            let event = self.base.layout.device + RING_ENTRIES + 8 * usize::from(self.base.size);
            has_passed(
                order::wish_of_other(self.base.memory.u16(event), self.base.fence),
                old,
                self.available,
            )
        } else {
            order::wish_of_other(self.base.memory.u16(self.base.layout.device), self.base.fence) & NO_NOTIFY
                == 0
        }
    }

    /// The next used buffer, of which everything was checked.
    pub(super) fn pop(&mut self) -> Result<Option<Used>, Fault> {
        if self.pending()? == 0 { Ok(None) } else { self.pop_pending().map(Some) }
    }

    /// Used buffers that were not popped. Their entries, and what the device wrote to them, are read after this.
    #[inline]
    pub(super) fn pending(&self) -> Result<u16, Fault> {
        let index = order::observe(self.base.memory.u16(self.base.layout.device + RING_INDEX));
        match index.wrapping_sub(self.used) {
            pending if pending <= self.base.in_flight => Ok(pending),
            pending => Err(Fault::UsedTooMany { used: pending, in_flight: self.base.in_flight }),
        }
    }

    /// The next used buffer, of those that are [pending](Self::pending).
    #[inline(always)]
    pub(super) fn pop_pending(&mut self) -> Result<Used, Fault> {
        let (id, len_bytes) = self.used_entry();
        let head = self.base.known(id).ok_or(Fault::UsedId { id })?;
        let limit = self.base.shadow[usize::from(head)].writable;
        if len_bytes > limit {
            return Err(Fault::UsedLength { found: len_bytes, limit });
        }
        self.used = self.used.wrapping_add(1);
        self.take_back(head);
        Ok(Used { id: head, len_bytes: Some(len_bytes), unwritten: limit - len_bytes })
    }

    /// Id and length in the next used entry.
    #[inline]
    fn used_entry(&self) -> (u32, u32) {
        let offset = self.base.layout.device + RING_ENTRIES + 8 * self.slot(self.used);
        let entry = self.base.memory.u64(offset).load(Relaxed);
        (entry as u32, (entry >> 32) as u32)
    }

    /// The id of the buffer that the next used entry names and how many entries the device has used, as it says;
    /// for devices that use in order, which may tell the last one of several only (§2.7.9).
    pub(super) fn peek(&self) -> Result<Option<(u32, u32)>, Fault> {
        Ok((self.pending()? > 0).then(|| self.used_entry()))
    }

    /// Takes back a buffer in the middle of those that the device used in order.
    pub(super) fn skip(&mut self, id: u16) -> Option<u32> {
        let id = self.base.known(id.into())?;
        self.used = self.used.wrapping_add(1);
        let writable = self.base.shadow[usize::from(id)].writable;
        self.take_back(id);
        Some(writable)
    }

    /// Frees the descriptors of the buffer `head`, which the device has.
    #[inline(always)]
    fn take_back(&mut self, head: u16) {
        let count = core::mem::take(&mut self.base.shadow[usize::from(head)].count);
        let last = (1..count).fold(head, |index, _| self.base.shadow[usize::from(index)].next);
        if self.base.free_count == 0 {
            self.base.free_head = head;
        } else {
            self.base.shadow[usize::from(self.base.free_tail)].next = head;
        }
        self.base.free_tail = last;
        self.base.free_count += count;
        self.base.in_flight -= 1;
    }

    /// Wants no interrupts until [`ask_for_interrupt`](Self::ask_for_interrupt): by the flag, or, with the event index, by
    /// naming the one that the device has just passed (§2.7.7).
    pub(super) fn suppress_interrupts(&mut self) {
        if self.base.event_idx {
            self.base.memory.u16(self.event_place()).store(self.used.wrapping_sub(1), Relaxed);
        } else {
            self.base.memory.u16(self.base.layout.driver).store(NO_INTERRUPT, Relaxed);
        }
    }

    /// Where the driver says when it wants to be told.
    fn event_place(&self) -> usize {
        self.base.layout.driver + RING_ENTRIES + 2 * usize::from(self.base.size)
    }

    /// Asks to be interrupted at the next used buffer; true if there is one by now, which may raise none.
    pub(super) fn ask_for_interrupt(&mut self) -> bool {
        if self.base.event_idx {
            order::wish(self.base.memory.u16(self.event_place()), self.used, self.base.fence);
        } else {
            order::wish(self.base.memory.u16(self.base.layout.driver), 0, self.base.fence);
        }
        self.base.memory.u16(self.base.layout.device + RING_INDEX).load(Relaxed) != self.used
    }

    fn slot(&self, index: u16) -> usize {
        usize::from(index & (self.base.size - 1))
    }
}
