//! Virtio block device: a disk of 512-byte sectors (VirtIO 1.3 §5.2).
//! Files: `info` (what it is like), `request` (what it is asked, as it reads it).
//! Queues `requestq1` to `requestqN`, one a CPU where the device has so many. Neighbours: `requests` (what is in flight), `class::BlockDevice` (what callers see).
#![forbid(unsafe_code)]

mod info;
mod request;

use alloc::{boxed::Box, vec::Vec};
use core::{sync::atomic::Ordering::Relaxed, task::Waker};

use self::{
    info::{feature, queues_offered, read_info},
    request::{Head, ID_BYTES, area, into_buffer, sectors, status},
};
use super::{
    Fault, Features, Init, Token,
    device::Device,
    queue::Counts,
    requests::{Answer, NotSent, Requests},
    transport::{Interrupt, Transport, read_config},
};
use crate::{
    class::{self, BlockDevice, BlockInfo, BlockRequest, Outcome, Submitted},
    dma::{Direction, Segment},
    error::Error,
    hal::{Hal, Lock},
};

/// The CPUs that a device's queues are shared out to.
#[derive(Clone, Copy, Debug)]
pub struct Cpus {
    /// How many there are, or may come to be.
    pub count: u16,
    /// The number of the one that asks, from 0 on.
    pub current: fn() -> u16,
}

/// A disk behind a virtio transport. One task or handler at a time: [`Shared`] puts a lock around.
pub struct Block {
    device: Device,
    queues: Vec<Requests>,
    cpus: Cpus,
    info: BlockInfo,
}

impl Block {
    /// Brings the device up (§3.1.1, §5.2.5), with a queue for each CPU if it has so many, and reads what it is like.
    ///
    /// # Errors
    /// The device does not come up, or describes itself as what cannot be.
    pub fn probe(transport: Box<dyn Transport>, hal: &dyn Hal, cpus: Cpus) -> Result<Self, Error> {
        let mut init = Init::begin(transport, Features::from_bits_retain(feature::ALL))?;
        let features = init.features().bits();
        let info = read_config(init.transport(), |transport| read_info(transport, features))?;
        let count = queues_offered(init.transport(), features)?.min(cpus.count).max(1);
        let queues: Result<_, _> = (0..count).map(|index| Requests::new(&mut init, hal, index)).collect();
        let mut queues: Vec<Requests> = match queues {
            Ok(queues) => queues,
            // Rings of which the device was told are gone already, so it is reset for good.
            Err(error) => return Err(init.abandon(error)),
        };
        queues.shrink_to_fit();
        Ok(Self { device: Device::run(init), queues, cpus, info })
    }

    /// What was negotiated.
    pub fn features(&self) -> Features {
        self.device.features()
    }

    /// What it is like.
    pub fn info(&self) -> BlockInfo {
        self.info
    }

    /// Queues in use: their numbers are below this.
    pub fn queues(&self) -> u16 {
        self.queues.len() as u16
    }

    /// What the queues have done so far.
    pub fn counts(&self) -> Counts {
        self.queues.iter().fold(Counts::default(), |sum, queue| sum + queue.counts())
    }

    /// Why the device is not used any more, if it is not.
    pub fn fault(&self) -> Option<Error> {
        self.device.fault()
    }

    /// To be called when the device has interrupted for everything.
    pub fn interrupt(&mut self) {
        let cause = self.device.take_interrupt();
        let all = cause.and_then(|cause| {
            if self.device.fault().is_none() {
                self.queues.iter_mut().try_for_each(Requests::collect)?;
            }
            Ok(cause)
        });
        match all {
            Ok(cause) if cause.contains(Interrupt::CONFIG) => self.reread_info(),
            Ok(_) => {}
            Err(fault) => self.fail(fault),
        }
    }

    /// To be called when the device has interrupted for queue `first` alone, or for every `step`th from there.
    pub fn queue_interrupt(&mut self, first: u16, step: u16) {
        if self.device.fault().is_some() {
            return;
        }
        let mut queues = self.queues.iter_mut().skip(first.into()).step_by(step.max(1).into());
        if let Err(fault) = queues.try_for_each(Requests::collect) {
            self.fail(fault);
        }
    }

    /// Takes back every request that the device has and has not answered (§2.6.1): their buffers come back with
    /// [`Error::Cancelled`].
    ///
    /// # Errors
    /// The device cannot reset a queue, or fails to.
    pub fn cancel(&mut self, hal: &dyn Hal) -> Result<(), Error> {
        // What was answered before counts as answered.
        self.queue_interrupt(0, 1);
        self.queues.iter_mut().try_for_each(|queue| queue.cancel(&mut self.device, hal))
    }

    fn fail(&mut self, fault: Fault) {
        let is_reset = self.device.fail(fault);
        self.queues.iter_mut().for_each(|queue| queue.fail(Error::Fault(fault), is_reset));
    }

    /// A disk may change its size while it runs (§5.2.5).
    fn reread_info(&mut self) {
        let features = self.device.features().bits();
        match self.device.read_config(|transport| read_info(transport, features)) {
            Ok(info) if info != self.info => {
                log::info!("virtio-blk: now {} sectors", info.sectors);
                self.info = info;
            }
            Ok(_) => {}
            Err(error) => log::warn!("virtio-blk: {error}: change of configuration ignored"),
        }
    }

    /// Sends a request; the names are those of [`class::Requests`].
    pub fn submit(&mut self, request: BlockRequest, waker: &Waker) -> Submitted<BlockRequest, Outcome> {
        if let Err(error) = self.check(&request) {
            return Submitted::Refused(Outcome { result: Err(error), buffer: into_buffer(request) });
        }
        let count = self.queues.len();
        let requests = &mut self.queues[usize::from((self.cpus.current)()) % count];
        let Some(token) = requests.reserve() else {
            requests.wait_for_room(waker);
            return Submitted::Full(request);
        };
        let head = Head::of(&request);
        head.write(requests, &token);
        let mut segments = [requests.area(&token, area::HEADER, Direction::ToDevice); 3];
        let mut count = 1;
        let mut push = |segment: Segment| {
            segments[count] = segment;
            count += 1;
        };
        match &request {
            BlockRequest::Read { buffer, .. } => push(buffer.segment(0..buffer.len(), Direction::FromDevice)),
            BlockRequest::Write { buffer, .. } => push(buffer.segment(0..buffer.len(), Direction::ToDevice)),
            BlockRequest::GetId { buffer } => push(buffer.segment(0..ID_BYTES, Direction::FromDevice)),
            BlockRequest::Discard { .. } | BlockRequest::WriteZeroes { .. } => {
                push(requests.area(&token, area::RANGE, Direction::ToDevice))
            }
            BlockRequest::Flush => {}
        }
        push(requests.area(&token, area::STATUS, Direction::FromDevice));
        let data_bytes = match &request {
            BlockRequest::Read { buffer, .. } => buffer.len(),
            BlockRequest::GetId { .. } => ID_BYTES,
            _ => 0,
        };
        let buffer = (into_buffer(request), data_bytes);
        match requests.send(&mut self.device, token, &segments[..count], buffer, waker) {
            Ok(token) => Submitted::Sent(token),
            Err(NotSent::Full(buffer)) => Submitted::Full(head.into_request(buffer)),
            Err(NotSent::Dead(error, buffer)) => Submitted::Refused(Outcome { result: Err(error), buffer }),
        }
    }

    /// Whether the device can be asked this.
    fn check(&self, request: &BlockRequest) -> Result<(), Error> {
        let info = &self.info;
        let (is_write, sector, sectors, limit) = match request {
            BlockRequest::Read { sector, buffer } => (false, *sector, sectors(buffer)?, info.max_bytes / 512),
            BlockRequest::Write { sector, buffer } => (true, *sector, sectors(buffer)?, info.max_bytes / 512),
            BlockRequest::Discard { sector, count } => (true, *sector, *count, info.max_discard_sectors),
            BlockRequest::WriteZeroes { sector, count, .. } => {
                (true, *sector, *count, info.max_write_zeroes_sectors)
            }
            BlockRequest::GetId { buffer } if buffer.len() < ID_BYTES => {
                return Err(Error::Request("the buffer for a name is shorter than 20 bytes"));
            }
            BlockRequest::Flush | BlockRequest::GetId { .. } => return Ok(()),
        };
        match () {
            () if is_write && info.read_only => Err(Error::Request("the device is read-only")),
            () if sectors == 0 => Err(Error::Request("it is about no sector")),
            () if sectors > limit => Err(Error::Request("it is longer than the device takes")),
            () if sector.checked_add(sectors.into()).is_none_or(|end| end > info.sectors) => {
                Err(Error::Request("it goes beyond the end of the device"))
            }
            () => Ok(()),
        }
    }

    /// Takes the answer to a request, or gives the token back.
    ///
    /// # Errors
    /// There is no answer yet.
    pub fn poll(&mut self, token: Token, waker: &Waker) -> Result<Outcome, Token> {
        // A token of another device cannot name a queue that is not here.
        let count = self.queues.len();
        let requests = &mut self.queues[usize::from(token.queue) % count];
        let status = requests.area_offset(&token, area::STATUS.start);
        let Answer { buffer, data_bytes, written } = requests.poll(token, waker)?;
        let status = requests.area_memory().u8(status).load(Relaxed);
        let result = written.and_then(|written| match status {
            // The status byte is the last of what the device writes.
            status::OK if written.is_some_and(|written| (written as usize) <= data_bytes) => {
                Err(Error::Failed("success, but wrote less than was asked for"))
            }
            status::OK => Ok(data_bytes),
            status::IOERR => Err(Error::Failed("an I/O error")),
            status::UNSUPP => Err(Error::Failed("that it does not support the request")),
            status::NONE => Err(Error::Failed("no status")),
            _ => Err(Error::Failed("an unknown status")),
        });
        Ok(Outcome { result, buffer })
    }

    /// Nobody wants the answer.
    pub fn forget(&mut self, token: Token) {
        let count = self.queues.len();
        self.queues[usize::from(token.queue) % count].forget(token);
    }
}

impl Drop for Block {
    /// The memory that the device was told of goes, so the device must not use it any more.
    fn drop(&mut self) {
        if !self.device.stop() {
            self.queues.iter_mut().for_each(Requests::keep_for_ever);
        }
    }
}

/// A disk with a lock around, for tasks and the interrupt handler.
pub struct Shared<L>(pub L);

impl<L: Lock<Block>> class::Requests for Shared<L> {
    type Request = BlockRequest;
    type Outcome = Outcome;

    fn submit(&self, request: BlockRequest, waker: &Waker) -> Submitted<BlockRequest, Outcome> {
        self.0.with(|block| block.submit(request, waker))
    }

    fn poll(&self, token: Token, waker: &Waker) -> Result<Outcome, Token> {
        self.0.with(|block| block.poll(token, waker))
    }

    fn forget(&self, token: Token) {
        self.0.with(|block| block.forget(token));
    }
}

impl<L: Lock<Block>> BlockDevice for Shared<L> {
    fn info(&self) -> BlockInfo {
        self.0.with(|block| block.info)
    }
}
