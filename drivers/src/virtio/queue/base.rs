//! What a virtqueue has whatever its format: memory, size, and which descriptors and buffer ids are free.
//! Neighbours: `split`, `packed` (the formats).
#![forbid(unsafe_code)]

use alloc::boxed::Box;

use super::{Addresses, indirect::Indirect, layout::Layout};
use crate::{dma::Dma, error::Error, hal::Hal, virtio::Features};

/// What the driver knows of a descriptor (split) or of a buffer id (packed).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shadow {
    /// The next one of its buffer, or of the free ones.
    pub(super) next: u16,
    /// If the device has a buffer that is known by this number: descriptors of the buffer, else 0.
    pub(super) count: u16,
    /// Bytes of that buffer which the device may write.
    pub(super) writable: u32,
    /// If the table of this number, if there is one, keeps a frame: how many of them are the frame's.
    pub(super) frame: Option<u32>,
}

/// What both formats have.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) memory: Dma,
    pub(super) layout: Layout,
    pub(super) size: u16,
    pub(super) shadow: Box<[Shadow]>,
    pub(super) indirect: Option<Indirect>,
    pub(super) event_idx: bool,
    /// The machine's full fence.
    pub(super) fence: fn(),
    /// Free numbers, taken at the head and given back at the tail: a device that uses buffers in order thus gets descriptors of a
    /// split queue in ring order, as §2.7.9 asks.
    pub(super) free_head: u16,
    pub(super) free_tail: u16,
    /// Free descriptors; there are as many free numbers at least.
    pub(super) free_count: u16,
    pub(super) in_flight: u16,
}

impl Base {
    /// For `size` descriptors, and buffers of `parts` segments each at most.
    pub(super) fn new(
        hal: &dyn Hal,
        layout: Layout,
        (size, parts): (u16, usize),
        features: Features,
    ) -> Result<Self, Error> {
        let indirect = features.contains(Features::INDIRECT_DESC);
        let shadow = (0..size).map(|index| Shadow { next: (index + 1) % size, ..Shadow::default() });
        Ok(Self {
            memory: hal.dma(layout.len_bytes)?,
            layout,
            size,
            shadow: shadow.collect(),
            indirect: indirect.then(|| Indirect::new(hal, size, parts)).transpose()?,
            event_idx: features.contains(Features::EVENT_IDX),
            fence: hal.fence(),
            free_head: 0,
            free_tail: size - 1,
            free_count: size,
            in_flight: 0,
        })
    }

    pub(super) fn addresses(&self) -> Addresses {
        Addresses::new(&self.memory, &self.layout, self.size)
    }

    pub(super) fn keep_for_ever(&mut self) {
        self.memory.keep_for_ever();
        self.indirect.iter_mut().for_each(Indirect::keep_for_ever);
    }

    /// `id`, if the device has a buffer that is known by it.
    pub(super) fn known(&self, id: u32) -> Option<u16> {
        let known = u16::try_from(id).ok();
        known.filter(|&id| self.shadow.get(usize::from(id)).is_some_and(|buffer| buffer.count > 0))
    }
}
