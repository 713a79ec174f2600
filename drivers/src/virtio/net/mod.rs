//! Virtio network card: Ethernet frames (VirtIO 1.3 §5.1).
//! Queues: `receiveq1`, `transmitq1`, `controlq`. Files: `config` (features), `header` (before each frame), `receive`,
//! `transmit`, `control`. Neighbours: `class::net` (what callers see), `queue` (the rings).
//!
//! All memory is taken when the card is probed: a frame allocates nothing. A card that lies is reset, its buffers are
//! freed, and from then on it is a card without a cable.
#![forbid(unsafe_code)]

mod config;
mod control;
mod header;
mod receive;
mod transmit;

use alloc::boxed::Box;
use core::task::Waker;

use self::{config::Config, config::Feature, control::ControlQueue, receive::Receive, transmit::Transmit};
use super::{
    Fault, Features, Init,
    device::Device,
    transport::{Interrupt, Transport, read_config},
};
use crate::{
    class::net::{
        Control, ETHERNET_HEADER_BYTES, Frame, Home, MacAddress, NetCounts, NetDevice, NetInfo, SendOffload,
    },
    error::Error,
    hal::{Hal, Lock},
};

const RECEIVEQ: u16 = 0;
const TRANSMITQ: u16 = 1;
/// Without several pairs of queues (§5.1.2).
const CONTROLQ: u16 = 2;

/// How much memory a card gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Pages for received frames.
    pub receive: u16,
    /// Pages for frames to be sent.
    pub short: u16,
    /// Buffers for long segments that the device cuts; without them it cuts none.
    pub long: u16,
    /// Bytes of each of these: 64 KiB at most.
    pub long_bytes: usize,
}

/// A network card behind a virtio transport. One task or handler at a time: [`Shared`] puts a lock around.
pub struct Net {
    device: Device,
    info: NetInfo,
    receive: Receive,
    transmit: Transmit,
    control: Option<ControlQueue>,
    waker: Option<Waker>,
    announce: bool,
    interrupts: u64,
}

impl Net {
    /// Brings the card up (§3.1.1, §5.1.5). `mac` gives it an address if it has none of its own.
    ///
    /// # Errors
    /// The device does not come up, or describes itself as what cannot be.
    pub fn probe(
        transport: Box<dyn Transport>,
        hal: &dyn Hal,
        sizes: Sizes,
        mac: impl FnOnce() -> MacAddress,
    ) -> Result<Self, Error> {
        let choose = |offered| Features::from_bits_retain(Feature::choose(offered, sizes.long > 0).bits());
        let mut init = Init::begin_with(transport, &choose)?;
        let features = Feature::from_bits_truncate(init.features().bits());
        let config = read_config(init.transport(), |transport| Config::read(transport, features))?;
        let (receive_size, transmit_size) = (init.queue_size(RECEIVEQ)?, init.queue_size(TRANSMITQ)?);
        // The device is told of the queues last, when nothing can fail any more but to tell it of the others.
        let can_merge = features.contains(Feature::MRG_RXBUF);
        let receive = receive::Buffers::new(hal, sizes.receive.min(receive_size).max(1), can_merge)?;
        let cuts = features.intersects(Feature::HOST_TSO4 | Feature::HOST_TSO6);
        let long = if cuts { sizes.long.min(transmit_size / 2) } else { 0 };
        let short = sizes.short.clamp(1, transmit_size.saturating_sub(long).max(1));
        let transmit = transmit::Buffers::new(hal, short, long, sizes.long_bytes)?;
        let has_control = features.contains(Feature::CTRL_VQ);
        let control = has_control.then(|| ControlQueue::memory(hal)).transpose()?;
        // Frames are in one piece: their queues need no indirect descriptors.
        let receive = Receive::new(init.small_queue(RECEIVEQ, hal, receive_size)?, receive);
        let transmit = Transmit::new(init.small_queue(TRANSMITQ, hal, transmit_size)?, transmit);
        let control = match control {
            Some(memory) => Some(ControlQueue::new(init.queue(CONTROLQ, hal)?, memory)),
            None => None,
        };
        let short_frame = transmit::SHORT_BYTES - header::BYTES;
        let info = NetInfo {
            mac: config.mac.unwrap_or_else(mac),
            mtu: config.mtu.min((short_frame - ETHERNET_HEADER_BYTES) as u16),
            link_up: config.link_up,
            offloads: features.offloads(),
            max_frame_bytes: if long > 0 { sizes.long_bytes - header::BYTES } else { short_frame },
        };
        let mut net = Self {
            device: Device::run(init),
            info,
            receive,
            transmit,
            control,
            waker: None,
            announce: config.announce,
            interrupts: 0,
        };
        net.flush();
        Ok(net)
    }

    /// What was negotiated.
    pub fn features(&self) -> Features {
        self.device.features()
    }

    fn has_failed(&self) -> bool {
        self.device.fault().is_some()
    }

    /// To be called when the device has interrupted for whatever reason.
    pub fn interrupt(&mut self) {
        match self.device.take_interrupt() {
            Ok(cause) if cause.contains(Interrupt::CONFIG) => self.reread_config(),
            Ok(_) => {}
            Err(fault) => self.fail(fault),
        }
        self.queue_interrupt();
    }

    /// To be called when the device has interrupted for one of its queues. Further interrupts wait until somebody does.
    pub fn queue_interrupt(&mut self) {
        self.interrupts += 1;
        self.receive.queue().suppress_interrupts();
        self.transmit.queue().suppress_interrupts();
        self.wake();
    }

    fn wake(&mut self) {
        self.waker.take().into_iter().for_each(Waker::wake);
    }

    fn own_features(&self) -> Feature {
        Feature::from_bits_truncate(self.features().bits())
    }

    fn reread_config(&mut self) {
        let features = self.own_features();
        match self.device.read_config(|transport| Config::read(transport, features)) {
            Ok(config) => {
                if config.link_up != self.info.link_up {
                    log::info!("virtio-net: link {}", if config.link_up { "up" } else { "down" });
                }
                self.info.link_up = config.link_up;
                self.announce |= config.announce;
            }
            Err(error) => log::warn!("virtio-net: {error}: change of configuration ignored"),
        }
    }

    /// Lets the device know of what was added to its queues.
    fn flush(&mut self) {
        self.device.notify(RECEIVEQ, self.receive.queue());
        self.device.notify(TRANSMITQ, self.transmit.queue());
    }

    fn receive(&mut self) -> Option<Frame> {
        if self.has_failed() {
            return None;
        }
        self.receive.take().unwrap_or_else(|fault| {
            self.fail(fault);
            None
        })
    }

    fn recycle(&mut self, frame: Frame) {
        // A card that was given up needs no buffers.
        match frame.home {
            _ if self.has_failed() => {}
            Home::Transmit => self.transmit.take_back(frame.buffer),
            home => self.receive.take_back(frame.buffer, home),
        }
    }

    fn buffer(&mut self, len: usize) -> Option<Frame> {
        if self.has_failed() || len > self.info.max_frame_bytes {
            return None;
        }
        self.transmit.buffer(len).unwrap_or_else(|fault| {
            self.fail(fault);
            None
        })
    }

    fn send(&mut self, frame: Frame, offload: &SendOffload) {
        if !self.has_failed() && frame.home == Home::Transmit {
            self.transmit.send(frame.buffer, offload);
        }
    }

    fn wait(&mut self, waker: &Waker) -> bool {
        match &mut self.waker {
            Some(old) => old.clone_from(waker),
            None => self.waker = Some(waker.clone()),
        }
        let there_is_more =
            !self.has_failed() && (self.receive.queue().ask_for_interrupt() | self.transmit.wait());
        !there_is_more
    }

    fn control(&mut self, control: &Control<'_>) -> Result<(), Error> {
        if let Some(fault) = self.device.fault() {
            return Err(fault);
        }
        let features = self.own_features();
        let queue = self.control.as_mut().ok_or(Error::Request("the card takes no commands"))?;
        let result = queue.control(control, features, CONTROLQ, &mut self.device);
        match (&result, control) {
            (Ok(()), Control::Mac(mac)) => self.info.mac = *mac,
            (Err(Error::Fault(fault)), _) => self.fail(*fault),
            _ => {}
        }
        result
    }

    fn take_announcement(&mut self) -> bool {
        let is_asked = core::mem::take(&mut self.announce) && !self.has_failed();
        if is_asked && let Some(queue) = &mut self.control {
            match queue.acknowledge_announcement(CONTROLQ, &mut self.device) {
                Ok(()) => {}
                Err(Error::Fault(fault)) => self.fail(fault),
                Err(error) => log::warn!("virtio-net: announcement: {error}"),
            }
        }
        is_asked
    }

    fn counts(&mut self) -> NetCounts {
        let rings = [self.receive.queue().counts(), self.transmit.queue().counts()];
        NetCounts {
            received: self.receive.received,
            sent: self.transmit.sent,
            dropped: self.receive.dropped,
            notifications: rings.iter().map(|counts| counts.notifications).sum(),
            interrupts: self.interrupts,
        }
    }

    /// Gives the card up: it is reset, and its buffers are freed.
    fn fail(&mut self, fault: Fault) {
        self.info.link_up = false;
        let is_reset = self.device.fail(fault);
        self.free(is_reset);
        self.wake();
    }

    /// Frees what the device had; what one that did not finish its reset may still write to is never freed.
    fn free(&mut self, is_reset: bool) {
        if !is_reset {
            self.receive.queue().keep_for_ever();
            self.transmit.queue().keep_for_ever();
            if let Some(control) = &mut self.control {
                control.queue().keep_for_ever();
                control.memory.keep_for_ever();
            }
        }
        for buffer in self.receive.queue().drain().chain(self.transmit.queue().drain()) {
            if !is_reset {
                core::mem::forget(buffer);
            }
        }
    }
}

impl Drop for Net {
    /// The memory that the device was told of goes, so the device must not use it any more.
    fn drop(&mut self) {
        let is_reset = self.device.stop();
        self.free(is_reset);
    }
}

/// A card with a lock around, for tasks and the interrupt handler.
pub struct Shared<L>(pub L);

impl<L: Lock<Value = Net>> NetDevice for Shared<L> {
    fn info(&self) -> NetInfo {
        self.0.with(|net| net.info)
    }

    fn receive(&self) -> Option<Frame> {
        self.0.with(Net::receive)
    }

    fn recycle(&self, frame: Frame) {
        self.0.with(|net| net.recycle(frame));
    }

    fn buffer(&self, len: usize) -> Option<Frame> {
        self.0.with(|net| net.buffer(len))
    }

    fn send(&self, frame: Frame, offload: SendOffload) {
        self.0.with(|net| net.send(frame, &offload));
    }

    fn flush(&self) {
        self.0.with(Net::flush);
    }

    fn wait(&self, waker: &Waker) -> bool {
        self.0.with(|net| net.wait(waker))
    }

    fn control(&self, control: Control<'_>) -> Result<(), Error> {
        self.0.with(|net| net.control(&control))
    }

    fn take_announcement(&self) -> bool {
        self.0.with(Net::take_announcement)
    }

    fn counts(&self) -> NetCounts {
        self.0.with(Net::counts)
    }
}
