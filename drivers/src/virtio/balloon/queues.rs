//! The queues of a balloon, each with what it carries (VirtIO 1.3 §5.5.2, §5.5.6).
#![forbid(unsafe_code)]

use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;

use super::{MAX_PAGES, feature};
use crate::{
    dma::{Direction, Dma, DmaBuffer, Segment},
    error::Error,
    hal::Hal,
    virtio::{Fault, Init, device::Device, queue::Queue},
};

const INFLATEQ: u16 = 0;
const DEFLATEQ: u16 = 1;
const STATSQ: u16 = 2;

/// What the host may want to know of the guest's memory (§5.5.6.3), each in the unit that stands behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Statistic {
    /// Memory that is not used for anything, in bytes.
    #[doc(alias = "VIRTIO_BALLOON_S_MEMFREE")]
    Free = 4,
    /// All memory, in bytes.
    #[doc(alias = "VIRTIO_BALLOON_S_MEMTOT")]
    Total = 5,
    /// Memory that could be had without swapping, in bytes.
    #[doc(alias = "VIRTIO_BALLOON_S_AVAIL")]
    Available = 6,
}

/// Bytes of a statistic: tag and value, packed.
const STATISTIC_BYTES: usize = 10;
const MAX_STATISTICS: usize = 16;

/// A list of pages on its way to the device.
#[derive(Debug)]
pub(super) enum List {
    Idle,
    Sent,
    Read,
}

/// A queue that carries one list of page numbers at a time.
pub(super) struct Pages {
    index: u16,
    pub(super) queue: Queue<()>,
    list: Dma,
    pub(super) state: List,
}

impl Pages {
    pub(super) fn new(init: &mut Init, hal: &dyn Hal, index: u16) -> Result<Self, Error> {
        let list = hal.dma(MAX_PAGES * 4)?;
        Ok(Self { index, queue: init.small_queue(index, hal, 1)?, list, state: List::Idle })
    }

    pub(super) fn send(&mut self, device: &mut Device, pages: impl Iterator<Item = u32>) -> bool {
        if !matches!(self.state, List::Idle) {
            return false;
        }
        let mut count = 0;
        for page in pages.take(MAX_PAGES) {
            self.list.u32(4 * count).store(page.to_le(), Relaxed);
            count += 1;
        }
        let sent = count > 0
            && self.queue.add(&[Segment::new(&self.list, 0..4 * count, Direction::ToDevice)], ()).is_ok();
        if sent {
            self.state = List::Sent;
            self.queue.ask_for_interrupt();
            device.notify(self.index, &mut self.queue);
        }
        sent
    }

    pub(super) fn collect(&mut self) -> Result<(), Fault> {
        while self.queue.pop()?.is_some() {
            self.state = List::Read;
        }
        Ok(())
    }

    pub(super) fn keep_for_ever(&mut self) {
        self.queue.keep_for_ever();
        self.list.keep_for_ever();
    }
}

/// The buffer for statistics: the device has it until it wants some.
pub(super) struct Statistics {
    pub(super) queue: Queue<()>,
    pub(super) memory: Dma,
    pub(super) is_wanted: bool,
}

impl Statistics {
    pub(super) fn keep_for_ever(&mut self) {
        self.queue.keep_for_ever();
        self.memory.keep_for_ever();
    }

    /// Gives the device its buffer again, with these values.
    pub(super) fn tell(&mut self, device: &mut Device, values: &[(Statistic, u64)]) {
        let Self { queue, memory, is_wanted } = self;
        let values = &values[..values.len().min(MAX_STATISTICS)];
        let bytes = values
            .iter()
            .flat_map(|(tag, value)| (*tag as u16).to_le_bytes().into_iter().chain(value.to_le_bytes()));
        for (at, byte) in bytes.enumerate() {
            memory.u8(at).store(byte, Relaxed);
        }
        let range = 0..values.len() * STATISTIC_BYTES;
        if range.is_empty() || queue.add(&[Segment::new(memory, range, Direction::ToDevice)], ()).is_err() {
            return;
        }
        *is_wanted = false;
        queue.ask_for_interrupt();
        device.notify(STATSQ, queue);
    }
}

/// The queue for reports, and the memory that the device has with one.
pub(super) struct Reporting {
    pub(super) index: u16,
    pub(super) queue: Queue<()>,
    pub(super) reported: Vec<DmaBuffer>,
    pub(super) is_done: bool,
}

pub(super) type Queues = (Pages, Pages, Option<Statistics>, Option<Reporting>);

/// The queues. `offered` features have their numbers reserved, whether they were agreed upon or not: so QEMU counts.
pub(super) fn queues(init: &mut Init, hal: &dyn Hal, offered: u64) -> Result<Queues, Error> {
    let features = init.features().bits();
    let inflate = Pages::new(init, hal, INFLATEQ)?;
    let deflate = Pages::new(init, hal, DEFLATEQ)?;
    let statistics = match features & feature::STATS_VQ {
        0 => None,
        _ => {
            let memory = hal.dma(MAX_STATISTICS * STATISTIC_BYTES)?;
            Some(Statistics { queue: init.small_queue(STATSQ, hal, 1)?, memory, is_wanted: false })
        }
    };
    let index = [feature::STATS_VQ, feature::FREE_PAGE_HINT]
        .iter()
        .fold(STATSQ, |index, bit| index + u16::from(offered & bit != 0));
    let reporting = match features & feature::REPORTING {
        0 => None,
        _ => {
            let queue = init.queue(index, hal)?;
            Some(Reporting { index, queue, reported: Vec::new(), is_done: false })
        }
    };
    Ok((inflate, deflate, statistics, reporting))
}
