//! A device that runs: its registers, what was agreed with it, and whether it still can be believed (VirtIO 1.3 §2.1).
//!
//! A driver has one of these and its queues beside it. Neighbours: `init` (how it came to run), `requests` and the
//! device files (who owns the queues), `queue` (what is notified).
#![forbid(unsafe_code)]

use alloc::boxed::Box;

use super::{
    Fault, Features, Init, Status,
    init::reset,
    queue::Queue,
    transport::{Interrupt, Transport, read_config},
};
use crate::error::Error;

/// A device that was brought to DRIVER_OK.
pub(super) struct Device {
    transport: Box<dyn Transport>,
    features: Features,
    fault: Option<Error>,
    /// It has finished the reset that followed.
    is_reset: bool,
}

impl Device {
    /// Lets the device run; its queues are made.
    pub(super) fn run(init: Init) -> Self {
        let features = init.features();
        Self { transport: init.finish(), features, fault: None, is_reset: false }
    }

    /// What was negotiated.
    pub(super) fn features(&self) -> Features {
        self.features
    }

    /// Why the device is not used any more, if it is not.
    pub(super) fn fault(&self) -> Option<Error> {
        self.fault
    }

    /// Tells the device of what was added to queue `index`, if it wants to know.
    pub(super) fn notify<T>(&mut self, index: u16, queue: &mut Queue<T>) {
        if let Some(position) = queue.take_notification() {
            self.ring(index, position);
        }
    }

    /// Notifies the device of queue `index`, whose ring has come to `position`.
    pub(super) fn ring(&mut self, index: u16, position: u16) {
        if self.fault.is_none() {
            let tells_position = self.features.contains(Features::NOTIFICATION_DATA);
            self.transport.notify(index, tells_position.then_some(position));
        }
    }

    /// Resets queue `index` alone, and enables `again` in its place (§2.6.1).
    ///
    /// # Errors
    /// The device cannot, or does not finish the reset: then the old queue stays in use.
    pub(super) fn restart_queue<T>(&mut self, index: u16, again: &Queue<T>) -> Result<(), Error> {
        if let Some(error) = self.fault {
            return Err(error);
        }
        if !self.features.contains(Features::RING_RESET) {
            return Err(Error::Request("the device cannot reset a queue"));
        }
        if !self.transport.reset_queue(index) {
            return Err(Error::Failed("no end of a queue's reset"));
        }
        self.transport.enable_queue(index, &again.addresses())
    }

    /// Reads, and so acknowledges, why the device has interrupted. Nothing once it has failed.
    ///
    /// # Errors
    /// The device asks for a reset (§2.1.2).
    pub(super) fn take_interrupt(&mut self) -> Result<Interrupt, Fault> {
        if self.fault.is_some() {
            return Ok(Interrupt::empty());
        }
        let cause = self.transport.take_interrupt();
        let may_need_reset = cause.contains(Interrupt::CONFIG);
        if may_need_reset && self.transport.status().contains(Status::DEVICE_NEEDS_RESET) {
            return Err(Fault::NeedsReset);
        }
        Ok(cause)
    }

    /// Gives the device up for `fault`, resets it, and reports both. What it returns says whether the reset is done: if
    /// not, the device may still write to what it was told of.
    pub(super) fn fail(&mut self, fault: Fault) -> bool {
        if self.fault.is_some() {
            return self.is_reset;
        }
        let error = Error::Fault(fault);
        self.fault = Some(error);
        let name = self.transport.device_id().name();
        log::error!("virtio-{name}: {error}: it is reset and not used any more");
        let is_reset = reset(&mut *self.transport);
        if let Err(stuck) = &is_reset {
            log::error!("virtio-{name}: {stuck}: its buffers are lost");
        }
        self.is_reset = is_reset.is_ok();
        self.is_reset
    }

    /// As [`fail`](Self::fail), for who may not log.
    pub(super) fn fail_quietly(&mut self, fault: Fault) -> bool {
        self.fault = Some(Error::Fault(fault));
        self.is_reset = self.stop();
        self.is_reset
    }

    /// Resets a device whose driver goes; false if it does not finish the reset.
    pub(super) fn stop(&mut self) -> bool {
        reset(&mut *self.transport).is_ok()
    }

    /// A configuration that was read as one piece.
    ///
    /// # Errors
    /// It keeps changing, or `read` refuses it.
    pub(super) fn read_config<R>(
        &self,
        read: impl Fn(&dyn Transport) -> Result<R, Error>,
    ) -> Result<R, Error> {
        read_config(&*self.transport, read)
    }

    /// Writes the 32-bit word at `offset` of the configuration, where the device lets the driver write.
    pub(super) fn write_config(&mut self, offset: usize, value: u32) {
        if self.fault.is_none() {
            self.transport.set_config_u32(offset, value);
        }
    }
}
