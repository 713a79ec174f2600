//! Control messages: what device and driver tell each other of the ports (VirtIO 1.3 §5.3.6.2).
#![forbid(unsafe_code)]

use alloc::{string::String, vec::Vec};
use core::sync::atomic::Ordering::Relaxed;

use super::Size;
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

const RECEIVEQ: u16 = 2;
const TRANSMITQ: u16 = 3;

/// Buffers each way: as many as messages that a device sends when it starts are answered without waiting.
const BUFFERS: u16 = 32;
/// Bytes of a buffer: a message is 8 bytes, and a name behind it.
const BUFFER_BYTES: usize = 64;
const MESSAGE_BYTES: usize = 8;

/// What a message is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The driver is ready for messages.
    DeviceReady,
    /// A port is there.
    DeviceAdd,
    /// It is not any more.
    DeviceRemove,
    /// The driver is ready to use a port (1), or is not (0).
    PortReady,
    /// A port is a console.
    ConsolePort,
    /// The console shows so many characters.
    Resize(Size),
    /// The other side has opened (1) or closed (0) a port.
    PortOpen,
    /// A port's name.
    PortName(String),
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) id: u32,
    pub(super) event: Event,
    pub(super) value: u16,
}

impl Message {
    /// The message in `bytes`; `None` if there is none that is known.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<MESSAGE_BYTES>()?;
        let [id @ .., a, b, c, d] = *head;
        let word = |at: usize| Some(u16::from_le_bytes([*rest.get(at)?, *rest.get(at + 1)?]));
        let event = match u16::from_le_bytes([a, b]) {
            1 => Event::DeviceAdd,
            2 => Event::DeviceRemove,
            4 => Event::ConsolePort,
            // QEMU and Linux have columns first, and so has §5.3.6.2.
            5 => Event::Resize(Size { columns: word(0)?, rows: word(2)? }),
            6 => Event::PortOpen,
            7 => {
                let end = rest.iter().position(|&byte| byte == 0).unwrap_or(rest.len());
                Event::PortName(String::from_utf8_lossy(&rest[..end]).into_owned())
            }
            _ => return None,
        };
        Some(Self { id: u32::from_le_bytes(id), event, value: u16::from_le_bytes([c, d]) })
    }

    /// Its bytes; only what drivers send has any.
    fn encode(&self) -> [u8; MESSAGE_BYTES] {
        let event: u16 = match self.event {
            Event::DeviceReady => 0,
            Event::DeviceAdd => 1,
            Event::DeviceRemove => 2,
            Event::PortReady => 3,
            Event::ConsolePort => 4,
            Event::Resize(_) => 5,
            Event::PortOpen => 6,
            Event::PortName(_) => 7,
        };
        let ([i, j, k, l], [a, b], [c, d]) =
            (self.id.to_le_bytes(), event.to_le_bytes(), self.value.to_le_bytes());
        [i, j, k, l, a, b, c, d]
    }
}

/// The two queues of control messages.
pub(super) struct Control {
    receive: Queue<u16>,
    transmit: Queue<u16>,
    /// Receive buffers, then transmit buffers.
    memory: Dma,
    free: Vec<u16>,
    /// Receive buffers that neither the device has nor anybody needs any more.
    taken: Vec<u16>,
    /// Messages for which there was no room; sent as soon as there is.
    waiting: Vec<Message>,
}

/// Messages that wait at most; a device that lets more of them pile up is not listened to.
const MAX_WAITING: usize = 64;

fn offset(buffer: u16) -> usize {
    usize::from(buffer) * BUFFER_BYTES
}

impl Control {
    pub(super) fn new(init: &mut Init, hal: &dyn Hal) -> Result<Self, Error> {
        let memory = hal.dma(offset(2 * BUFFERS))?;
        let receive = init.small_queue(RECEIVEQ, hal, BUFFERS)?;
        let transmit = init.small_queue(TRANSMITQ, hal, BUFFERS)?;
        let free = (BUFFERS..BUFFERS + transmit.size()).collect();
        let (taken, waiting) = (Vec::with_capacity(BUFFERS.into()), Vec::with_capacity(MAX_WAITING));
        Ok(Self { receive, transmit, memory, free, taken, waiting })
    }

    pub(super) fn counts(&self) -> Counts {
        self.receive.counts() + self.transmit.counts()
    }

    pub(super) fn keep_for_ever(&mut self) {
        self.receive.keep_for_ever();
        self.transmit.keep_for_ever();
        self.memory.keep_for_ever();
    }

    /// Gives the device room for messages, and asks for them.
    pub(super) fn begin(&mut self, device: &mut Device) {
        (0..self.receive.size()).for_each(|buffer| self.offer(buffer));
        self.receive.ask_for_interrupt();
        self.transmit.ask_for_interrupt();
        device.notify(RECEIVEQ, &mut self.receive);
        self.send(device, Message { id: 0, event: Event::DeviceReady, value: 1 });
    }

    fn offer(&mut self, buffer: u16) {
        let range = offset(buffer)..offset(buffer) + BUFFER_BYTES;
        // The queue has room for every buffer that there is.
        let _ = self.receive.add(&[Segment::new(&self.memory, range, Direction::FromDevice)], buffer);
    }

    /// The next message, `Some(None)` if it is none that is known. The device gets its buffer back by
    /// [`again`](Self::again) only, so that there is an end to messages.
    pub(super) fn take(&mut self) -> Result<Option<Option<Message>>, Fault> {
        let Some((buffer, len_bytes)) = self.receive.pop()? else { return Ok(None) };
        let mut bytes = [0; BUFFER_BYTES];
        let len = (len_bytes.unwrap_or(0) as usize).min(BUFFER_BYTES);
        for (byte, at) in bytes[..len].iter_mut().zip(offset(buffer)..) {
            *byte = self.memory.u8(at).load(Relaxed);
        }
        self.taken.push(buffer);
        Ok(Some(Message::decode(&bytes[..len])))
    }

    /// Gives the device the buffers of what was taken, and sends what waited for room; true if there are messages
    /// again by now.
    pub(super) fn again(&mut self, device: &mut Device) -> Result<bool, Fault> {
        while let Some(buffer) = self.taken.pop() {
            self.offer(buffer);
        }
        device.notify(RECEIVEQ, &mut self.receive);
        self.reclaim(device)?;
        Ok(self.receive.ask_for_interrupt())
    }

    /// Takes back what the device has read, and sends what waits for room.
    fn reclaim(&mut self, device: &mut Device) -> Result<(), Fault> {
        while let Some((buffer, _)) = self.transmit.pop()? {
            self.free.push(buffer);
        }
        self.transmit.ask_for_interrupt();
        while !self.waiting.is_empty() && !self.free.is_empty() {
            let message = self.waiting.remove(0);
            self.send(device, message);
        }
        Ok(())
    }

    /// Sends `message`, now or when there is room.
    pub(super) fn send(&mut self, device: &mut Device, message: Message) {
        let Some(buffer) = self.free.pop() else {
            if self.waiting.len() < MAX_WAITING {
                self.waiting.push(message);
            }
            return;
        };
        for (byte, at) in message.encode().into_iter().zip(offset(buffer)..) {
            self.memory.u8(at).store(byte, Relaxed);
        }
        let range = offset(buffer)..offset(buffer) + MESSAGE_BYTES;
        let _ = self.transmit.add(&[Segment::new(&self.memory, range, Direction::ToDevice)], buffer);
        device.notify(TRANSMITQ, &mut self.transmit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_as_the_standard_lays_them_out() {
        let open = Message { id: 0x0102, event: Event::PortOpen, value: 1 };
        assert_eq!(open.encode(), [2, 1, 0, 0, 6, 0, 1, 0]);
        assert_eq!(Message::decode(&open.encode()), Some(open));
        let resize = Message::decode(&[0, 0, 0, 0, 5, 0, 0, 0, 80, 0, 25, 0]);
        let size = Size { columns: 80, rows: 25 };
        assert_eq!(resize, Some(Message { id: 0, event: Event::Resize(size), value: 0 }));
        let name = Message::decode(b"\x01\0\0\0\x07\0\0\0log\0rest");
        assert_eq!(name.map(|message| message.event), Some(Event::PortName("log".into())));
        for bad in [&b""[..], b"\0\0\0\0\x05\0\0\0\x01\0\x01", b"\0\0\0\0\x63\0\0\0", b"\0\0\0\0\x06\0\0"] {
            assert_eq!(Message::decode(bad), None);
        }
    }
}
