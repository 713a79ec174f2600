//! The network cards that were found.
#![forbid(unsafe_code)]

use alloc::{boxed::Box, format, string::String, sync::Arc, vec::Vec};
use core::ops::Deref;

use drivers::{
    class::net::{MacAddress, NetDevice},
    virtio::{
        DeviceId, Features,
        net::{Net, Setting, Sizes},
        transport::Transport,
    },
};

use super::{
    Failure, failure,
    virtio::{self, rings},
    wiring::{Cause, Connect, Messages},
};
use crate::{
    cpu::{self, percpu},
    mm::frame,
    platform::Platform,
    random,
    sync::{IrqMutex, OnceCell},
};

static CARDS: IrqMutex<Vec<Card>> = IrqMutex::new(Vec::new());

/// A network card; dereferences to what can be done with it. Copies are the same card.
#[derive(Clone)]
pub struct Card {
    name: Arc<str>,
    device: Arc<Net<Platform>>,
}

impl Card {
    /// Where it was found, such as `virtio-net 00:02.0`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What was negotiated with the device.
    pub fn features(&self) -> Features {
        self.device.features()
    }

    /// Called by the interrupt handler.
    fn interrupt(&self, cause: Cause) {
        match cause {
            Cause::Any => self.device.interrupt(),
            Cause::Queues { first, step } => self.device.queue_interrupt(first, step),
        }
    }
}

impl Deref for Card {
    type Target = dyn NetDevice;

    fn deref(&self) -> &Self::Target {
        &*self.device
    }
}

/// The cards, in the order in which they were found. The first call looks for them.
pub fn cards() -> Vec<Card> {
    static TAKEN: OnceCell<()> = OnceCell::uninit();
    TAKEN.init_once(|| virtio::take(DeviceId::NET, Messages { cpus: cpus(), of_each: 2 }, bring_up));
    CARDS.lock().clone()
}

fn cpus() -> u16 {
    percpu::all().count() as u16
}

fn bring_up(transport: Box<dyn Transport>, name: String, connect: Connect) -> Result<(), Failure> {
    let current_cpu = || cpu::current().id() as u16;
    let setting = Setting { cpus: cpus(), current_cpu, sizes, mac: some_address };
    let net = Net::probe(transport, &Platform, setting).map_err(failure)?;
    let card = Card { name: name.into(), device: Arc::new(net) };
    let handler = card.clone();
    connect.to("virtio-net", Box::new(move |cause| handler.interrupt(cause))).map_err(failure)?;
    let (info, features) = (card.info(), card.features());
    let link = if info.link_up { "up" } else { "down" };
    let pairs = match card.queues() {
        1 => String::new(),
        several => format!(", {several} pairs of queues"),
    };
    log::info!("{}: {}, mtu {}, link {link}{pairs}{}", card.name(), info.mac, info.mtu, rings(features));
    log::debug!("{}: features {:#x}, {:?}", card.name(), features.bits(), info.offloads);
    CARDS.lock().push(card);
    Ok(())
}

/// Memory for each of so many pairs of queues: together a small part of what is free.
fn sizes(pairs: u16) -> Sizes {
    const LONG_BYTES: usize = 64 << 10;
    let pages = frame::statistics().free / u64::from(pairs.max(1));
    let part = |of: u64, most: u64| (pages / of).clamp(8, most) as u16;
    let long = (pages / 2048).min(16) as u16;
    Sizes { receive: part(32, 256), short: part(64, 240), long, long_bytes: LONG_BYTES }
}

/// An address for a card that has none: of those that anyone may give (IEEE 802, locally administered).
fn some_address() -> MacAddress {
    let mut bytes = [0x02; 6];
    random::fill(&mut bytes[1..]);
    MacAddress(bytes)
}
