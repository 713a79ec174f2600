//! Virtio network card: Ethernet frames (VirtIO 1.3 §5.1).
//! Queues: pairs of `receiveq` and `transmitq`, one pair a CPU where the device has so many, and `controlq`. Each pair has a lock
//! of its own. Files: `config` (features), `header` (before each frame), `pair`, `receive`, `transmit`, `control`, `probe`. Neighbours:
//! `class::net` (what callers see), `queue` (the rings).
//!
//! A frame is sent by the queue of the CPU that asks for room: the device hands what comes back to the same flow to the
//! receive queue beside it (§5.1.6.5.6), so that it interrupts the CPU that has sent.
//!
//! All memory is taken when the card is probed: a frame allocates nothing. A card that lies is reset, its buffers are
//! freed, and from then on it is a card without a cable.
#![forbid(unsafe_code)]

mod config;
mod control;
mod header;
mod pair;
mod probe;
mod receive;
mod transmit;

use alloc::boxed::Box;
use core::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    task::Waker,
};

use self::{
    config::{Config, Feature},
    control::ControlQueue,
    pair::{Pair, receiveq, transmitq},
};
use super::{Fault, Features, device::Device, transport::Interrupt};
use crate::{
    class::net::{Control, Frame, NetCounts, NetDevice, NetInfo, SendOffload},
    error::Error,
    hal::{Lock, Locks},
};

pub use self::probe::{Setting, Sizes};

/// A network card behind a virtio transport. No lock is held while another one is waited for, but that of the device.
pub struct Net<S: Locks> {
    card: S::Lock<Card>,
    lanes: Box<[Lane<S>]>,
    /// How many of them the device was told to use.
    active: u16,
    control: Option<S::Lock<ControlQueue>>,
    controlq: u16,
    features: Features,
    max_frame_bytes: usize,
    current_cpu: fn() -> u16,
}

/// The device, and what it says of itself.
struct Card {
    device: Device,
    info: NetInfo,
    announce: bool,
}

/// A pair of queues and its lock.
struct Lane<S: Locks> {
    pair: S::Lock<Pair>,
    /// There are buffers in it of which the device was not told; to be looked at without the lock.
    is_untold: AtomicBool,
    interrupts: AtomicU64,
    own_interrupts: AtomicU64,
}

impl<S: Locks> Lane<S> {
    fn with<R>(&self, act: impl FnOnce(&mut Pair) -> R) -> R {
        self.pair.with(act)
    }
}

impl<S: Locks> Net<S> {
    /// What was negotiated.
    pub fn features(&self) -> Features {
        self.features
    }

    /// The pair of that number, if it is used.
    fn lane(&self, number: u16) -> Option<&Lane<S>> {
        self.lanes.get(usize::from(number)).filter(|_| number < self.active)
    }

    fn active(&self) -> impl Iterator<Item = (u16, &Lane<S>)> {
        (0..self.active).zip(&self.lanes)
    }

    /// To be called when the device has interrupted for whatever reason.
    pub fn interrupt(&self) {
        match self.card.with(|card| card.device.take_interrupt()) {
            Ok(cause) if cause.contains(Interrupt::CONFIG) => self.reread_config(),
            Ok(_) => {}
            Err(fault) => self.fail(fault),
        }
        self.queue_interrupt(0, 1);
    }

    /// To be called when the device has interrupted for queue `first` alone, or for every `step`th one from there. Further
    /// interrupts wait until somebody does.
    pub fn queue_interrupt(&self, first: u16, step: u16) {
        if let Some(lane) = self.lane(first / 2) {
            lane.interrupts.fetch_add(1, Relaxed);
            lane.own_interrupts.fetch_add(u64::from((self.current_cpu)() == first / 2), Relaxed);
        }
        let mut last = None;
        for number in (first..2 * self.active).step_by(step.max(1).into()).map(|queue| queue / 2) {
            // Both queues of a pair may be meant.
            if last.replace(number) != Some(number)
                && let Some(lane) = self.lane(number)
            {
                lane.with(Pair::interrupt);
            }
        }
    }

    fn reread_config(&self) {
        let features = own(self.features);
        self.card.with(|card| match card.device.read_config(|transport| Config::read(transport, features)) {
            Ok(config) => {
                if config.link_up != card.info.link_up {
                    log::info!("virtio-net: link {}", if config.link_up { "up" } else { "down" });
                }
                card.info.link_up = config.link_up;
                card.announce |= config.announce;
            }
            Err(error) => log::warn!("virtio-net: {error}: change of configuration ignored"),
        });
    }

    /// What `act` makes of the control queue.
    fn command(
        &self,
        act: impl FnOnce(&mut ControlQueue, &dyn Fn(u16)) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if let Some(fault) = self.card.with(|card| card.device.fault()) {
            return Err(fault);
        }
        let control = self.control.as_ref().ok_or(Error::Request("the card takes no commands"))?;
        let notify = |position| self.card.with(|card| card.device.ring(self.controlq, position));
        let result = control.with(|queue| act(queue, &notify));
        if let Err(Error::Fault(fault)) = result {
            self.fail(fault);
        }
        result
    }

    /// What is found in pair `number`; nothing if the device lies.
    fn found<R>(&self, number: u16, act: impl FnOnce(&mut Pair) -> Result<Option<R>, Fault>) -> Option<R> {
        self.lane(number)?.with(act).unwrap_or_else(|fault| {
            self.fail(fault);
            None
        })
    }

    /// Gives the card up: it is reset, and its buffers are freed.
    fn fail(&self, fault: Fault) {
        let is_reset = self.card.with(|card| {
            card.info.link_up = false;
            card.device.fail(fault)
        });
        self.close(is_reset);
    }

    fn close(&self, is_reset: bool) {
        self.lanes.iter().for_each(|lane| lane.with(|pair| pair.close(is_reset)));
        if !is_reset && let Some(control) = &self.control {
            control.with(ControlQueue::keep_for_ever);
        }
    }
}

fn own(features: Features) -> Feature {
    Feature::from_bits_truncate(features.bits())
}

impl<S: Locks> NetDevice for Net<S> {
    fn info(&self) -> NetInfo {
        self.card.with(|card| card.info)
    }

    fn queues(&self) -> u16 {
        self.active
    }

    fn receive(&self, queue: u16) -> Option<Frame> {
        self.found(queue, Pair::receive)
    }

    fn recycle(&self, frame: Frame) {
        if let Some(lane) = self.lane(frame.queue) {
            lane.with(|pair| pair.recycle(frame));
            lane.is_untold.store(true, Relaxed);
        }
    }

    fn buffer(&self, len: usize) -> Option<Frame> {
        if len > self.max_frame_bytes {
            return None;
        }
        self.found((self.current_cpu)() % self.active, |pair| pair.buffer(len))
    }

    fn send(&self, frame: Frame, offload: SendOffload) {
        if let Some(lane) = self.lane(frame.queue) {
            lane.with(|pair| pair.send(frame, &offload));
            lane.is_untold.store(true, Relaxed);
        }
    }

    fn flush(&self) {
        for (number, lane) in self.active() {
            if !lane.is_untold.load(Relaxed) || !lane.is_untold.swap(false, Relaxed) {
                continue;
            }
            let positions = lane.with(Pair::take_notifications);
            for (queue, position) in [receiveq(number), transmitq(number)].into_iter().zip(positions) {
                if let Some(position) = position {
                    self.card.with(|card| card.device.ring(queue, position));
                }
            }
        }
    }

    fn wait(&self, queue: u16, waker: &Waker) -> bool {
        self.lane(queue).is_none_or(|lane| lane.with(|pair| pair.wait(waker)))
    }

    fn control(&self, control: Control<'_>) -> Result<(), Error> {
        let features = own(self.features);
        self.command(|queue, notify| queue.control(&control, features, notify))?;
        if let Control::Mac(mac) = control {
            self.card.with(|card| card.info.mac = mac);
        }
        Ok(())
    }

    fn take_announcement(&self) -> bool {
        let is_asked =
            self.card.with(|card| core::mem::take(&mut card.announce) && card.device.fault().is_none());
        if is_asked && self.control.is_some() {
            match self.command(ControlQueue::acknowledge_announcement) {
                Ok(()) | Err(Error::Fault(_)) => {}
                Err(error) => log::warn!("virtio-net: announcement: {error}"),
            }
        }
        is_asked
    }

    fn queue_counts(&self, queue: u16) -> NetCounts {
        let Some(lane) = self.lane(queue) else { return NetCounts::default() };
        NetCounts {
            interrupts: lane.interrupts.load(Relaxed),
            own_interrupts: lane.own_interrupts.load(Relaxed),
            ..lane.with(Pair::counts)
        }
    }
}

impl<S: Locks> Drop for Net<S> {
    /// The memory that the device was told of goes, so the device must not use it any more.
    fn drop(&mut self) {
        let is_reset = self.card.with(|card| card.device.stop());
        self.close(is_reset);
    }
}
