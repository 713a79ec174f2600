//! A pair of queues: `receiveqN` and `transmitqN` (VirtIO 1.3 §5.1.2), with who waits for them.
//! Neighbours: `receive`, `transmit` (the two of them), `mod` (the card, which has several pairs).
#![forbid(unsafe_code)]

use core::task::Waker;

use super::{
    Sizes,
    config::Feature,
    receive::{self, Receive},
    transmit::{self, Transmit},
};
use crate::{
    class::net::{Frame, Home, NetCounts, SendOffload},
    error::Error,
    hal::Hal,
    virtio::{Fault, Init},
};

/// The queues of pair `number` (§5.1.2).
pub(super) const fn receiveq(number: u16) -> u16 {
    2 * number
}

pub(super) const fn transmitq(number: u16) -> u16 {
    2 * number + 1
}

/// A pair of queues.
pub(super) struct Pair {
    receive: Receive,
    transmit: Transmit,
    /// There is room for long segments that the device cuts.
    pub(super) takes_long: bool,
    waker: Option<Waker>,
    /// The device was given up.
    is_dead: bool,
}

impl Pair {
    /// Makes pair `number`.
    pub(super) fn new(init: &mut Init, hal: &dyn Hal, number: u16, sizes: Sizes) -> Result<Self, Error> {
        let features = Feature::from_bits_truncate(init.features().bits());
        let receive_size = init.queue_size(receiveq(number))?;
        let transmit_size = init.queue_size(transmitq(number))?;
        // The device is told of the queues last.
        let can_merge = features.contains(Feature::MRG_RXBUF);
        let receive = receive::Buffers::new(hal, sizes.receive.min(receive_size).max(1), can_merge)?;
        let cuts = features.intersects(Feature::HOST_TSO4 | Feature::HOST_TSO6);
        let long = if cuts { sizes.long.min(transmit_size / 2) } else { 0 };
        let short = sizes.short.clamp(1, transmit_size.saturating_sub(long).max(1));
        let transmit = transmit::Buffers::new(hal, short, long, sizes.long_bytes)?;
        // Frames are in one piece: their queues need no indirect descriptors.
        let receiveq = init.small_queue(receiveq(number), hal, receive_size)?;
        let transmitq = init.small_queue(transmitq(number), hal, transmit_size)?;
        let receive = Receive::new(receiveq, number, receive);
        let transmit = Transmit::new(transmitq, number, transmit);
        Ok(Self { receive, transmit, takes_long: long > 0, waker: None, is_dead: false })
    }

    /// Wants no interrupts until somebody waits again, and wakes who does.
    pub(super) fn interrupt(&mut self) {
        self.receive.queue().suppress_interrupts();
        self.transmit.queue().suppress_interrupts();
        self.wake();
    }

    fn wake(&mut self) {
        self.waker.take().into_iter().for_each(Waker::wake);
    }

    /// What to notify the device with of the receive queue and of the transmit queue, if it wants to know.
    pub(super) fn take_notifications(&mut self) -> [Option<u16>; 2] {
        if self.is_dead {
            return [None; 2];
        }
        [self.receive.queue().take_notification(), self.transmit.queue().take_notification()]
    }

    pub(super) fn receive(&mut self) -> Result<Option<Frame>, Fault> {
        if self.is_dead { Ok(None) } else { self.receive.take() }
    }

    /// A card that was given up needs no buffers.
    pub(super) fn recycle(&mut self, frame: Frame) {
        match frame.home {
            _ if self.is_dead => {}
            Home::Transmit => self.transmit.take_back(frame.buffer),
            home => self.receive.take_back(frame.buffer, home),
        }
    }

    pub(super) fn buffer(&mut self, len: usize) -> Result<Option<Frame>, Fault> {
        if self.is_dead { Ok(None) } else { self.transmit.buffer(len) }
    }

    pub(super) fn send(&mut self, frame: Frame, offload: &SendOffload) {
        if !self.is_dead && frame.home == Home::Transmit {
            self.transmit.send(frame.buffer, offload);
        }
    }

    pub(super) fn wait(&mut self, waker: &Waker) -> bool {
        match &mut self.waker {
            Some(old) => old.clone_from(waker),
            None => self.waker = Some(waker.clone()),
        }
        let there_is_more =
            !self.is_dead && (self.receive.queue().ask_for_interrupt() | self.transmit.wait());
        !there_is_more
    }

    /// Without the interrupts, which are not counted here.
    pub(super) fn counts(&mut self) -> NetCounts {
        let rings = [self.receive.queue().counts(), self.transmit.queue().counts()];
        NetCounts {
            received: self.receive.received,
            sent: self.transmit.sent,
            dropped: self.receive.dropped,
            notifications: rings.iter().map(|counts| counts.notifications).sum(),
            ..NetCounts::default()
        }
    }

    /// The device was given up: frees what it had. What one that did not finish its reset may still write to is never
    /// freed.
    pub(super) fn close(&mut self, is_reset: bool) {
        self.is_dead = true;
        if !is_reset {
            self.receive.queue().keep_for_ever();
            self.transmit.queue().keep_for_ever();
        }
        for buffer in self.receive.queue().drain().chain(self.transmit.queue().drain()) {
            if !is_reset {
                core::mem::forget(buffer);
            }
        }
        self.wake();
    }
}
