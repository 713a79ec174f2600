//! The network cards that were found.
#![forbid(unsafe_code)]

use alloc::{string::String, sync::Arc, vec::Vec};
use core::ops::Deref;

use drivers::{
    class::net::{MacAddress, NetDevice},
    virtio::{
        Features,
        net::{Net, Shared, Sizes},
    },
};

use crate::{mm::frame, sync::IrqMutex};

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

    pub(super) fn new(name: String, net: Net) -> Self {
        Self { name: name.into(), device: Arc::new(Shared(IrqMutex::new(net))) }
    }

    /// Called by the interrupt handler.
    pub(super) fn interrupt(&self) {
        self.device.0.lock().interrupt();
    }

    pub(super) fn register(self) {
        CARDS.lock().push(self);
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
    super::probe_buses();
    CARDS.lock().clone()
}

/// Memory for a card: a small part of what is free.
pub(super) fn sizes() -> Sizes {
    const LONG_BYTES: usize = 64 << 10;
    let pages = frame::statistics().free;
    let part = |of: u64, most: u64| (pages / of).clamp(8, most) as u16;
    let long = (pages / 2048).min(16) as u16;
    Sizes { receive: part(32, 256), short: part(64, 128), long, long_bytes: LONG_BYTES }
}

/// An address for a card that has none: of those that anyone may give (IEEE 802, locally administered).
pub(super) fn some_address() -> MacAddress {
    let [.., a, b, c, d, e] = pv_ops::rdtsc().to_be_bytes();
    MacAddress([0x02, a, b, c, d, e])
}
