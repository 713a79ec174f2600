//! A virtqueue: buffers go to the device and come back, in one of two ring formats (VirtIO 1.3 §2.6 to §2.9).
//!
//! [`Queue`] keeps a value for each buffer that the device has, and gives it back exactly once. It allocates when it
//! is made and never after. Nothing is read back that the driver wrote; what the device wrote is checked once, in
//! `pop`. Files: `layout` (what lies where), `split` and `packed` (the formats), `base` (what both have), `order` (what is ordered, and why),
//! `indirect`, `event_idx`.
#![forbid(unsafe_code)]

mod base;
mod event_idx;
mod indirect;
pub mod layout;
mod order;
mod packed;
mod split;

use alloc::{boxed::Box, collections::VecDeque};

use self::{layout::Layout, packed::Packed, split::Split};
use super::{Fault, Features};
use crate::{
    dma::{Dma, Segment},
    error::Error,
    hal::Hal,
};

/// Parts that a buffer has at most, but in a queue that is made for more.
pub const MAX_SEGMENTS: usize = 4;
/// Descriptors that a queue gets at most, whatever the device offers: more than are needed to keep it busy.
pub const MAX_SIZE: u16 = 256;

/// Where the device finds a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Descriptors.
    pub size: u16,
    /// Descriptor area.
    pub descriptors: u64,
    /// Driver area.
    pub driver: u64,
    /// Device area.
    pub device: u64,
}

impl Addresses {
    fn new(memory: &Dma, layout: &Layout, size: u16) -> Self {
        let at = |offset: usize| memory.address() + offset as u64;
        Self {
            size,
            descriptors: at(layout.descriptors),
            driver: at(layout.driver),
            device: at(layout.device),
        }
    }
}

/// There is no room for one more buffer until one comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// A buffer that came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Used {
    pub(super) id: u16,
    /// Bytes that the device says it wrote, if it says so.
    pub(super) len_bytes: Option<u32>,
    /// Bytes that it might have written, and says that it has not.
    pub(super) unwritten: u32,
}

#[derive(Debug)]
enum Ring {
    Split(Split),
    Packed(Packed),
}

macro_rules! each {
    ($ring:expr, $queue:ident => $act:expr) => {
        match $ring {
            Ring::Split($queue) => $act,
            Ring::Packed($queue) => $act,
        }
    };
}

/// A virtqueue whose buffers carry a `T` each.
#[derive(Debug)]
pub struct Queue<T> {
    ring: Ring,
    values: Box<[Option<T>]>,
    /// Segments that a buffer has at most.
    parts: usize,
    /// Ids of the buffers that the device has, oldest first, if it has to use them in order.
    in_order: Option<VecDeque<u16>>,
    /// While these are left, the oldest buffers were used, whatever the ring says.
    in_order_used: Option<(u16, u32)>,
    counts: Counts,
}

/// What a queue has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Buffers made available.
    pub buffers: u64,
    /// Notifications sent to the device.
    pub notifications: u64,
}

impl core::ops::Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            buffers: self.buffers + other.buffers,
            notifications: self.notifications + other.notifications,
        }
    }
}

/// The largest size for a queue of which the device takes `offered` descriptors.
pub fn size(offered: u32, features: Features) -> Option<u16> {
    let most = offered.min(MAX_SIZE.into()) as u16;
    match most {
        0 => None,
        // Only a packed queue may have any size (§2.8.10.1).
        _ if features.contains(Features::RING_PACKED) => Some(most),
        _ => Some(1 << most.ilog2()),
    }
}

impl<T> Queue<T> {
    /// A queue of `size` descriptors, as [`size()`] gives it, for buffers of [`MAX_SEGMENTS`].
    ///
    /// # Errors
    /// No memory.
    pub fn new(hal: &dyn Hal, size: u16, features: Features) -> Result<Self, Error> {
        Self::with_parts(hal, (size, MAX_SEGMENTS), features)
    }

    /// As [`new`](Self::new), for buffers of so many segments each at most as the second number tells.
    ///
    /// # Errors
    /// No memory.
    pub(super) fn with_parts(
        hal: &dyn Hal,
        (size, parts): (u16, usize),
        features: Features,
    ) -> Result<Self, Error> {
        let ring = if features.contains(Features::RING_PACKED) {
            Ring::Packed(Packed::new(hal, (size, parts), features)?)
        } else {
            Ring::Split(Split::new(hal, (size, parts), features)?)
        };
        let in_order = features.contains(Features::IN_ORDER);
        Ok(Self {
            ring,
            values: (0..size).map(|_| None).collect(),
            parts,
            in_order: in_order.then(|| VecDeque::with_capacity(size.into())),
            in_order_used: None,
            counts: Counts::default(),
        })
    }

    /// Where it lies, for the device.
    pub fn addresses(&self) -> Addresses {
        each!(&self.ring, ring => ring.base()).addresses()
    }

    /// Descriptors.
    pub fn size(&self) -> u16 {
        each!(&self.ring, ring => ring.base()).size
    }

    /// Descriptors, and segments that a buffer has at most.
    pub(super) fn shape(&self) -> (u16, usize) {
        (self.size(), self.parts)
    }

    /// What it has done so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Goes on counting where the queue that this one replaces has left off.
    pub fn carry_on(&mut self, counts: Counts) {
        self.counts = counts;
    }

    /// Makes a buffer of `segments` available to the device; those it reads come first (§2.6.4.2). `value` comes
    /// back with it.
    ///
    /// # Errors
    /// [`Full`], with the value.
    ///
    /// # Panics
    /// If there is no segment or are more than the queue was made for.
    pub fn add(&mut self, segments: &[Segment], value: T) -> Result<(), (Full, T)> {
        assert!((1..=self.parts).contains(&segments.len()));
        let added = each!(&mut self.ring, ring => ring.add(segments));
        self.note(added, value)
    }

    /// As [`add`](Self::add), for a buffer of three segments of which the first and the last are the same whenever a buffer gets its
    /// id, as `frame` tells: a queue may keep them.
    #[inline(always)]
    pub(super) fn add_framed(
        &mut self,
        frame: impl FnOnce(u16) -> [Segment; 2],
        data: Segment,
        value: T,
    ) -> Result<(), (Full, T)> {
        let added = match &mut self.ring {
            Ring::Split(ring) => ring.add_framed(frame, data),
            Ring::Packed(ring) => {
                let [first, last] = frame(ring.base().free_head);
                ring.add(&[first, data, last])
            }
        };
        self.note(added, value)
    }

    /// The id of the buffer that is added next, if there is room for one of a single descriptor at least.
    #[inline]
    pub(super) fn next_id(&self) -> Option<u16> {
        let base = each!(&self.ring, ring => ring.base());
        (base.free_count > 0).then_some(base.free_head)
    }

    /// A buffer was added, or not.
    #[inline(always)]
    fn note(&mut self, added: Result<u16, Full>, value: T) -> Result<(), (Full, T)> {
        let id = match added {
            Ok(id) => id,
            Err(full) => return Err((full, value)),
        };
        self.values[usize::from(id)] = Some(value);
        if let Some(order) = &mut self.in_order {
            order.push_back(id);
        }
        self.counts.buffers += 1;
        Ok(())
    }

    /// The ring's position, if the device wants to know of what was added since the last call (§2.9).
    #[inline]
    pub fn take_notification(&mut self) -> Option<u16> {
        each!(&mut self.ring, ring => ring.take_should_notify()).then(|| {
            self.counts.notifications += 1;
            each!(&self.ring, ring => ring.position())
        })
    }

    /// Buffers that the device has.
    pub fn in_flight(&self) -> u16 {
        each!(&self.ring, ring => ring.base()).in_flight
    }

    /// The next buffer that the device has used: its value and the bytes that the device says it wrote. A device
    /// that uses in order need not say it for each: `None` then.
    ///
    /// # Errors
    /// The device lies. The queue must not be used any more, but for [`drain`](Self::drain).
    pub fn pop(&mut self) -> Result<Option<(T, Option<u32>)>, Fault> {
        let Some(Used { id, len_bytes, .. }) = self.pop_used()? else { return Ok(None) };
        Ok(Some((take_value(&mut self.values, id)?, len_bytes)))
    }

    /// The next buffer that the device has used.
    fn pop_used(&mut self) -> Result<Option<Used>, Fault> {
        match &self.in_order {
            Some(_) => self.pop_in_order(),
            None => each!(&mut self.ring, ring => ring.pop()),
        }
    }

    /// Gives `take` the buffers that the device has used by now, each with its value, as long as that wants more; says how many. It is not
    /// more than the queue holds: a device cannot keep the caller for ever.
    ///
    /// # Errors
    /// As [`pop`](Self::pop).
    #[inline(always)]
    pub(super) fn pop_all(&mut self, mut take: impl FnMut(Used, T) -> bool) -> Result<u16, Fault> {
        let most = match (&self.ring, &self.in_order) {
            (Ring::Split(ring), None) => ring.pending()?,
            _ => self.size(),
        };
        for taken in 0..most {
            let used = match (&mut self.ring, &self.in_order) {
                // What a split ring has used is known from the start.
                (Ring::Split(ring), None) => Some(ring.pop_pending()?),
                _ => self.pop_used()?,
            };
            let Some(used) = used else { return Ok(taken) };
            if !take(used, take_value(&mut self.values, used.id)?) {
                return Ok(taken + 1);
            }
        }
        Ok(most)
    }

    /// The oldest buffer, if the ring names it or a younger one: that one was used last (§2.7.9, §2.8.9).
    fn pop_in_order(&mut self) -> Result<Option<Used>, Fault> {
        let (last, len_bytes) = match self.in_order_used {
            Some(used) => used,
            None => {
                let Some((id, len_bytes)) = each!(&self.ring, ring => ring.peek())? else { return Ok(None) };
                let known = self.in_order.iter().flatten().find(|&&known| u32::from(known) == id);
                *self.in_order_used.insert((*known.ok_or(Fault::UsedId { id })?, len_bytes))
            }
        };
        let oldest = self.in_order.as_mut().and_then(VecDeque::pop_front);
        let id = oldest.ok_or(Fault::UsedId { id: last.into() })?;
        let limit = each!(&mut self.ring, ring => ring.skip(id)).ok_or(Fault::UsedId { id: id.into() })?;
        if id != last {
            return Ok(Some(Used { id, len_bytes: None, unwritten: 0 }));
        }
        self.in_order_used = None;
        if len_bytes > limit {
            return Err(Fault::UsedLength { found: len_bytes, limit });
        }
        Ok(Some(Used { id, len_bytes: Some(len_bytes), unwritten: limit - len_bytes }))
    }

    /// Wants no interrupts until [`ask_for_interrupt`](Self::ask_for_interrupt); one may still come.
    pub fn suppress_interrupts(&mut self) {
        each!(&mut self.ring, ring => ring.suppress_interrupts());
    }

    /// Asks to be interrupted when the device uses the next buffer; true if it has used one by now, for which no
    /// interrupt may come.
    pub fn ask_for_interrupt(&mut self) -> bool {
        each!(&mut self.ring, ring => ring.ask_for_interrupt()) || self.in_order_used.is_some()
    }

    /// Never frees the queue's memory: for a device that does not finish its reset.
    pub fn keep_for_ever(&mut self) {
        each!(&mut self.ring, ring => ring.base_mut()).keep_for_ever();
    }

    /// The values of all buffers that the device had. It must have been reset.
    pub fn drain(&mut self) -> impl Iterator<Item = T> {
        self.values.iter_mut().filter_map(Option::take)
    }
}

/// What the buffer `id` carries, which came back.
fn take_value<T>(values: &mut [Option<T>], id: u16) -> Result<T, Fault> {
    values[usize::from(id)].take().ok_or(Fault::UsedId { id: id.into() })
}
