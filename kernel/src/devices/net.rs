//! The network cards that were found.
#![forbid(unsafe_code)]

use alloc::{boxed::Box, string::String, sync::Arc, vec::Vec};
use core::ops::Deref;

use drivers::{
    class::net::{MacAddress, NetDevice},
    virtio::{
        DeviceId, Features,
        net::{Net, Shared, Sizes},
        transport::Transport,
    },
};

use super::{
    Failure, failure,
    virtio::{self, rings},
    wiring::{Cause, Connect},
};
use crate::{
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
    device: Arc<Shared<IrqMutex<Net>>>,
}

impl Card {
    /// Where it was found, such as `virtio-net 00:02.0`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What was negotiated with the device.
    pub fn features(&self) -> Features {
        self.device.0.lock().features()
    }

    /// Called by the interrupt handler.
    fn interrupt(&self, cause: Cause) {
        let mut net = self.device.0.lock();
        match cause {
            Cause::Any => net.interrupt(),
            Cause::Queues { .. } => net.queue_interrupt(),
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
    TAKEN.init_once(|| virtio::take(DeviceId::NET, 1, bring_up));
    CARDS.lock().clone()
}

fn bring_up(transport: Box<dyn Transport>, name: String, connect: Connect) -> Result<(), Failure> {
    let net = Net::probe(transport, &Platform, sizes(), some_address).map_err(failure)?;
    let card = Card { name: name.into(), device: Arc::new(Shared(IrqMutex::new(net))) };
    let handler = card.clone();
    connect.to("virtio-net", Box::new(move |cause| handler.interrupt(cause))).map_err(failure)?;
    let (info, features) = (card.info(), card.features());
    let link = if info.link_up { "up" } else { "down" };
    log::info!("{}: {}, link {link}{}", card.name(), info.mac, rings(features));
    log::debug!("{}: features {:#x}, {:?}", card.name(), features.bits(), info.offloads);
    CARDS.lock().push(card);
    Ok(())
}

/// Memory for a card: a small part of what is free.
fn sizes() -> Sizes {
    const LONG_BYTES: usize = 64 << 10;
    let pages = frame::statistics().free;
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
