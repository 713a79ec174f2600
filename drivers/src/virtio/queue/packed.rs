//! Packed virtqueue: one ring of descriptors that both sides write (VirtIO 1.3 §2.8).
//!
//! A descriptor is available or used by two bits that are compared with a wrap counter, which flips at the end of
//! the ring. Of what the device writes, id and length of a used descriptor are read, once, and checked against
//! `shadow`. Neighbours: `split` (the other format), `mod` (which of them a queue has).
#![forbid(unsafe_code)]

use core::sync::atomic::Ordering::Relaxed;

use super::{
    Full, Used,
    base::Base,
    event_idx::has_passed,
    layout::{DESCRIPTOR_BYTES, INDIRECT, Layout, NEXT, direction_flag, writable_bytes},
    order,
};
use crate::{
    dma::Segment,
    error::Error,
    hal::Hal,
    virtio::{Fault, Features},
};

/// Equal to the driver's wrap counter in an available descriptor (§2.8.1).
#[doc(alias = "VIRTQ_DESC_F_AVAIL")]
const AVAIL: u16 = 1 << 7;
/// Equal to [`AVAIL`] in a used one.
#[doc(alias = "VIRTQ_DESC_F_USED")]
const USED: u16 = 1 << 15;

/// Event suppression (§2.8.14): what the other side wants to be told of.
#[doc(alias = "RING_EVENT_FLAGS_ENABLE")]
const EVENT_ENABLE: u16 = 0;
#[doc(alias = "RING_EVENT_FLAGS_DISABLE")]
const EVENT_DISABLE: u16 = 1;
#[doc(alias = "RING_EVENT_FLAGS_DESC")]
const EVENT_DESC: u16 = 2;
/// The wrap counter in the offset word of an event suppression structure, and in a position.
const WRAP: u16 = 1 << 15;

/// A place in the ring: number of the descriptor and wrap counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    index: u16,
    wrap: bool,
}

impl Position {
    const START: Self = Self { index: 0, wrap: true };

    /// `steps` further in a ring of `size`; `steps` is not more than that.
    fn after(self, steps: u16, size: u16) -> Self {
        match u32::from(self.index) + u32::from(steps) {
            index if index < size.into() => Self { index: index as u16, ..self },
            index => Self { index: (index - u32::from(size)) as u16, wrap: !self.wrap },
        }
    }

    /// As the event suppression structure has it.
    fn word(self) -> u16 {
        self.index | if self.wrap { WRAP } else { 0 }
    }

    /// Flags of a descriptor that becomes available here.
    fn available(self) -> u16 {
        if self.wrap { AVAIL } else { USED }
    }

    /// Whether a descriptor here with these flags is used.
    fn is_used(self, flags: u16) -> bool {
        let (avail, used) = (flags & AVAIL != 0, flags & USED != 0);
        avail == used && used == self.wrap
    }
}

/// A packed virtqueue.
#[derive(Debug)]
pub(super) struct Packed {
    base: Base,
    next_available: Position,
    /// Descriptors made available since the device was last asked whether it wants to know.
    added: u16,
    next_used: Position,
}

impl Packed {
    /// A queue of `size` descriptors, 32768 at most, for buffers of `parts` segments at most.
    pub(super) fn new(hal: &dyn Hal, (size, parts): (u16, usize), features: Features) -> Result<Self, Error> {
        let base = Base::new(hal, Layout::packed(size), (size, parts), features)?;
        Ok(Self { base, next_available: Position::START, added: 0, next_used: Position::START })
    }

    pub(super) fn base(&self) -> &Base {
        &self.base
    }

    pub(super) fn base_mut(&mut self) -> &mut Base {
        &mut self.base
    }

    /// How far the ring has come, as a notification may tell it (§2.9).
    pub(super) fn position(&self) -> u16 {
        self.next_available.word()
    }

    /// Makes a buffer available; gives its id, which no other buffer in flight has.
    pub(super) fn add(&mut self, segments: &[Segment]) -> Result<u16, Full> {
        let id = self.base.free_head;
        let table = match &self.base.indirect {
            Some(indirect) if segments.len() > 1 => Some(indirect),
            _ => None,
        };
        let count = if table.is_some() { 1 } else { segments.len() as u16 };
        if count > self.base.free_count {
            return Err(Full);
        }
        let first = self.next_available;
        let first_flags = match table {
            Some(indirect) => {
                let (address, len_bytes) = indirect.write(id, segments, |flag, _, _| [0, flag]);
                self.write_descriptor(first, address, len_bytes, id);
                INDIRECT
            }
            None => self.write_chain(id, segments),
        };
        let buffer = &mut self.base.shadow[usize::from(id)];
        (buffer.count, buffer.writable) = (count, writable_bytes(segments));
        self.base.free_head = buffer.next;
        self.base.free_count -= count;
        self.base.in_flight += 1;
        self.added += count;
        self.next_available = first.after(count, self.base.size);
        // The first descriptor becomes available last (§2.8.21.1): whoever sees it sees all the others.
        order::publish(self.base.memory.u16(self.offset(first) + 14), first_flags | first.available());
        Ok(id)
    }

    /// Writes the descriptors of a buffer, but for the flags of the first, which are returned.
    fn write_chain(&self, id: u16, segments: &[Segment]) -> u16 {
        let mut first_flags = 0;
        for (number, segment) in segments.iter().enumerate() {
            let place = self.next_available.after(number as u16, self.base.size);
            let more = if number + 1 < segments.len() { NEXT } else { 0 };
            let flags = direction_flag(segment) | more;
            self.write_descriptor(place, segment.address(), segment.len_bytes(), id);
            if number == 0 {
                first_flags = flags;
            } else {
                self.base.memory.u16(self.offset(place) + 14).store(flags | place.available(), Relaxed);
            }
        }
        first_flags
    }

    fn write_descriptor(&self, place: Position, address: u64, len_bytes: u32, id: u16) {
        let offset = self.offset(place);
        self.base.memory.u64(offset).store(address, Relaxed);
        self.base.memory.u32(offset + 8).store(len_bytes, Relaxed);
        self.base.memory.u16(offset + 12).store(id, Relaxed);
    }

    /// Whether the device wants to know of what was made available since the last call (§2.8.10).
    pub(super) fn take_should_notify(&mut self) -> bool {
        let added = core::mem::take(&mut self.added);
        if added == 0 {
            return false;
        }
        let event = order::wish_of_other(self.base.memory.u32(self.base.layout.device), self.base.fence);
        let (offset, flags) = (event as u16, (event >> 16) as u16 & 3);
        if flags != EVENT_DESC || !self.base.event_idx {
            return flags != EVENT_DISABLE;
        }
        // Both indices on one line: an event with the other wrap counter lies one ring back.
        let same_wrap = (offset & WRAP != 0) == self.next_available.wrap;
        let event = (offset & !WRAP).wrapping_sub(if same_wrap { 0 } else { self.base.size });
        let new = self.next_available.index;
        has_passed(event, new.wrapping_sub(added), new)
    }

    /// The next used buffer, of which everything was checked.
    pub(super) fn pop(&mut self) -> Result<Option<Used>, Fault> {
        let Some((id, len_bytes)) = self.peek()? else { return Ok(None) };
        let buffer = self.base.known(id).ok_or(Fault::UsedId { id })?;
        let limit = self.base.shadow[usize::from(buffer)].writable;
        if len_bytes > limit {
            return Err(Fault::UsedLength { found: len_bytes, limit });
        }
        self.take_back(buffer);
        Ok(Some(Used { id: buffer, len_bytes: Some(len_bytes), unwritten: limit - len_bytes }))
    }

    /// The id and the length in the next used descriptor, as the device says; for devices that use in order, which
    /// may tell the last one of several only (§2.8.9).
    pub(super) fn peek(&self) -> Result<Option<(u32, u32)>, Fault> {
        if self.base.in_flight == 0 {
            return Ok(None);
        }
        let offset = self.offset(self.next_used);
        // Id, length, and what the device wrote to the buffer, are read after the flags.
        let flags = order::observe(self.base.memory.u16(offset + 14));
        let word = || {
            (self.base.memory.u16(offset + 12).load(Relaxed), self.base.memory.u32(offset + 8).load(Relaxed))
        };
        Ok(self.next_used.is_used(flags).then(word).map(|(id, len_bytes)| (id.into(), len_bytes)))
    }

    /// Takes back a buffer in the middle of those that the device used in order.
    pub(super) fn skip(&mut self, id: u16) -> Option<u32> {
        let id = self.base.known(id.into())?;
        let writable = self.base.shadow[usize::from(id)].writable;
        self.take_back(id);
        Some(writable)
    }

    /// Frees id and descriptors of the buffer `id`, which the device has.
    fn take_back(&mut self, id: u16) {
        let count = core::mem::take(&mut self.base.shadow[usize::from(id)].count);
        // Without free descriptors there may still be free ids, if buffers have several descriptors each.
        if self.base.in_flight == self.base.size {
            self.base.free_head = id;
        } else {
            self.base.shadow[usize::from(self.base.free_tail)].next = id;
        }
        self.base.free_tail = id;
        self.base.free_count += count;
        self.base.in_flight -= 1;
        self.next_used = self.next_used.after(count, self.base.size);
    }

    /// Wants no interrupts until [`ask_for_interrupt`](Self::ask_for_interrupt).
    pub(super) fn suppress_interrupts(&mut self) {
        self.base.memory.u32(self.base.layout.driver).store(u32::from(EVENT_DISABLE) << 16, Relaxed);
    }

    /// Asks to be interrupted at the next used buffer; true if there is one by now, which may raise none.
    pub(super) fn ask_for_interrupt(&mut self) -> bool {
        let wish = match self.base.event_idx {
            true => u32::from(self.next_used.word()) | u32::from(EVENT_DESC) << 16,
            false => u32::from(EVENT_ENABLE) << 16,
        };
        order::wish(self.base.memory.u32(self.base.layout.driver), wish, self.base.fence);
        matches!(self.peek(), Ok(Some(_)))
    }

    fn offset(&self, place: Position) -> usize {
        self.base.layout.descriptors + usize::from(place.index) * DESCRIPTOR_BYTES
    }
}
