//! Frames to the device (VirtIO 1.3 §5.1.6.2).
//!
//! Buffers are there from the beginning: short ones for what the network takes in one frame, long ones for segments that
//! the device cuts. They are taken back when one is needed, so that sending interrupts nobody who has room.
#![forbid(unsafe_code)]

use alloc::vec::Vec;

use super::header;
use crate::{
    class::net::{Frame, Home, SendOffload},
    dma::{Direction, DmaBuffer},
    error::Error,
    hal::Hal,
    virtio::{Fault, queue::Queue},
};

/// Bytes of a short buffer: a page.
pub(super) const SHORT_BYTES: usize = 4096;

/// Memory for frames to be sent.
pub(super) struct Buffers {
    short: Vec<DmaBuffer>,
    long: Vec<DmaBuffer>,
}

impl Buffers {
    pub(super) fn new(hal: &dyn Hal, short: u16, long: u16, long_bytes: usize) -> Result<Self, Error> {
        let make = |count: u16, len| (0..count).map(|_| hal.buffer(len)).collect::<Result<Vec<_>, _>>();
        Ok(Self { short: make(short, SHORT_BYTES)?, long: make(long, long_bytes)? })
    }
}

/// The sending side of a card.
pub(super) struct Transmit {
    queue: Queue<DmaBuffer>,
    /// Of the pair that the queue is of.
    number: u16,
    buffers: Buffers,
    /// Somebody found no short buffer, or no long one, and nobody has found one since: he is to be woken.
    is_starved: [bool; 2],
    pub(super) sent: u64,
}

impl Transmit {
    pub(super) fn new(mut queue: Queue<DmaBuffer>, number: u16, buffers: Buffers) -> Self {
        queue.suppress_interrupts();
        Self { queue, number, buffers, is_starved: [false; 2], sent: 0 }
    }

    pub(super) fn queue(&mut self) -> &mut Queue<DmaBuffer> {
        &mut self.queue
    }

    /// Room for a frame of `len` bytes, which is no more than a long buffer has.
    ///
    /// # Errors
    /// The device lies.
    pub(super) fn buffer(&mut self, len: usize) -> Result<Option<Frame>, Fault> {
        let len = header::BYTES + len;
        let mut taken = self.take(len);
        if taken.is_none() {
            self.reclaim()?;
            taken = self.take(len);
        }
        self.is_starved[usize::from(len > SHORT_BYTES)] = taken.is_none();
        Ok(taken.map(|mut buffer| {
            buffer.set_len(len);
            let (start, home, queue) = (header::BYTES, Home::Transmit, self.number);
            Frame { buffer, start, checksum_is_good: false, home, queue }
        }))
    }

    fn take(&mut self, len: usize) -> Option<DmaBuffer> {
        if len <= SHORT_BYTES { self.buffers.short.pop() } else { self.buffers.long.pop() }
    }

    /// Takes back what the device is done with.
    fn reclaim(&mut self) -> Result<(), Fault> {
        while let Some((buffer, _)) = self.queue.pop()? {
            self.take_back(buffer);
        }
        Ok(())
    }

    /// A buffer is free again. The lists had room for it when they were made.
    pub(super) fn take_back(&mut self, buffer: DmaBuffer) {
        let is_short = buffer.capacity() <= SHORT_BYTES;
        if is_short { self.buffers.short.push(buffer) } else { self.buffers.long.push(buffer) }
    }

    /// Gives a frame to the device. There is room: the buffers are no more than the queue has descriptors.
    pub(super) fn send(&mut self, mut buffer: DmaBuffer, offload: &SendOffload) {
        if let Some(room) = buffer.bytes_mut().get_mut(..header::BYTES) {
            room.copy_from_slice(&header::write(offload));
        }
        let segment = buffer.whole(Direction::ToDevice);
        match self.queue.add(&[segment], buffer) {
            Ok(()) => self.sent += 1,
            Err((_, buffer)) => self.take_back(buffer),
        }
    }

    /// If somebody waits for room: asks to be interrupted when there is; true if there is by now.
    pub(super) fn wait(&mut self) -> bool {
        self.is_starved.contains(&true) && self.queue.ask_for_interrupt()
    }
}
