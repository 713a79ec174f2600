//! The sources of random bytes that were found.
#![forbid(unsafe_code)]

use alloc::{boxed::Box, string::String, sync::Arc, vec::Vec};
use core::ops::Deref;

use drivers::{
    class::{self, Shared},
    virtio::{DeviceId, entropy::Entropy, transport::Transport},
};

use super::{
    Failure, failure,
    virtio::{self, rings},
    wiring::{Cause, Connect, Messages},
};
use crate::{
    platform::Platform,
    sync::{IrqMutex, OnceCell},
};

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

    /// Takes what the device has answered, for who cannot wait for an interrupt.
    pub(crate) fn look(&self) {
        self.device.0.lock().queue_interrupt();
    }

    /// Called by the interrupt handler.
    fn interrupt(&self, cause: Cause) {
        let mut entropy = self.device.0.lock();
        match cause {
            Cause::Any => entropy.interrupt(),
            Cause::Queues { .. } => entropy.queue_interrupt(),
        }
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
    static TAKEN: OnceCell<()> = OnceCell::uninit();
    TAKEN.init_once(|| virtio::take(DeviceId::ENTROPY, Messages::ONE, bring_up));
    SOURCES.lock().clone()
}

fn bring_up(transport: Box<dyn Transport>, name: String, connect: Connect) -> Result<(), Failure> {
    let entropy = Entropy::probe(transport, &Platform).map_err(failure)?;
    let features = entropy.features();
    let source = Source { name: name.into(), device: Arc::new(Shared(IrqMutex::new(entropy))) };
    let handler = source.clone();
    connect.to("virtio-rng", Box::new(move |cause| handler.interrupt(cause))).map_err(failure)?;
    log::info!("{}: random bytes{}", source.name(), rings(features));
    SOURCES.lock().push(source);
    Ok(())
}
