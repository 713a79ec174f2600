//! What the host allows: a loop over the ring of a card that no driver has, without interrupts, tasks or locks (VirtIO 1.3
//! §5.1.6.2).
#![forbid(unsafe_code)]

use alloc::{boxed::Box, format, string::String, vec::Vec};
use core::sync::atomic::Ordering::Relaxed;

use drivers::{
    Error,
    dma::{Direction, Dma, Segment},
    hal::Hal,
    virtio::{DeviceId, Features, Init, queue::Queue, transport::Transport},
};
use kernel::{devices, platform::Platform};

use crate::{Case, Counted, HEADER, now_ns};

/// Frames at the same time at most.
const MOST: u16 = 256;
/// Bytes of memory for each, and of the header that the device wants before it.
const SLOT_BYTES: usize = 2048;
const DEVICE_HEADER_BYTES: usize = 12;
const TRANSMITQ: u16 = 1;

/// A card and its ring.
pub(crate) struct Card {
    transport: Box<dyn Transport>,
    queue: Queue<u16>,
    frames: Dma,
    /// Slots that the device does not have.
    free: Vec<u16>,
    size: usize,
}

impl Card {
    /// The last card of the machine.
    pub(crate) fn new() -> Result<Self, String> {
        let transport = devices::bare(DeviceId::NET).ok_or("no card")?;
        Self::on(transport).map_err(|error| format!("{error}"))
    }

    fn on(transport: Box<dyn Transport>) -> Result<Self, Error> {
        let mut init = Init::begin(transport, Features::empty())?;
        let mut queue: Queue<u16> = init.small_queue(TRANSMITQ, &Platform, MOST)?;
        queue.suppress_interrupts();
        let size = queue.size();
        let frames = Platform.dma(usize::from(size) * SLOT_BYTES)?;
        for slot in 0..usize::from(size) {
            for (at, byte) in HEADER.iter().enumerate() {
                frames.u8(slot * SLOT_BYTES + DEVICE_HEADER_BYTES + at).store(*byte, Relaxed);
            }
        }
        let (free, size) = ((0..size).collect(), usize::from(size));
        Ok(Self { transport: init.finish(), queue, frames, free, size })
    }

    /// Sends batch after batch for so long.
    pub(crate) fn measure(&mut self, case: Case, ns: u64) -> Result<Counted, String> {
        let (before, start) = (self.queue.counts(), now_ns());
        let batch = usize::from(case.batch).min(self.size);
        while now_ns() < start + ns {
            // No hint that this is a loop: QEMU's TCG takes its big lock at each.
            while self.free.len() < batch {
                while let Some((slot, _)) = self.queue.pop().map_err(|fault| format!("{fault}"))? {
                    self.free.push(slot);
                }
            }
            for slot in self.free.drain(self.free.len() - batch..) {
                let at = usize::from(slot) * SLOT_BYTES;
                let bytes = at..at + DEVICE_HEADER_BYTES + case.len;
                // There is room for as many as there are slots.
                let _ = self.queue.add(&[Segment::new(&self.frames, bytes, Direction::ToDevice)], slot);
            }
            if self.queue.take_notification().is_some() {
                self.transport.notify(TRANSMITQ, None);
            }
        }
        let after = self.queue.counts();
        Ok(Counted {
            frames: after.buffers - before.buffers,
            ns: now_ns() - start,
            notifications: after.notifications - before.notifications,
            interrupts: 0,
        })
    }
}
