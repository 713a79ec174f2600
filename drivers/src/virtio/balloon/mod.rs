//! Virtio balloon device: memory that the guest lends back to the host (VirtIO 1.3 §5.5).
//!
//! Queues `inflateq`, `deflateq`, `statsq` and `reporting_vq`. What is lent is told in pages of 4 KiB; which memory that is,
//! the caller decides: this driver sends lists and says when they were read. Neighbours: `device`, `queue`.
#![forbid(unsafe_code)]

mod queues;

use alloc::{boxed::Box, vec::Vec};
use core::task::{Poll, Waker};

pub use self::queues::Statistic;
use self::queues::{List, Pages, Reporting, Statistics, queues};

use super::{
    Fault, Features, Init,
    device::Device,
    queue::{Counts, MAX_SEGMENTS},
    transport::{Interrupt, Transport},
};
use crate::{
    dma::{Direction, DmaBuffer, Segment},
    error::Error,
    hal::Hal,
};

/// Feature bits (§5.5.3).
mod feature {
    pub(super) const MUST_TELL_HOST: u64 = 1 << 0;
    pub(super) const STATS_VQ: u64 = 1 << 1;
    pub(super) const DEFLATE_ON_OOM: u64 = 1 << 2;
    pub(super) const FREE_PAGE_HINT: u64 = 1 << 3;
    pub(super) const REPORTING: u64 = 1 << 5;
    pub(super) const ALL: u64 = MUST_TELL_HOST | STATS_VQ | DEFLATE_ON_OOM | REPORTING;
}

/// Fields of the configuration by offset (§5.5.4).
mod config {
    pub(super) const NUM_PAGES: usize = 0;
    pub(super) const ACTUAL: usize = 4;
}

/// Bytes of a balloon page, whatever the guest's are (§5.5.4).
pub const PAGE_BYTES: u64 = 4096;
/// Pages of one list.
pub const MAX_PAGES: usize = 1024;
/// Pieces of free memory in one report.
pub const MAX_REPORT: usize = MAX_SEGMENTS;

/// What happened to the balloon since somebody last looked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// The host asks for statistics: [`Balloon::tell`].
    pub wants_statistics: bool,
    /// Pages that the host wants the balloon to have.
    pub target: u32,
}

/// A balloon behind a virtio transport. One task or handler at a time.
pub struct Balloon {
    device: Device,
    inflate: Pages,
    deflate: Pages,
    statistics: Option<Statistics>,
    reporting: Option<Reporting>,
    target: u32,
    waker: Option<Waker>,
    has_news: bool,
}

impl Balloon {
    /// Brings the device up (§3.1.1, §5.5.5).
    ///
    /// # Errors
    /// The device does not come up.
    pub fn probe(mut transport: Box<dyn Transport>, hal: &dyn Hal) -> Result<Self, Error> {
        let offered = transport.device_features();
        let mut init = Init::begin(transport, Features::from_bits_retain(feature::ALL))?;
        match queues(&mut init, hal, offered) {
            Ok((inflate, deflate, statistics, reporting)) => {
                let device = Device::run(init);
                let mut balloon = Self {
                    device,
                    inflate,
                    deflate,
                    statistics,
                    reporting,
                    target: 0,
                    waker: None,
                    has_news: true,
                };
                balloon.read_target();
                // The device keeps this buffer until it wants statistics (§5.5.6.3).
                balloon.tell(&[(Statistic::Total, 0)]);
                Ok(balloon)
            }
            Err(error) => Err(init.abandon(error)),
        }
    }

    /// What was negotiated.
    pub fn features(&self) -> Features {
        self.device.features()
    }

    fn has(&self, feature: u64) -> bool {
        self.features().bits() & feature != 0
    }

    /// A page may be used again only when the host has read that the balloon has it no more (§5.5.6.1).
    pub fn must_tell_host(&self) -> bool {
        self.has(feature::MUST_TELL_HOST)
    }

    /// The guest may take pages back where it would otherwise run out of memory (§5.5.6.1).
    pub fn deflates_on_oom(&self) -> bool {
        self.has(feature::DEFLATE_ON_OOM)
    }

    /// The device wants to be told of free memory (§5.5.6.7).
    pub fn reports(&self) -> bool {
        self.reporting.is_some()
    }

    /// Why the device is not used any more, if it is not.
    pub fn fault(&self) -> Option<Error> {
        self.device.fault()
    }

    /// What all queues have done so far.
    pub fn counts(&self) -> Counts {
        let statistics = self.statistics.iter().map(|statistics| statistics.queue.counts());
        let reporting = self.reporting.iter().map(|reporting| reporting.queue.counts());
        let pages = [self.inflate.queue.counts(), self.deflate.queue.counts()].into_iter();
        pages.chain(statistics).chain(reporting).fold(Counts::default(), |sum, counts| sum + counts)
    }

    /// What is new, once; else `waker` is called when there is something.
    pub fn poll_news(&mut self, waker: &Waker) -> Poll<News> {
        if core::mem::take(&mut self.has_news) {
            return Poll::Ready(self.news());
        }
        self.waker = Some(waker.clone());
        Poll::Pending
    }

    /// What the host wants now.
    pub fn news(&self) -> News {
        let wants_statistics = self.statistics.as_ref().is_some_and(|statistics| statistics.is_wanted);
        News { wants_statistics, target: self.target }
    }

    fn wake(&mut self) {
        self.has_news = true;
        self.waker.take().into_iter().for_each(Waker::wake);
    }

    /// To be called when the device has interrupted for everything.
    pub fn interrupt(&mut self) {
        match self.device.take_interrupt() {
            Ok(cause) => {
                if cause.contains(Interrupt::CONFIG) && self.device.fault().is_none() {
                    self.read_target();
                }
                self.queue_interrupt();
            }
            Err(fault) => self.fail(fault),
        }
    }

    /// To be called when the device has interrupted for its queues alone, or may have used a buffer.
    pub fn queue_interrupt(&mut self) {
        if self.device.fault().is_none()
            && let Err(fault) = self.collect()
        {
            self.fail(fault);
        }
        self.wake();
    }

    fn collect(&mut self) -> Result<(), Fault> {
        self.inflate.collect()?;
        self.deflate.collect()?;
        if let Some(Statistics { queue, is_wanted, .. }) = &mut self.statistics {
            *is_wanted |= queue.pop()?.is_some();
        }
        if let Some(Reporting { queue, is_done, .. }) = &mut self.reporting {
            *is_done |= queue.pop()?.is_some();
        }
        Ok(())
    }

    fn fail(&mut self, fault: Fault) {
        if !self.device.fail(fault) {
            self.keep_for_ever();
        }
        self.wake();
    }

    fn keep_for_ever(&mut self) {
        self.inflate.keep_for_ever();
        self.deflate.keep_for_ever();
        self.statistics.iter_mut().for_each(Statistics::keep_for_ever);
        if let Some(reporting) = &mut self.reporting {
            reporting.queue.keep_for_ever();
            core::mem::forget(core::mem::take(&mut reporting.reported));
        }
    }

    fn read_target(&mut self) {
        let read = |transport: &dyn Transport| Ok(transport.config_u32(config::NUM_PAGES));
        if let Ok(Some(target)) = self.device.read_config(read) {
            self.target = target;
        }
    }

    /// Sends a list of pages, by number, that the balloon gets, [`MAX_PAGES`] of them at most; false if one is still on
    /// its way, or there is none, or the device has failed.
    pub fn inflate(&mut self, pages: impl Iterator<Item = u32>) -> bool {
        self.device.fault().is_none() && self.inflate.send(&mut self.device, pages)
    }

    /// As [`inflate`](Self::inflate), of pages that the balloon has no more.
    pub fn deflate(&mut self, pages: impl Iterator<Item = u32>) -> bool {
        self.device.fault().is_none() && self.deflate.send(&mut self.device, pages)
    }

    /// Whether the last list that went to the balloon, or out of it, was read; else `waker` is called when it may be.
    pub fn poll_read(&mut self, inflated: bool, waker: &Waker) -> Poll<Result<(), Error>> {
        if let Some(error) = self.device.fault() {
            return Poll::Ready(Err(error));
        }
        let pages = if inflated { &mut self.inflate } else { &mut self.deflate };
        if !matches!(pages.state, List::Sent) {
            pages.state = List::Idle;
            return Poll::Ready(Ok(()));
        }
        self.waker = Some(waker.clone());
        Poll::Pending
    }

    /// As [`poll_read`](Self::poll_read) of what went out of the balloon, for who can neither be woken nor wait: looks into the
    /// queue, and calls nobody.
    pub fn deflate_was_read(&mut self) -> bool {
        if self.device.fault().is_none()
            && let Err(fault) = self.deflate.collect()
            && !self.device.fail_quietly(fault)
        {
            self.keep_for_ever();
        }
        if self.device.fault().is_some() || !matches!(self.deflate.state, List::Sent) {
            self.deflate.state = List::Idle;
            return true;
        }
        false
    }

    /// Tells the host how many pages the balloon has (§5.5.6.1).
    pub fn set_actual(&mut self, pages: u32) {
        self.device.write_config(config::ACTUAL, pages);
    }

    /// Tells the host these statistics; it must have asked for them.
    pub fn tell(&mut self, values: &[(Statistic, u64)]) {
        if let Some(statistics) = &mut self.statistics {
            statistics.tell(&mut self.device, values);
        }
    }

    /// Lends free memory to the device for a report: its content may be lost (§5.5.6.7). What cannot be sent comes back
    /// at once, the rest by [`poll_reported`](Self::poll_reported).
    ///
    /// # Errors
    /// The device reports nothing, has a report already, or has failed.
    pub fn report(&mut self, memory: Vec<DmaBuffer>) -> Result<(), Vec<DmaBuffer>> {
        let Some(reporting) = &mut self.reporting else { return Err(memory) };
        let is_free = self.device.fault().is_none() && reporting.reported.is_empty();
        if !is_free || memory.is_empty() || memory.len() > MAX_REPORT {
            return Err(memory);
        }
        let segments: Vec<Segment> =
            memory.iter().map(|buffer| buffer.whole(Direction::FromDevice)).collect();
        if reporting.queue.add(&segments, ()).is_err() {
            return Err(memory);
        }
        reporting.reported = memory;
        reporting.queue.ask_for_interrupt();
        self.device.notify(reporting.index, &mut reporting.queue);
        Ok(())
    }

    /// The memory of a report that the device has read, or has failed with; else `waker` is called when it may be.
    pub fn poll_reported(&mut self, waker: &Waker) -> Poll<Vec<DmaBuffer>> {
        let has_failed = self.device.fault().is_some();
        match &mut self.reporting {
            Some(reporting) if !reporting.is_done && !has_failed && !reporting.reported.is_empty() => {
                self.waker = Some(waker.clone());
                Poll::Pending
            }
            Some(reporting) => {
                reporting.is_done = false;
                Poll::Ready(core::mem::take(&mut reporting.reported))
            }
            None => Poll::Ready(Vec::new()),
        }
    }
}

impl Drop for Balloon {
    /// The memory that the device was told of goes, so the device must not use it any more.
    fn drop(&mut self) {
        if !self.device.stop() {
            self.keep_for_ever();
        }
    }
}
