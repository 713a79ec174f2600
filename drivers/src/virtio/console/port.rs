//! One port: bytes in by one queue, out by another, through buffers of the port's own (VirtIO 1.3 §5.3.6).
//!
//! Buffers are memory that the device may write while it has them, so bytes are copied out, once, and no length is
//! believed that the queue has not checked. Neighbours: `mod` (who calls), `queue` (how buffers travel).
#![forbid(unsafe_code)]

use alloc::{string::String, vec::Vec};
use core::{
    sync::atomic::Ordering::Relaxed,
    task::{Poll, Waker},
};

use super::PortInfo;
use crate::{
    dma::{Direction, Dma, Segment},
    error::Error,
    hal::Hal,
    virtio::{
        Fault, Init,
        device::Device,
        queue::{Counts, Queue},
    },
};

/// Buffers each way, and bytes of each: a page each way.
const BUFFERS: u16 = 8;
const BUFFER_BYTES: usize = 512;

/// A receive buffer with bytes in it.
#[derive(Clone, Copy, Debug)]
struct Filled {
    buffer: u16,
    from: usize,
    to: usize,
}

/// A port and its two queues.
pub(super) struct Port {
    pub(super) info: PortInfo,
    /// The device has said that it is there.
    pub(super) is_there: bool,
    receive: Queue<u16>,
    transmit: Queue<u16>,
    /// Receive buffers, then transmit buffers.
    memory: Dma,
    filled: Vec<Filled>,
    /// Transmit buffers that the device does not have.
    free: Vec<u16>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// The receive queue of port `id`; that to transmit is the next one (§5.3.2: 2 and 3 are for control messages).
fn receive_queue(id: u16) -> u16 {
    if id == 0 { 0 } else { 2 + 2 * id }
}

fn offset(buffer: u16) -> usize {
    usize::from(buffer) * BUFFER_BYTES
}

impl Port {
    pub(super) fn new(init: &mut Init, hal: &dyn Hal, id: u16) -> Result<Self, Error> {
        let memory = hal.dma(offset(2 * BUFFERS))?;
        let receive = init.small_queue(receive_queue(id), hal, BUFFERS)?;
        let transmit = init.small_queue(receive_queue(id) + 1, hal, BUFFERS)?;
        let info = PortInfo { id, name: String::new(), is_console: false, host_is_open: false, size: None };
        Ok(Self {
            info,
            is_there: false,
            memory,
            filled: Vec::with_capacity(BUFFERS.into()),
            free: (BUFFERS..BUFFERS + transmit.size()).collect(),
            receive,
            transmit,
            reader: None,
            writer: None,
        })
    }

    pub(super) fn counts(&self) -> Counts {
        self.receive.counts() + self.transmit.counts()
    }

    pub(super) fn keep_for_ever(&mut self) {
        self.receive.keep_for_ever();
        self.transmit.keep_for_ever();
        self.memory.keep_for_ever();
    }

    /// Gives the device all receive buffers.
    pub(super) fn begin(&mut self, device: &mut Device) {
        for buffer in 0..self.receive.size() {
            self.offer(buffer);
        }
        self.receive.ask_for_interrupt();
        self.transmit.ask_for_interrupt();
        device.notify(receive_queue(self.info.id), &mut self.receive);
    }

    fn offer(&mut self, buffer: u16) {
        let range = offset(buffer)..offset(buffer) + BUFFER_BYTES;
        let segment = Segment::new(&self.memory, range, Direction::FromDevice);
        // The queue has room for every buffer that there is.
        let _ = self.receive.add(&[segment], buffer);
    }

    /// Notes what came and what went.
    pub(super) fn collect(&mut self) -> Result<(), Fault> {
        // No more at a time than there are buffers: each comes back once.
        loop {
            while let Some((buffer, len_bytes)) = self.receive.pop()? {
                let to = offset(buffer) + len_bytes.unwrap_or(0) as usize;
                self.filled.push(Filled { buffer, from: offset(buffer), to });
            }
            if !self.receive.ask_for_interrupt() {
                break;
            }
        }
        loop {
            while let Some((buffer, _)) = self.transmit.pop()? {
                self.free.push(buffer);
            }
            if !self.transmit.ask_for_interrupt() {
                break;
            }
        }
        if !self.filled.is_empty() {
            self.reader.take().into_iter().for_each(Waker::wake);
        }
        if !self.free.is_empty() {
            self.writer.take().into_iter().for_each(Waker::wake);
        }
        Ok(())
    }

    /// Something about it changed: who waits looks again.
    pub(super) fn wake(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }

    /// The device has no transmit buffer.
    pub(super) fn is_drained(&self) -> bool {
        self.free.len() == usize::from(self.transmit.size())
    }

    pub(super) fn poll_read(&mut self, device: &mut Device, bytes: &mut [u8], waker: &Waker) -> Poll<usize> {
        let mut count = 0;
        while let Some(filled) = self.filled.first_mut()
            && (filled.from == filled.to || count < bytes.len())
        {
            let len = (filled.to - filled.from).min(bytes.len() - count);
            for (byte, at) in bytes[count..count + len].iter_mut().zip(filled.from..) {
                *byte = self.memory.u8(at).load(Relaxed);
            }
            count += len;
            filled.from += len;
            if filled.from == filled.to {
                let Filled { buffer, .. } = self.filled.remove(0);
                self.offer(buffer);
            }
        }
        device.notify(receive_queue(self.info.id), &mut self.receive);
        if count == 0 && !bytes.is_empty() {
            self.reader = Some(waker.clone());
            return Poll::Pending;
        }
        Poll::Ready(count)
    }

    pub(super) fn poll_write(&mut self, device: &mut Device, bytes: &[u8], waker: &Waker) -> Poll<usize> {
        let mut count = 0;
        while count < bytes.len()
            && let Some(buffer) = self.free.pop()
        {
            let piece = &bytes[count..bytes.len().min(count + BUFFER_BYTES)];
            for (byte, at) in piece.iter().zip(offset(buffer)..) {
                self.memory.u8(at).store(*byte, Relaxed);
            }
            let range = offset(buffer)..offset(buffer) + piece.len();
            let segment = Segment::new(&self.memory, range, Direction::ToDevice);
            // The queue has room for every buffer that there is.
            let _ = self.transmit.add(&[segment], buffer);
            count += piece.len();
        }
        device.notify(receive_queue(self.info.id) + 1, &mut self.transmit);
        if count == 0 && !bytes.is_empty() {
            self.writer = Some(waker.clone());
            return Poll::Pending;
        }
        Poll::Ready(count)
    }
}
