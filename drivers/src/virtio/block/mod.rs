//! Virtio block device: a disk of 512-byte sectors (VirtIO 1.3 §5.2).
//! Files: `info` (what it is like), `request` (what it is asked, as it reads it), `submit`
//! (on its way in), `gather` (neighbours as one), `queue` (in flight), `batch` (many of one task), this one (the disk).
//! Queues `requestq1` to `requestqN`, one a CPU where the device has so many: each has a lock of its own, that of its CPU's
//! requests and interrupts. Neighbours: `requests` (what is in flight), `class::BlockDevice` (what callers see).
#![forbid(unsafe_code)]

mod batch;
mod gather;
mod info;
mod queue;
mod request;
mod submit;

use alloc::boxed::Box;
use core::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    task::Waker,
};

use self::{
    gather::FRAME,
    info::{choose, queues_offered, read_info, segments_offered},
    queue::Queue,
};
use super::{
    Fault, Features, Init, Token,
    device::Device,
    queue::Counts,
    requests::{For, Requests},
    transport::{Interrupt, Transport, read_config},
};
use crate::{
    class::{self, Batch, BlockDevice, BlockInfo, BlockRequest, Outcome, Submitted},
    error::Error,
    hal::{Hal, Lock, Locks},
};

/// The CPUs that a device's queues are shared out to, and the locks of these.
pub trait Cpus: Locks {
    /// The number of the one that asks, from 0 on.
    fn current() -> u16;

    /// There are so many more requests: who is called, with a lock held, calls [`Block::tell`] when the CPU that asked has nothing more
    /// to ask for now. So one notification is for many requests.
    fn later(count: u32);

    /// Whether the CPU that asks has nothing to do but what asks this. Called with a lock held.
    fn is_alone() -> bool;

    /// Called, with no lock held, by who is alone and waits for answers of its CPU's queue: calls `found`, which looks for some, until
    /// that has found them, or until there is something else to do or it is better to wait for an interrupt.
    fn linger(found: impl FnMut() -> bool);
}

/// A disk behind a virtio transport. No lock of a queue is held while another one is waited for, but that of the device.
pub struct Block<S: Cpus> {
    device: S::Lock<Device>,
    queues: Box<[Lane<S>]>,
    features: Features,
}

/// A queue and its lock.
struct Lane<S: Locks> {
    queue: S::Lock<Queue>,
    /// Requests are in it of which the device was not told; to be looked at without the lock.
    is_untold: AtomicBool,
}

impl<S: Locks> Lane<S> {
    #[inline(always)]
    fn with<R>(&self, act: impl FnOnce(&mut Queue) -> R) -> R {
        self.queue.with(act)
    }
}

impl<S: Cpus> Block<S> {
    /// Brings the device up (§3.1.1, §5.2.5), with a queue for each of `cpus` CPUs if it has so many, and reads what it is like.
    ///
    /// # Errors
    /// The device does not come up, or describes itself as what cannot be.
    pub fn probe(transport: Box<dyn Transport>, hal: &dyn Hal, cpus: u16) -> Result<Self, Error> {
        let mut init = Init::begin_with(transport, &choose)?;
        let features = init.features();
        let info = read_config(init.transport(), |transport| read_info(transport, features.bits()))?;
        let count = queues_offered(init.transport(), features.bits())?.min(cpus).max(1);
        let segments = segments_offered(init.transport(), features.bits())?;
        let mut lane = |index| {
            let gathers = gather::most(features, init.queue_size(index)?, segments);
            let requests = Requests::new(&mut init, hal, index, gathers + FRAME)?;
            let queue = S::lock(Queue { requests, info, gathers });
            Ok(Lane { queue, is_untold: AtomicBool::new(false) })
        };
        let queues: Result<Box<[_]>, _> = (0..count).map(&mut lane).collect();
        match queues {
            Ok(queues) => Ok(Self { device: S::lock(Device::run(init)), queues, features }),
            // Rings of which the device was told are gone already, so it is reset for good.
            Err(error) => Err(init.abandon(error)),
        }
    }

    /// What was negotiated.
    pub fn features(&self) -> Features {
        self.features
    }

    /// Queues in use: their numbers are below this.
    pub fn queues(&self) -> u16 {
        self.queues.len() as u16
    }

    /// What each queue has done so far.
    pub fn counts(&self) -> impl Iterator<Item = Counts> {
        self.queues.iter().map(|queue| queue.with(|queue| queue.requests.counts()))
    }

    /// Why the device is not used any more, if it is not.
    pub fn fault(&self) -> Option<Error> {
        self.device.with(|device| device.fault())
    }

    /// The queue of CPU `cpu`, or of which a foreign token tells: such a token names one that is here, too.
    fn queue(&self, number: u16) -> &Lane<S> {
        &self.queues[usize::from(number) % self.queues.len()]
    }

    /// Tells the device of the requests that were made available in each queue, if it wants to know.
    pub fn tell(&self) {
        (0..self.queues()).for_each(|number| self.tell_of(number));
    }

    fn tell_of(&self, number: u16) {
        let lane = self.queue(number);
        if !lane.is_untold.load(Relaxed) || !lane.is_untold.swap(false, Relaxed) {
            return;
        }
        let position = lane.with(|queue| queue.requests.take_notification());
        self.ring(number, position);
    }

    /// Requests were made available in a queue whose lock is held, and the device is told of them, or is to be at the end of the round.
    fn note(&self, lane: &Lane<S>, count: u32, told: Option<u16>) {
        lane.is_untold.store(told.is_none(), Relaxed);
        S::later(count);
    }

    /// Notifies the device of queue `number`, if there is something to notify it with.
    fn ring(&self, number: u16, position: Option<u16>) {
        if let Some(position) = position {
            self.device.with(|device| device.ring(number % self.queues(), position));
        }
    }

    /// To be called when the device has interrupted for everything.
    pub fn interrupt(&self) {
        let cause = self.device.with(Device::take_interrupt);
        self.queue_interrupt(0, 1);
        match cause {
            Ok(cause) if cause.contains(Interrupt::CONFIG) => self.reread_info(),
            Ok(_) => {}
            Err(fault) => self.fail(fault),
        }
    }

    /// To be called when the device has interrupted for queue `first` alone, or for every `step`th one from there.
    pub fn queue_interrupt(&self, first: u16, step: u16) {
        let mut queues = self.queues.iter().skip(first.into()).step_by(step.max(1).into());
        if let Err(fault) = queues.try_for_each(|queue| queue.with(|queue| queue.requests.collect())) {
            self.fail(fault);
        }
    }

    /// Takes what the device has answered in the queue of CPU `cpu`, and wants no interrupts for it until
    /// [`queue_interrupt`](Self::queue_interrupt) is called; `None` if nothing is asked there, or another CPU has that queue.
    pub fn look(&self, cpu: u16) -> Option<u16> {
        let lane = self.queues.get(usize::from(cpu))?;
        let found = lane.with(|queue| queue.requests.is_busy().then(|| queue.requests.look()))?;
        found.map_err(|fault| self.fail(fault)).ok()
    }

    /// Takes back every request that the device has and has not answered (§2.6.1): their buffers come back with
    /// [`Error::Cancelled`].
    ///
    /// # Errors
    /// The device cannot reset a queue, or fails to.
    pub fn cancel(&self, hal: &dyn Hal) -> Result<(), Error> {
        // What was answered before counts as answered.
        self.queue_interrupt(0, 1);
        self.queues.iter().try_for_each(|queue| {
            queue.with(|queue| self.device.with(|device| queue.requests.cancel(device, hal)))
        })
    }

    /// Does `act`; sees to it that who waits for a queue's interrupts gets them.
    fn attended<R>(&self, lane: &Lane<S>, act: impl FnOnce(&mut Queue) -> R) -> R {
        let (result, attended) = lane.with(|queue| (act(queue), queue.requests.attend()));
        if let Err(fault) = attended {
            self.fail(fault);
        }
        result
    }

    fn fail(&self, fault: Fault) {
        let is_reset = self.device.with(|device| device.fail(fault));
        let error = Error::Fault(fault);
        self.queues.iter().for_each(|queue| queue.with(|queue| queue.requests.fail(error, is_reset)));
    }

    /// A disk may change its size while it runs (§5.2.5).
    fn reread_info(&self) {
        let features = self.features.bits();
        let read = |device: &mut Device| device.read_config(|transport| read_info(transport, features));
        match self.device.with(read) {
            Ok(info) if info != self.info() => {
                log::info!("virtio-blk: now {} sectors", info.sectors);
                self.queues.iter().for_each(|queue| queue.with(|queue| queue.info = info));
            }
            Ok(_) => {}
            Err(error) => log::warn!("virtio-blk: {error}: change of configuration ignored"),
        }
    }
}

impl<S: Cpus> class::Requests for Block<S> {
    type Request = BlockRequest;
    type Outcome = Outcome;

    fn submit(&self, request: BlockRequest, waker: &Waker) -> Submitted<BlockRequest, Outcome> {
        let number = S::current();
        let lane = self.queue(number);
        let (submitted, told) = self.attended(lane, |queue| {
            let submitted = queue.submit(request, For::Holder(waker));
            let told = queue.requests.take_notification_of_many();
            match submitted {
                Submitted::Sent(_) => self.note(lane, 1, told),
                Submitted::Full(_) => queue.requests.wait_for_room(waker),
                Submitted::Refused(_) => {}
            }
            (submitted, told)
        });
        self.ring(number, told);
        submitted
    }

    fn poll(&self, token: Token, waker: &Waker) -> Result<Outcome, Token> {
        let number = token.queue;
        let polled = self.attended(self.queue(number), |queue| queue.poll(token, waker));
        // Who asks again and again need not be one whose CPU comes to its end.
        if polled.is_err() {
            self.tell_of(number);
        }
        polled
    }

    fn forget(&self, token: Token) {
        self.attended(self.queue(token.queue), |queue| queue.requests.forget(token));
    }

    fn advance(&self, batch: &mut Batch<BlockRequest, Outcome>, waker: &Waker) {
        self.advance_batch(batch, waker);
    }

    fn abandon(&self, batch: &mut Batch<BlockRequest, Outcome>) {
        self.abandon_batch(batch);
    }
}

impl<S: Cpus> BlockDevice for Block<S> {
    fn info(&self) -> BlockInfo {
        self.queue(0).with(|queue| queue.info)
    }
}

impl<S: Cpus> Drop for Block<S> {
    /// The memory that the device was told of goes, so the device must not use it any more.
    fn drop(&mut self) {
        if !self.device.with(Device::stop) {
            self.queues.iter().for_each(|queue| queue.with(|queue| queue.requests.keep_for_ever()));
        }
    }
}
