//! The handshake that brings a device up, step by step (VirtIO 1.3 §3.1.1).
#![forbid(unsafe_code)]

use alloc::boxed::Box;

use super::{
    Features, Status,
    queue::{self, MAX_SEGMENTS, Queue},
    transport::Transport,
};
use crate::{error::Error, hal::Hal};

/// Reads of the status that a reset may take. A read over PCI takes about a microsecond.
const RESET_READS: u32 = 100_000;

/// A device whose features are agreed upon, and which does not run yet.
pub struct Init {
    transport: Box<dyn Transport>,
    features: Features,
}

impl Init {
    /// Resets the device and agrees with it on those of `wanted` and of [`Features::TRANSPORT`] that it offers, with VERSION_1 among
    /// them.
    ///
    /// # Errors
    /// The device does not come out of reset, is a legacy one, or refuses what it has offered. It is marked failed.
    pub fn begin(transport: Box<dyn Transport>, wanted: Features) -> Result<Self, Error> {
        Self::begin_with(transport, &|_| wanted | Features::TRANSPORT)
    }

    /// As [`begin`](Self::begin), where it depends on what is offered what of it is wanted, of all features: some are of no use without
    /// others (§2.2.1).
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub fn begin_with(
        mut transport: Box<dyn Transport>,
        choose: &dyn Fn(Features) -> Features,
    ) -> Result<Self, Error> {
        let agreed = agree(&mut *transport, choose);
        match agreed {
            Ok(features) => Ok(Self { transport, features }),
            Err(error) => {
                transport.set_status(transport.status() | Status::FAILED);
                Err(error)
            }
        }
    }

    /// Resets the device, and agrees with it anew.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub fn begin_again(self, choose: &dyn Fn(Features) -> Features) -> Result<Self, Error> {
        Self::begin_with(self.transport, choose)
    }

    /// What was agreed upon.
    pub fn features(&self) -> Features {
        self.features
    }

    /// The registers.
    pub fn transport(&self) -> &dyn Transport {
        &*self.transport
    }

    /// Descriptors that queue `index` gets.
    ///
    /// # Errors
    /// The device has no such queue.
    pub fn queue_size(&mut self, index: u16) -> Result<u16, Error> {
        let offered = self.transport.queue_max_size(index);
        let bad = Error::BadQueue { index, found: offered, expected: "at least 1" };
        queue::size(offered, self.features).ok_or(bad)
    }

    /// Makes queue `index` and tells the device of it.
    ///
    /// # Errors
    /// The device has no such queue, or there is no memory.
    pub fn queue<T>(&mut self, index: u16, hal: &dyn Hal) -> Result<Queue<T>, Error> {
        self.queue_with_parts(index, hal, MAX_SEGMENTS)
    }

    /// As [`queue`](Self::queue), for buffers of `parts` segments each at most.
    ///
    /// # Errors
    /// The device has no such queue, or there is no memory.
    pub(super) fn queue_with_parts<T>(
        &mut self,
        index: u16,
        hal: &dyn Hal,
        parts: usize,
    ) -> Result<Queue<T>, Error> {
        let queue = Queue::with_parts(hal, (self.queue_size(index)?, parts), self.features)?;
        self.transport.enable_queue(index, &queue.addresses())?;
        Ok(queue)
    }

    /// As [`queue`](Self::queue), of `most` descriptors at most, for buffers in one piece: without room for indirect
    /// descriptors, which a driver may leave unused (§2.7.5.3).
    ///
    /// # Errors
    /// The device has no such queue, or there is no memory.
    pub fn small_queue<T>(&mut self, index: u16, hal: &dyn Hal, most: u16) -> Result<Queue<T>, Error> {
        let offered = u32::from(self.queue_size(index)?).min(most.into());
        let features = self.features - Features::INDIRECT_DESC;
        let size = queue::size(offered, features);
        let bad = Error::BadQueue { index, found: offered, expected: "at least 1" };
        let queue = Queue::new(hal, size.ok_or(bad)?, features)?;
        self.transport.enable_queue(index, &queue.addresses())?;
        Ok(queue)
    }

    /// Gives the device up because of `error`, before it ran.
    pub fn abandon(mut self, error: Error) -> Error {
        self.transport.set_status(self.transport.status() | Status::FAILED);
        reset(&mut *self.transport).err().unwrap_or(error)
    }

    /// Lets the device run.
    pub fn finish(mut self) -> Box<dyn Transport> {
        self.transport.set_status(self.transport.status() | Status::DRIVER_OK);
        self.transport
    }
}

fn agree(transport: &mut dyn Transport, choose: &dyn Fn(Features) -> Features) -> Result<Features, Error> {
    reset(transport)?;
    transport.set_status(Status::ACKNOWLEDGE);
    transport.set_status(Status::ACKNOWLEDGE | Status::DRIVER);
    let offered = transport.device_features();
    if offered & Features::VERSION_1.bits() == 0 {
        return Err(Error::NotModern { offered });
    }
    let offered = Features::from_bits_retain(offered);
    let mut features = offered & (choose(offered) | Features::VERSION_1);
    features
        .set(Features::RING_RESET, features.contains(Features::RING_RESET) && transport.can_reset_queues());
    transport.set_driver_features(features.bits());
    transport.set_status(Status::ACKNOWLEDGE | Status::DRIVER | Status::FEATURES_OK);
    if !transport.status().contains(Status::FEATURES_OK) {
        return Err(Error::FeaturesRefused { chosen: features.bits() });
    }
    Ok(features)
}

/// Resets the device and waits, for a bounded time, until it says that it is done (§2.4). From then on it does not
/// access memory that it was told of.
///
/// # Errors
/// [`Error::ResetStuck`].
pub(super) fn reset(transport: &mut dyn Transport) -> Result<(), Error> {
    transport.set_status(Status::empty());
    let mut status = Status::all();
    for _ in 0..RESET_READS {
        status = transport.status();
        if status.is_empty() {
            return Ok(());
        }
    }
    Err(Error::ResetStuck { status: status.bits(), reads: RESET_READS })
}
