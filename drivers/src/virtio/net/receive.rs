//! Frames from the device (VirtIO 1.3 §5.1.6.3, §5.1.6.4).
//!
//! The device has all buffers but those whose frames are being looked at. A frame in one buffer is not copied; one that
//! is spread over several is put together in a buffer of its own.
#![forbid(unsafe_code)]

use alloc::vec::Vec;

use super::header;
use crate::{
    class::net::{ETHERNET_HEADER_BYTES, Frame, Home},
    dma::{Direction, DmaBuffer},
    error::Error,
    hal::Hal,
    virtio::{Fault, queue::Queue},
};

/// Bytes of a buffer: a page.
pub(super) const BUFFER_BYTES: usize = 4096;
/// Bytes of the longest frame that is put together: an IP packet of 65535, and what stands before it.
const MERGED_BYTES: usize = header::BYTES + ETHERNET_HEADER_BYTES + 65535;
/// Buffers that such a frame may be spread over.
const MOST_BUFFERS: u16 = MERGED_BYTES.div_ceil(BUFFER_BYTES) as u16 + 1;

/// Memory for received frames.
pub(super) struct Buffers {
    single: Vec<DmaBuffer>,
    /// For frames that are spread, if there are any.
    merged: Option<DmaBuffer>,
}

impl Buffers {
    /// `count` buffers, and one for merged frames if `can_merge`.
    pub(super) fn new(hal: &dyn Hal, count: u16, can_merge: bool) -> Result<Self, Error> {
        let single = (0..count).map(|_| hal.buffer(BUFFER_BYTES)).collect::<Result<_, _>>()?;
        Ok(Self { single, merged: can_merge.then(|| hal.buffer(MERGED_BYTES)).transpose()? })
    }
}

/// The receiving side of a card.
pub(super) struct Receive {
    queue: Queue<DmaBuffer>,
    /// Of the pair that the queue is of.
    number: u16,
    /// Where spread frames are put together; none while one is being looked at.
    merged: Option<DmaBuffer>,
    can_merge: bool,
    pub(super) received: u64,
    pub(super) dropped: u64,
}

impl Receive {
    pub(super) fn new(mut queue: Queue<DmaBuffer>, number: u16, buffers: Buffers) -> Self {
        queue.suppress_interrupts();
        let can_merge = buffers.merged.is_some();
        let mut receive = Self { queue, number, merged: buffers.merged, can_merge, received: 0, dropped: 0 };
        buffers.single.into_iter().for_each(|buffer| receive.post(buffer));
        receive
    }

    pub(super) fn queue(&mut self) -> &mut Queue<DmaBuffer> {
        &mut self.queue
    }

    /// The next frame that makes sense.
    ///
    /// # Errors
    /// The device lies.
    pub(super) fn take(&mut self) -> Result<Option<Frame>, Fault> {
        // No more than the queue holds at a time: a device that sends nonsense cannot keep the caller for ever.
        for _ in 0..self.queue.size() {
            let Some((mut buffer, written)) = self.queue.pop()? else { break };
            buffer.set_len(written.unwrap_or(0) as usize);
            let Some(header) = header::Received::read(buffer.bytes()) else {
                self.reject(buffer);
                continue;
            };
            let checksum_is_good = header.checksum_is_good;
            let (buffer, home) = match header.num_buffers {
                // Without merging the field means nothing (§5.1.6.4.1).
                _ if !self.can_merge => (buffer, Home::Receive),
                1 => (buffer, Home::Receive),
                told => match self.merge(buffer, told)? {
                    Some(merged) => (merged, Home::Merged),
                    None => continue,
                },
            };
            if buffer.len() < header::BYTES + ETHERNET_HEADER_BYTES {
                self.dropped += 1;
                self.take_back(buffer, home);
                continue;
            }
            self.received += 1;
            return Ok(Some(Frame {
                buffer,
                start: header::BYTES,
                checksum_is_good,
                home,
                queue: self.number,
            }));
        }
        Ok(None)
    }

    /// Puts together the frame that begins in `first`; `None` if there is no room for it.
    fn merge(&mut self, first: DmaBuffer, told: u16) -> Result<Option<DmaBuffer>, Fault> {
        if !(1..=MOST_BUFFERS).contains(&told) {
            self.post(first);
            return Err(Fault::FrameBuffers { found: 1, told });
        }
        let mut merged = self.merged.take();
        let mut len = 0;
        let mut fits = merged.is_some();
        let mut append = |part: &DmaBuffer| {
            let Some(room) = &mut merged else { return };
            let (start, end) = (len, len + part.len());
            room.set_len(end);
            match room.bytes_mut().get_mut(start..end) {
                Some(room) => room.copy_from_slice(part.bytes()),
                None => fits = false,
            }
            len = end;
        };
        append(&first);
        self.post(first);
        for found in 1..told {
            let next = self.queue.pop();
            let Ok(Some((mut part, written))) = next else {
                self.merged = merged;
                return Err(next.err().unwrap_or(Fault::FrameBuffers { found, told }));
            };
            part.set_len(written.unwrap_or(0) as usize);
            append(&part);
            self.post(part);
        }
        if fits {
            return Ok(merged);
        }
        self.dropped += 1;
        self.merged = merged;
        Ok(None)
    }

    fn reject(&mut self, buffer: DmaBuffer) {
        self.dropped += 1;
        self.post(buffer);
    }

    /// A frame is not needed any more.
    pub(super) fn take_back(&mut self, buffer: DmaBuffer, home: Home) {
        match home {
            Home::Merged => self.merged = Some(buffer),
            _ => self.post(buffer),
        }
    }

    /// Gives a buffer to the device. There is room: the buffers are no more than the queue has descriptors.
    fn post(&mut self, mut buffer: DmaBuffer) {
        buffer.set_len(BUFFER_BYTES);
        let segment = buffer.segment(0..BUFFER_BYTES, Direction::FromDevice);
        let _ = self.queue.add(&[segment], buffer);
    }
}
