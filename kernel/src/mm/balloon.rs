//! Memory that the hypervisor has instead of this guest: frames taken from the allocator, with nothing behind them.
//! Neighbours: `frame` (where they come from and go back to), `pv_ops::xen::memory` (the hypercalls), `xen::balloon`
//! (how much there is to be).

use alloc::vec::Vec;

use pv_ops::xen::memory;

use super::{
    frame::{self, Frame},
    heap,
    layout::PAGE_SIZE,
};

/// Blocks are no larger: so many frames go in one hypercall.
const ORDER: u8 = memory::BATCH.ilog2() as u8;
/// This part of the memory stays free for the guest: a sixteenth.
const KEPT: u64 = 16;

/// The frames that the hypervisor has.
#[derive(Default)]
pub(crate) struct Balloon {
    out: Vec<Frame>,
    frames: u64,
}

impl Balloon {
    /// How many there are.
    pub(crate) fn frames(&self) -> u64 {
        self.frames
    }

    /// Takes a step towards `wanted` frames; `false` when there is none, or it fails: no memory is free, or the
    /// hypervisor has none.
    pub(crate) fn step(&mut self, wanted: u64) -> bool {
        match wanted.checked_sub(self.frames) {
            Some(0) => false,
            Some(more) => self.inflate(more),
            None => self.deflate(),
        }
    }

    fn inflate(&mut self, more: u64) -> bool {
        let mut free = frame::statistics();
        if free.free <= free.total / KEPT {
            heap::trim();
            free = frame::statistics();
        }
        let Some(spare @ 1..) = free.free.checked_sub(free.total / KEPT) else { return false };
        let largest = (more.min(spare).ilog2() as u8).min(ORDER);
        let Some(block) = (0..=largest).rev().find_map(|order| frame::alloc(order).ok()) else {
            return false;
        };
        if self.out.try_reserve(1).is_err() {
            return false;
        }
        // SAFETY: the block is ours alone, and stays so until `deflate` has memory behind it again.
        let given = unsafe { memory::give(block.address() / PAGE_SIZE, 1 << block.order()) };
        if let Err(error) = given {
            log::debug!("balloon: {error}");
            return false;
        }
        self.frames += 1 << block.order();
        self.out.push(block);
        true
    }

    fn deflate(&mut self) -> bool {
        let Some(block) = self.out.pop() else { return false };
        // SAFETY: `inflate` gave all of it away.
        match unsafe { memory::take(block.address() / PAGE_SIZE, 1 << block.order()) } {
            // Back to the allocator.
            Ok(()) => {
                self.frames -= 1 << block.order();
                true
            }
            Err(error) => {
                log::debug!("balloon: {error}");
                self.out.push(block);
                false
            }
        }
    }
}
