//! How a card is brought up (VirtIO 1.3 §3.1.1, §5.1.5): what is negotiated, how many pairs of queues it gets.
//! Neighbours: `mod` (the card), `config` (what the device says), `pair` and `control` (its queues).
#![forbid(unsafe_code)]

use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, AtomicU64};

use super::{
    Card, Lane, Net,
    config::{Config, Feature, pairs_offered},
    control::ControlQueue,
    header, own,
    pair::Pair,
    transmit,
};
use crate::{
    class::net::{ETHERNET_HEADER_BYTES, MacAddress, NetDevice, NetInfo},
    error::Error,
    hal::{Hal, Locks},
    virtio::{
        Features, Init,
        device::Device,
        transport::{Transport, read_config},
    },
};

/// How much memory a pair of queues gets.
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

/// Where a card finds itself.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// CPUs that there are, or may come to be: 1 at least.
    pub cpus: u16,
    /// The number of the one that asks, from 0 on.
    pub current_cpu: fn() -> u16,
    /// How much memory each of so many pairs of queues gets.
    pub sizes: fn(u16) -> Sizes,
    /// An address for a card that has none of its own.
    pub mac: fn() -> MacAddress,
}

impl<S: Locks> Net<S> {
    /// Brings the card up (§3.1.1, §5.1.5), with a pair of queues for each CPU if it has so many.
    ///
    /// # Errors
    /// The device does not come up, or describes itself as what cannot be.
    pub fn probe(transport: Box<dyn Transport>, hal: &dyn Hal, setting: Setting) -> Result<Self, Error> {
        let can_send_long = (setting.sizes)(1).long > 0;
        let choose = |cpus| {
            move |offered| {
                let own = Feature::choose(offered, can_send_long, cpus);
                Features::TRANSPORT | Features::from_bits_retain(own.bits())
            }
        };
        let mut init = Init::begin_with(transport, &choose(setting.cpus))?;
        let mut found = control_queue(&mut init, hal);
        if let Err(error) = &found
            && own(init.features()).contains(Feature::MQ)
        {
            // Where the control queue is depends on how many pairs there are (§5.1.2).
            log::warn!("virtio-net: {error}: it gets one pair of queues");
            init = init.begin_again(&choose(1))?;
            found = control_queue(&mut init, hal);
        }
        let (offered, control) = match found {
            Ok(found) => found,
            Err(error) => return Err(init.abandon(error)),
        };
        let count = offered.min(setting.cpus).max(1);
        let made = read_config(init.transport(), |transport| Config::read(transport, own(init.features())))
            .and_then(|config| Ok((config, Self::make(&mut init, hal, (setting.sizes)(count), count)?)));
        let (config, lanes) = match made {
            Ok(made) => made,
            // Rings of which the device was told are gone already, so it is reset for good.
            Err(error) => return Err(init.abandon(error)),
        };
        let features = init.features();
        let short_frame = transmit::SHORT_BYTES - header::BYTES;
        let long_frame = (setting.sizes)(count).long_bytes.saturating_sub(header::BYTES);
        let takes_long = lanes.iter().all(|lane| lane.with(|pair| pair.takes_long));
        let info = NetInfo {
            mac: config.mac.unwrap_or_else(setting.mac),
            mtu: config.mtu.min((short_frame - ETHERNET_HEADER_BYTES) as u16),
            link_up: config.link_up,
            offloads: own(features).offloads(),
            max_frame_bytes: if takes_long { long_frame } else { short_frame },
        };
        let card = Card { device: Device::run(init), info, announce: config.announce };
        let mut net = Self {
            card: S::lock(card),
            lanes,
            active: 1,
            control: control.map(S::lock),
            controlq: 2 * offered,
            features,
            max_frame_bytes: info.max_frame_bytes,
            current_cpu: setting.current_cpu,
        };
        net.use_all_pairs();
        net.flush();
        Ok(net)
    }

    /// `count` pairs of queues.
    fn make(init: &mut Init, hal: &dyn Hal, sizes: Sizes, count: u16) -> Result<Box<[Lane<S>]>, Error> {
        let mut lane = |number| {
            let pair = Pair::new(init, hal, number, sizes)?;
            Ok(Lane {
                pair: S::lock(pair),
                is_untold: AtomicBool::new(true),
                interrupts: AtomicU64::new(0),
                own_interrupts: AtomicU64::new(0),
            })
        };
        (0..count).map(&mut lane).collect()
    }

    /// The device uses one pair of queues until it is told (§5.1.6.5.5).
    fn use_all_pairs(&mut self) {
        let pairs = self.lanes.len() as u16;
        if pairs < 2 {
            return;
        }
        match self.command(|queue, notify| queue.set_pairs(pairs, notify)) {
            Ok(()) => self.active = pairs,
            Err(error) => log::warn!("virtio-net: {pairs} pairs of queues: {error}: one is used"),
        }
    }
}

/// How many pairs of queues there are, and the control queue behind them, if there is one.
fn control_queue(init: &mut Init, hal: &dyn Hal) -> Result<(u16, Option<ControlQueue>), Error> {
    let features = own(init.features());
    let pairs = pairs_offered(init.transport(), features)?;
    if !features.contains(Feature::CTRL_VQ) {
        return Ok((pairs, None));
    }
    let memory = ControlQueue::memory(hal)?;
    // The most pairs are half of the most queues, and the control queue would be one more.
    let index =
        pairs.checked_mul(2).ok_or(Error::Request("there is no number left for the control queue"))?;
    Ok((pairs, Some(ControlQueue::new(init.queue(index, hal)?, memory))))
}
