//! The sources of random bytes that were found.
#![forbid(unsafe_code)]

use alloc::{string::String, sync::Arc, vec::Vec};
use core::ops::Deref;

use drivers::{
    class,
    virtio::entropy::{Entropy, Shared},
};

use crate::sync::IrqMutex;

static SOURCES: IrqMutex<Vec<Source>> = IrqMutex::new(Vec::new());

/// A source; dereferences to what can be asked of it. Copies are the same source.
#[derive(Clone)]
pub struct Source {
    name: Arc<str>,
    device: Arc<Shared<IrqMutex<Entropy>>>,
}

impl Source {
    /// Where it was found, such as `virtio-rng 00:04.0`.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn new(name: String, entropy: Entropy) -> Self {
        Self { name: name.into(), device: Arc::new(Shared(IrqMutex::new(entropy))) }
    }

    /// Called by the interrupt handler.
    pub(super) fn interrupt(&self) {
        self.device.0.lock().interrupt();
    }

    pub(super) fn register(self) {
        SOURCES.lock().push(self);
    }
}

impl Deref for Source {
    type Target = dyn class::Entropy;

    fn deref(&self) -> &Self::Target {
        &*self.device
    }
}

/// The sources, in the order in which they were found. The first call looks for them.
pub fn sources() -> Vec<Source> {
    super::probe_buses();
    SOURCES.lock().clone()
}
