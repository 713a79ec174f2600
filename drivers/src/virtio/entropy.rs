//! Virtio entropy device: a source of random bytes (VirtIO 1.3 §5.4).
//! One queue, `requestq`. Neighbours: `requests` (what is in flight), `class::Entropy` (what callers see).
#![forbid(unsafe_code)]

use alloc::boxed::Box;
use core::task::Waker;

use super::{
    Fault, Features, Init, Token,
    device::Device,
    requests::{Answer, For, NoRoom, Requests},
    transport::Transport,
};
use crate::{
    class::{self, Exclusive, Outcome, Shared, Submitted},
    dma::{Direction, DmaBuffer},
    error::Error,
    hal::{Hal, Lock},
};

const REQUESTQ: u16 = 0;

/// An entropy source behind a virtio transport. One task or handler at a time: [`Shared`] puts a lock around.
pub struct Entropy {
    device: Device,
    requests: Requests,
}

impl Entropy {
    /// Brings the device up (§3.1.1). It has no features and no configuration of its own.
    ///
    /// # Errors
    /// The device does not come up.
    pub fn probe(transport: Box<dyn Transport>, hal: &dyn Hal) -> Result<Self, Error> {
        let mut init = Init::begin(transport, Features::empty())?;
        let requests = Requests::new(&mut init, hal, REQUESTQ, 1)?;
        Ok(Self { device: Device::run(init), requests })
    }

    /// What was negotiated.
    pub fn features(&self) -> Features {
        self.device.features()
    }

    /// To be called when the device has interrupted for everything.
    pub fn interrupt(&mut self) {
        match self.device.take_interrupt() {
            Ok(_) => self.queue_interrupt(),
            Err(fault) => self.fail(fault),
        }
    }

    /// To be called when the device has interrupted for its queue alone, or may have used a buffer.
    pub fn queue_interrupt(&mut self) {
        if self.device.fault().is_none()
            && let Err(fault) = self.requests.collect()
        {
            self.fail(fault);
        }
    }

    fn fail(&mut self, fault: Fault) {
        let is_reset = self.device.fail(fault);
        self.requests.fail(Error::Fault(fault), is_reset);
    }
}

impl Exclusive for Entropy {
    type Request = DmaBuffer;
    type Outcome = Outcome;

    fn submit(&mut self, buffer: DmaBuffer, waker: &Waker) -> Submitted<DmaBuffer, Outcome> {
        if buffer.is_empty() {
            let result = Err(Error::Request("the buffer has no room"));
            return Submitted::Refused(Outcome { result, buffer: Some(buffer) });
        }
        let segment = buffer.whole(Direction::FromDevice);
        let data_bytes = buffer.len();
        match self.requests.send(&[segment], (Some(buffer), data_bytes), For::Holder(waker)) {
            Ok(token) => {
                if let Some(position) = self.requests.take_notification() {
                    self.device.ring(REQUESTQ, position);
                }
                Submitted::Sent(token)
            }
            Err((NoRoom::Full, Some(buffer))) => {
                self.requests.wait_for_room(waker);
                Submitted::Full(buffer)
            }
            Err((NoRoom::Full, None)) => unreachable!("what was not sent keeps its buffer"),
            Err((NoRoom::Dead(error), buffer)) => Submitted::Refused(Outcome { result: Err(error), buffer }),
        }
    }

    fn poll(&mut self, token: Token, waker: &Waker) -> Result<Outcome, Token> {
        let Answer { buffer, written, .. } = self.requests.poll(token, waker)?;
        // Without a length there is no telling which bytes are random (§5.4.6.1).
        let result = written.and_then(|written| match written {
            Some(1..) => Ok(written.unwrap_or(0) as usize),
            _ => Err(Error::Failed("that it wrote nothing")),
        });
        Ok(Outcome { result, buffer })
    }

    fn forget(&mut self, token: Token) {
        self.requests.forget(token);
    }
}

impl Drop for Entropy {
    /// The memory that the device was told of goes, so the device must not use it any more.
    fn drop(&mut self) {
        if !self.device.stop() {
            self.requests.keep_for_ever();
        }
    }
}

impl<L: Lock<Value = Entropy>> class::Entropy for Shared<L> {}
