//! What the host allows: a loop over the ring of a disk that no driver has, without interrupts, tasks or locks (VirtIO 1.3
//! §5.2.6), in several ways, of which the fastest is the limit.
#![forbid(unsafe_code)]

use alloc::{boxed::Box, format, string::String};
use core::{sync::atomic::Ordering::Relaxed, time::Duration};

use drivers::{
    Error,
    dma::{Direction, Dma, Segment},
    hal::Hal,
    virtio::{DeviceId, Features, Init, queue::Queue, transport::Transport},
};
use kernel::{devices, platform::Platform};

use crate::{BLOCK_BYTES, CLOCK_EVERY, Case, Counted, Order, now_ns};

/// Requests at the same time at most.
const MOST: usize = 32;
/// Bytes of a request's header, and where its status is.
const HEADER_BYTES: usize = 16;
const STATUS: usize = 32;
const AREA_BYTES: usize = 64;
/// A feature of block devices (§5.2.3): what was written may be in a cache, as for the driver. Else the device does more.
#[doc(alias = "VIRTIO_BLK_F_FLUSH")]
const FLUSH: u64 = 1 << 9;
/// Turns of a loop between two looks at the ring.
const RELAX: u32 = 250;

/// How a loop polls. None is the best on every host: it depends on how many cores there are for the threads of the host's own, and
/// on how long these sleep.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    /// As it is called in what is printed.
    pub(crate) name: &'static str,
    /// Requests of which the device is told at once; the rest when the loop has found all that was answered.
    together: u16,
    /// Sleeps for so long, by a timer, when it finds nothing; else it goes on looking.
    rest: Option<Duration>,
    /// Whether each side says at which index of the ring it wants to be told, or by a flag whether it wants to be told at all.
    event_idx: bool,
}

impl Way {
    const AT_ONCE: Self = Self { name: "bare-all", together: u16::MAX, rest: None, event_idx: true };
    const HALF: Self = Self { name: "bare-half", together: MOST as u16 / 2, ..Self::AT_ONCE };

    pub(crate) const ALL: [Self; 4] = [
        Self::AT_ONCE,
        Self::HALF,
        Self { name: "bare-rests", rest: Some(Duration::from_micros(50)), ..Self::HALF },
        Self { name: "bare-flags", event_idx: false, ..Self::AT_ONCE },
    ];
}

/// A disk and its ring, for one way.
pub(crate) struct Disk {
    way: Way,
    transport: Box<dyn Transport>,
    queue: Queue<u16>,
    areas: Dma,
    data: Dma,
    sectors: u64,
}

impl Disk {
    /// The last disk of the machine.
    pub(crate) fn new() -> Result<Self, String> {
        let transport = devices::bare(DeviceId::BLOCK).ok_or("no disk")?;
        Self::on(transport, Way::AT_ONCE).map_err(|error| format!("{error}"))
    }

    /// The same disk for another way.
    pub(crate) fn turned(self, way: Way) -> Result<Self, String> {
        if way.event_idx == self.way.event_idx {
            return Ok(Self { way, ..self });
        }
        // The old ring is freed when the reset is done.
        let Self { transport, queue: _queue, areas: _areas, data: _data, .. } = self;
        Self::on(transport, way).map_err(|error| format!("{error}"))
    }

    fn on(transport: Box<dyn Transport>, way: Way) -> Result<Self, Error> {
        let mut wanted = Features::TRANSPORT | Features::from_bits_retain(FLUSH);
        wanted.set(Features::EVENT_IDX, way.event_idx);
        let mut init = Init::begin_with(transport, &|_| wanted)?;
        let mut queue: Queue<u16> = init.queue(0, &Platform)?;
        queue.suppress_interrupts();
        let capacity = |offset| init.transport().config_u32(offset).unwrap_or(0);
        let sectors = u64::from(capacity(0)) | u64::from(capacity(4)) << 32;
        let (areas, data) = (Platform.dma(MOST * AREA_BYTES)?, Platform.dma(MOST * BLOCK_BYTES)?);
        Ok(Self { way, transport: init.finish(), queue, areas, data, sectors })
    }

    /// Keeps `case.depth` requests in the ring for so long.
    pub(crate) async fn measure(&mut self, case: Case, ns: u64) -> Result<Counted, String> {
        let way = self.way;
        let mut order = Order::new(case, self.sectors);
        let (before, start) = (self.queue.counts(), now_ns());
        let (mut done, mut in_flight, mut is_over) = (0, 0, false);
        for slot in 0..case.depth {
            self.send(case, slot, order.next());
            in_flight += 1;
            if in_flight % way.together == 0 {
                self.notify();
            }
        }
        self.notify();
        while in_flight > 0 {
            let (mut has_found, mut sent) = (false, 0);
            while let Some((slot, _)) = self.queue.pop().map_err(|fault| format!("{fault}"))? {
                let status = self.areas.u8(usize::from(slot) * AREA_BYTES + STATUS).load(Relaxed);
                if status != 0 {
                    return Err(format!("status {status}"));
                }
                has_found = true;
                done += 1;
                in_flight -= 1;
                if done % CLOCK_EVERY == 0 {
                    is_over = now_ns() >= start + ns;
                }
                if !is_over {
                    self.send(case, slot, order.next());
                    in_flight += 1;
                    sent += 1;
                    if sent % way.together == 0 {
                        self.notify();
                    }
                }
            }
            self.notify();
            match way.rest {
                Some(rest) if !has_found => kernel::task::sleep(rest).await,
                // No PAUSE: for that TCG takes the lock that QEMU's devices need. And not too often: what the device writes is on
                // its CPU.
                _ => (0..RELAX).for_each(|turn| _ = core::hint::black_box(turn)),
            }
        }
        let notifications = self.queue.counts().notifications - before.notifications;
        Ok(Counted { requests: done, ns: now_ns() - start, notifications, interrupts: 0 })
    }

    fn send(&mut self, case: Case, slot: u16, sector: u64) {
        let (area, data) = (usize::from(slot) * AREA_BYTES, usize::from(slot) * BLOCK_BYTES);
        self.areas.u32(area).store(case.write.into(), Relaxed);
        self.areas.u64(area + 8).store(sector, Relaxed);
        self.areas.u8(area + STATUS).store(0xff, Relaxed);
        let direction = if case.write { Direction::ToDevice } else { Direction::FromDevice };
        let segments = [
            Segment::new(&self.areas, area..area + HEADER_BYTES, Direction::ToDevice),
            Segment::new(&self.data, data..data + BLOCK_BYTES, direction),
            Segment::new(&self.areas, area + STATUS..area + STATUS + 1, Direction::FromDevice),
        ];
        // There is room for as many as are sent.
        let _ = self.queue.add(&segments, slot);
    }

    fn notify(&mut self) {
        if self.queue.take_notification().is_some() {
            self.transport.notify(0, None);
        }
    }
}
