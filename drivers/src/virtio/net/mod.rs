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
    Fault, Features, Init, Status,
    init::reset,
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
    transport: Box<dyn Transport>,
    features: Features,
    info: NetInfo,
    receive: Receive,
    transmit: Transmit,
    control: Option<ControlQueue>,
    waker: Option<Waker>,
    announce: bool,
    tells_position: bool,
    interrupts: u64,
    fault: Option<Error>,
}

impl Net {
    /// Brings the card up (§3.1.1, §5.1.5). `mac` is its address if it has none of its own.
    ///
    /// # Errors
    /// The device does not come up, or describes itself as what cannot be.
    pub fn probe(
        transport: Box<dyn Transport>,
        hal: &dyn Hal,
        sizes: Sizes,
        mac: MacAddress,
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
        let receive = Receive::new(init.queue(RECEIVEQ, hal)?, receive);
        let transmit = Transmit::new(init.queue(TRANSMITQ, hal)?, transmit);
        let control = match control {
            Some(memory) => Some(ControlQueue::new(init.queue(CONTROLQ, hal)?, memory)),
            None => None,
        };
        let short_frame = transmit::SHORT_BYTES - header::BYTES;
        let info = NetInfo {
            mac: config.mac.unwrap_or(mac),
            mtu: config.mtu.min((short_frame - ETHERNET_HEADER_BYTES) as u16),
            link_up: config.link_up,
            offloads: features.offloads(),
            max_frame_bytes: if long > 0 { sizes.long_bytes - header::BYTES } else { short_frame },
        };
        let mut net = Self {
            tells_position: init.features().contains(Features::NOTIFICATION_DATA),
            features: init.features(),
            transport: init.finish(),
            info,
            receive,
            transmit,
            control,
            waker: None,
            announce: config.announce,
            interrupts: 0,
            fault: None,
        };
        net.flush();
        Ok(net)
    }

    /// What was negotiated.
    pub fn features(&self) -> Features {
        self.features
    }

    /// Why the card is not used any more, if it is not.
    pub fn fault(&self) -> Option<Error> {
        self.fault
    }

    /// To be called when the device has interrupted.
    pub fn interrupt(&mut self) {
        if self.fault.is_some() {
            return;
        }
        self.interrupts += 1;
        let cause = self.transport.take_interrupt();
        self.receive.queue().suppress_interrupts();
        self.transmit.queue().suppress_interrupts();
        self.transmit.is_starved = false;
        if cause.contains(Interrupt::CONFIG) {
            if self.transport.status().contains(Status::DEVICE_NEEDS_RESET) {
                return self.fail(Fault::NeedsReset);
            }
            self.reread_config();
        }
        self.wake();
    }

    fn wake(&mut self) {
        self.waker.take().into_iter().for_each(Waker::wake);
    }

    fn reread_config(&mut self) {
        let features = Feature::from_bits_truncate(self.features.bits());
        match read_config(&*self.transport, |transport| Config::read(transport, features)) {
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
        if self.fault.is_some() {
            return;
        }
        let (transport, tells) = (&mut self.transport, self.tells_position);
        self.receive.queue().notify(|at| transport.notify(RECEIVEQ, tells.then_some(at)));
        self.transmit.queue().notify(|at| transport.notify(TRANSMITQ, tells.then_some(at)));
    }

    fn receive(&mut self) -> Option<Frame> {
        if self.fault.is_some() {
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
            _ if self.fault.is_some() => {}
            Home::Transmit => self.transmit.take_back(frame.buffer),
            home => self.receive.take_back(frame.buffer, home),
        }
    }

    fn buffer(&mut self, len: usize) -> Option<Frame> {
        if self.fault.is_some() || len > self.info.max_frame_bytes {
            return None;
        }
        self.transmit.buffer(len).unwrap_or_else(|fault| {
            self.fail(fault);
            None
        })
    }

    fn send(&mut self, frame: Frame, offload: &SendOffload) {
        if self.fault.is_none() && frame.home == Home::Transmit {
            self.transmit.send(frame.buffer, offload);
        }
    }

    fn wait(&mut self, waker: &Waker) -> bool {
        match &mut self.waker {
            Some(old) => old.clone_from(waker),
            None => self.waker = Some(waker.clone()),
        }
        let there_is_more =
            self.fault.is_none() && (self.receive.queue().ask_for_interrupt() | self.transmit.wait());
        !there_is_more
    }

    fn control(&mut self, control: &Control<'_>) -> Result<(), Error> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let features = Feature::from_bits_truncate(self.features.bits());
        let (transport, tells) = (&mut self.transport, self.tells_position);
        let mut notify = |at| transport.notify(CONTROLQ, tells.then_some(at));
        let queue = self.control.as_mut().ok_or(Error::Request("the card takes no commands"))?;
        let result = queue.control(control, features, &mut notify);
        match (&result, control) {
            (Ok(()), Control::Mac(mac)) => self.info.mac = *mac,
            (Err(Error::Fault(fault)), _) => self.fail(*fault),
            _ => {}
        }
        result
    }

    fn take_announcement(&mut self) -> bool {
        let is_asked = core::mem::take(&mut self.announce) && self.fault.is_none();
        if is_asked && let Some(queue) = &mut self.control {
            let (transport, tells) = (&mut self.transport, self.tells_position);
            let mut notify = |at| transport.notify(CONTROLQ, tells.then_some(at));
            match queue.acknowledge_announcement(&mut notify) {
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
        let error = Error::Fault(fault);
        self.fault = Some(error);
        self.info.link_up = false;
        log::error!("virtio-net: {error}: it is reset and not used any more");
        self.stop();
        self.wake();
    }

    /// Resets the device; what one that does not finish its reset may still write to is never freed.
    fn stop(&mut self) {
        let is_reset = reset(&mut *self.transport);
        if let Err(stuck) = &is_reset {
            log::error!("virtio-net: {stuck}: its buffers are lost");
            self.receive.queue().keep_for_ever();
            self.transmit.queue().keep_for_ever();
            if let Some(control) = &mut self.control {
                control.queue().keep_for_ever();
                control.memory.keep_for_ever();
            }
        }
        for buffer in self.receive.queue().drain().chain(self.transmit.queue().drain()) {
            if is_reset.is_err() {
                core::mem::forget(buffer);
            }
        }
    }
}

impl Drop for Net {
    /// The memory that the device was told of goes, so the device must not use it any more.
    fn drop(&mut self) {
        self.stop();
    }
}

/// A card with a lock around, for tasks and the interrupt handler.
pub struct Shared<L>(pub L);

impl<L: Lock<Net>> NetDevice for Shared<L> {
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
