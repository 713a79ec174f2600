//! The block device (VirtIO 1.3 §5.2), and with it what all devices with requests do.
#![forbid(unsafe_code)]

use std::{
    boxed::Box,
    future::Future,
    pin::pin,
    sync::{Arc, atomic::Ordering::SeqCst},
    task::{Context, Poll},
    vec,
    vec::Vec,
};

use super::bell;
use crate::{
    class::{BlockDevice, BlockRequest, InFlight, Requests, SECTOR_BYTES, Submitted},
    dma::DmaBuffer,
    error::Error,
    hal::Hal,
    virtio::{
        DeviceId, Features, Token,
        block::Block,
        fake::{Chain, FakeCpu, FakeDevice, FakeHal, Player},
        transport::Interrupt,
    },
};

pub(super) const SECTORS: u64 = 64;
pub(super) type Disk = Block<FakeHal>;

/// A disk, and who plays it.
pub(super) struct Rig {
    pub(super) hal: FakeHal,
    pub(super) device: FakeDevice,
    pub(super) player: Player,
    content: Vec<u8>,
    /// A sector that cannot be read or written.
    pub(super) bad: Option<u64>,
    pub(super) disk: Arc<Disk>,
}

fn config() -> Vec<u8> {
    let mut config = vec![0; 64];
    config[..8].copy_from_slice(&SECTORS.to_le_bytes());
    config[20..24].copy_from_slice(&4096u32.to_le_bytes());
    config[36..40].copy_from_slice(&8u32.to_le_bytes());
    config[48..52].copy_from_slice(&8u32.to_le_bytes());
    config
}

/// Everything but a size limit and read-only.
const BLOCK_FEATURES: u64 = 1 << 6 | 1 << 9 | 1 << 13 | 1 << 14;

pub(super) fn rig(features: Features, queue_size: u32) -> Rig {
    rig_of(features, queue_size, config())
}

/// A disk whose requests may have so many segments of data (`VIRTIO_BLK_F_SEG_MAX`, §5.2.3, §5.2.4).
pub(super) fn rig_of_segments(features: Features, queue_size: u32, most: u32) -> Rig {
    let mut config = config();
    config[12..16].copy_from_slice(&most.to_le_bytes());
    rig_of(features | Features::from_bits_retain(1 << 2), queue_size, config)
}

fn rig_of(features: Features, queue_size: u32, config: Vec<u8>) -> Rig {
    FakeCpu::BUSY.enter();
    let hal = FakeHal::default();
    let features = features | Features::from_bits_retain(BLOCK_FEATURES);
    let device = FakeDevice::new(DeviceId::BLOCK, features, queue_size, config);
    let block = Disk::probe(device.transport(), &hal, 1).unwrap();
    let player = device.player(&hal);
    let content = (0..SECTORS as usize * SECTOR_BYTES).map(|at| (at / SECTOR_BYTES) as u8).collect();
    Rig { hal, device, player, content, bad: None, disk: Arc::new(block) }
}

impl Rig {
    pub(super) fn buffer(&self, sectors: usize) -> DmaBuffer {
        let hal: &dyn Hal = &self.hal;
        hal.buffer(sectors * SECTOR_BYTES).unwrap()
    }

    pub(super) fn submit(&self, request: BlockRequest) -> Token {
        match self.disk.submit(request, &bell().1) {
            Submitted::Sent(token) => token,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn interrupt(&self) {
        self.disk.interrupt();
    }

    /// Carries out what was asked, as the standard says.
    pub(super) fn serve(&mut self) -> usize {
        let mut served = 0;
        while let Some(chain) = self.player.take() {
            let written = self.carry_out(&chain);
            self.player.finish(&chain, written);
            served += 1;
        }
        self.interrupt();
        served
    }

    pub(super) fn carry_out(&mut self, chain: &Chain) -> u32 {
        let [header, data @ .., status] = &chain.parts[..] else { panic!("{chain:?}") };
        assert_eq!((header.1, header.2, status.1, status.2), (16, false, 1, true));
        let header = self.hal.read(header.0, 16);
        let kind = u32::from_le_bytes(header[..4].try_into().unwrap());
        let mut at = u64::from_le_bytes(header[8..].try_into().unwrap()) as usize * SECTOR_BYTES;
        let (first, mut written) = (at, 1);
        for &(address, len, is_write) in data {
            let len = len as usize;
            match kind {
                0 if is_write => self.hal.write(address, &self.content[at..at + len]),
                1 if !is_write => self.content[at..at + len].copy_from_slice(&self.hal.read(address, len)),
                8 if is_write => self.hal.write(address, b"a disk\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
                11 | 13 if !is_write => {
                    let range = self.hal.read(address, 16);
                    at = u64::from_le_bytes(range[..8].try_into().unwrap()) as usize * SECTOR_BYTES;
                    let count = u32::from_le_bytes(range[8..12].try_into().unwrap()) as usize * SECTOR_BYTES;
                    self.content[at..at + count].fill(0);
                }
                _ => panic!("request {kind} with {data:?}"),
            }
            at += len;
            written += if is_write { len as u32 } else { 0 };
        }
        let bad =
            self.bad.is_some_and(|bad| kind < 2 && (first..at).contains(&(bad as usize * SECTOR_BYTES)));
        self.hal.write(status.0, &[bad.into()]);
        written
    }
}

#[test]
fn what_is_written_is_read_back() {
    for features in
        [Features::empty(), Features::RING_PACKED, Features::RING_PACKED | Features::INDIRECT_DESC]
    {
        let mut rig = rig(features, 8);
        let mut buffer = rig.buffer(2);
        buffer.bytes_mut().fill(0xa5);
        let disk = rig.disk.clone();
        let disk: &dyn BlockDevice = &*disk;
        let (bell, waker) = bell();
        let mut write = pin!(disk.write(3, buffer));
        let mut cx = Context::from_waker(&waker);
        assert!(write.as_mut().poll(&mut cx).is_pending());
        rig.serve();
        assert_eq!(bell.0.load(SeqCst), 1);
        let Poll::Ready(outcome) = write.as_mut().poll(&mut cx) else { panic!("not ready") };
        assert_eq!(outcome.result, Ok(0));
        assert!(rig.content[3 * SECTOR_BYTES..5 * SECTOR_BYTES].iter().all(|&byte| byte == 0xa5));
        let mut read = pin!(disk.read(4, outcome.buffer.unwrap()));
        assert!(read.as_mut().poll(&mut cx).is_pending());
        rig.serve();
        let Poll::Ready(outcome) = read.as_mut().poll(&mut cx) else { panic!("not ready") };
        assert_eq!(outcome.result, Ok(2 * SECTOR_BYTES));
        let buffer = outcome.buffer.unwrap();
        assert_eq!((buffer.bytes()[0], buffer.bytes()[SECTOR_BYTES]), (0xa5, 5));
    }
}

#[test]
fn flush_discard_zeroes_and_name_are_asked_as_the_standard_says() {
    let mut rig = rig(Features::INDIRECT_DESC, 16);
    let tokens = [
        BlockRequest::Flush,
        BlockRequest::Discard { sector: 1, count: 2 },
        BlockRequest::WriteZeroes { sector: 5, count: 1, may_unmap: true },
    ]
    .map(|request| rig.submit(request));
    let name = rig.submit(BlockRequest::GetId { buffer: rig.buffer(1) });
    assert_eq!(rig.serve(), 4);
    for token in tokens {
        assert_eq!(rig.disk.poll(token, &bell().1).unwrap().result, Ok(0));
    }
    let outcome = rig.disk.poll(name, &bell().1).unwrap();
    assert_eq!((outcome.result, &outcome.buffer.unwrap().bytes()[..7]), (Ok(20), &b"a disk\0"[..]));
    let zero: Vec<_> = (0..8).filter(|sector| rig.content[sector * SECTOR_BYTES + 1] == 0).collect();
    assert_eq!(zero, [0, 1, 2, 5]);
}

#[test]
fn what_cannot_be_asked_is_refused_and_the_buffer_comes_back() {
    let rig = rig(Features::empty(), 8);
    let read = |sector, len: usize| {
        let mut buffer = rig.buffer(2);
        buffer.set_len(len);
        BlockRequest::Read { sector, buffer }
    };
    for request in
        [read(SECTORS, 512), read(SECTORS - 1, 1024), read(u64::MAX, 512), read(0, 0), read(0, 100)]
    {
        match rig.disk.submit(request, &bell().1) {
            Submitted::Refused(outcome) => {
                assert!(matches!(outcome.result, Err(Error::Request(_))) && outcome.buffer.is_some());
            }
            other => panic!("{other:?}"),
        }
    }
    let too_much = BlockRequest::Discard { sector: 0, count: 9 };
    assert!(matches!(rig.disk.submit(too_much, &bell().1), Submitted::Refused(_)));
    assert_eq!(rig.device.registers().notifications, []);
}

#[test]
fn a_full_queue_takes_the_next_request_when_one_is_answered() {
    let mut rig = rig(Features::INDIRECT_DESC, 2);
    let tokens: Vec<_> = (0..2).map(|_| rig.submit(BlockRequest::Flush)).collect();
    let (bell, waker) = bell();
    assert!(matches!(rig.disk.submit(BlockRequest::Flush, &waker), Submitted::Full(BlockRequest::Flush)));
    rig.serve();
    for token in tokens {
        rig.disk.poll(token, &waker).unwrap().result.unwrap();
    }
    assert!(bell.0.load(SeqCst) > 0, "who waits for room is woken");
    assert!(matches!(rig.disk.submit(BlockRequest::Flush, &waker), Submitted::Sent(_)));
}

#[test]
fn a_forgotten_request_keeps_its_buffer_until_the_device_is_done() {
    let mut rig = rig(Features::empty(), 8);
    let before = rig.hal.pieces();
    let token = rig.submit(BlockRequest::Read { sector: 0, buffer: rig.buffer(1) });
    rig.disk.forget(token);
    assert_eq!(rig.hal.pieces(), before + 1);
    rig.serve();
    assert_eq!(rig.hal.pieces(), before);
}

#[test]
fn each_status_byte_has_its_meaning() {
    for (status, is_ok) in [(0, true), (1, false), (2, false), (3, false), (0xff, false)] {
        let mut rig = rig(Features::empty(), 8);
        let token = rig.submit(BlockRequest::Flush);
        let chain = rig.player.take().unwrap();
        rig.hal.write(chain.parts[1].0, &[status]);
        rig.player.finish(&chain, 1);
        rig.interrupt();
        assert_eq!(rig.disk.poll(token, &bell().1).unwrap().result.is_ok(), is_ok, "{status}");
    }
}

#[test]
fn success_with_too_few_bytes_is_no_success() {
    let mut rig = rig(Features::empty(), 8);
    let token = rig.submit(BlockRequest::Read { sector: 0, buffer: rig.buffer(1) });
    let chain = rig.player.take().unwrap();
    rig.carry_out(&chain);
    rig.player.finish(&chain, 512);
    rig.interrupt();
    assert!(matches!(rig.disk.poll(token, &bell().1).unwrap().result, Err(Error::Failed(_))));
}

#[test]
fn a_disk_may_grow() {
    let rig = rig(Features::empty(), 8);
    rig.device.registers().config[0] = 100;
    rig.device.registers().interrupt = Interrupt::CONFIG;
    rig.interrupt();
    assert_eq!(rig.disk.info().sectors, 100);
}

#[test]
fn no_memory_is_an_error_and_leaves_none_behind() {
    for pieces in 0..3 {
        let hal = FakeHal::default();
        hal.fail_after(pieces);
        let device = FakeDevice::new(DeviceId::BLOCK, Features::INDIRECT_DESC, 8, config());
        let error = Disk::probe(device.transport(), &hal, 1).err();
        assert!(matches!(error, Some(Error::NoDmaMemory { .. })), "{error:?}");
        assert_eq!((hal.pieces(), device.registers().queues.len()), (0, 0));
    }
}

/// On CPU 0. VIRTIO_BLK_F_MQ, `num_queues` (§5.2.3, §5.2.4).
fn with_two_queues(cpus: u16, features: Features) -> (FakeHal, FakeDevice, Disk) {
    FakeCpu::BUSY.enter();
    let mut config = config();
    config[34] = 2;
    let hal = FakeHal::default();
    let features = features | Features::from_bits_retain(1 << 12);
    let device = FakeDevice::new(DeviceId::BLOCK, features, 8, config).with_queues(2);
    let block = Disk::probe(device.transport(), &hal, cpus).unwrap();
    (hal, device, block)
}

/// §5.2.5: a queue a CPU, no more than the device has; each CPU's requests go to its own.
#[test]
fn each_cpu_sends_to_its_own_queue() {
    let (hal, device, block) = with_two_queues(3, Features::empty());
    assert_eq!(block.queues(), 2);
    let mut sent = Vec::new();
    for number in [1, 0, 2] {
        FakeCpu { number, ..FakeCpu::BUSY }.enter();
        let Submitted::Sent(token) = block.submit(BlockRequest::Flush, &bell().1) else { panic!("no room") };
        sent.push(token);
    }
    assert!(device.registers().notifications.is_empty(), "told later");
    block.tell();
    let told: Vec<u16> = device.registers().notifications.iter().map(|(queue, _)| *queue).collect();
    assert_eq!(told, [0, 1], "once for both of queue 0");
    let mut player = device.player_of(&hal, 1);
    let chain = player.take().unwrap();
    hal.write(chain.parts[1].0, &[0]);
    player.finish(&chain, 1);
    block.queue_interrupt(0, 2);
    let (bell, waker) = bell();
    let token = block.poll(sent.remove(0), &waker).unwrap_err();
    block.queue_interrupt(1, 2);
    assert_eq!(bell.0.load(SeqCst), 1);
    assert_eq!(block.poll(token, &waker).unwrap().result, Ok(0));
    // A lie in one queue ends them all.
    player.put(7, 0, 1, 1);
    block.queue_interrupt(1, 2);
    for token in sent {
        assert!(block.poll(token, &waker).unwrap().result.is_err());
    }
    drop(block);
    assert_eq!(hal.pieces(), 0);
}

/// Who has come to another CPU has its requests in the queue of the first; others wait in that of the second.
#[test]
fn who_is_alone_silences_no_queue_but_that_of_its_requests() {
    let (hal, device, block) = with_two_queues(2, Features::RING_PACKED);
    let alone = FakeCpu { is_alone: true, ..FakeCpu::BUSY };
    alone.enter();
    let disk: &dyn BlockDevice = &block;
    let (_, waker) = bell();
    let mut flights = disk.in_flight(1);
    flights.push(0, BlockRequest::Flush);
    let mut next = || pin!(flights.next()).poll(&mut Context::from_waker(&waker)).is_pending();
    assert!(next());
    FakeCpu { number: 1, ..alone }.enter();
    let Submitted::Sent(token) = block.submit(BlockRequest::Flush, &waker) else { panic!("no room") };
    assert!(next());
    for queue in 0..2 {
        // RING_EVENT_FLAGS_ENABLE (§2.8.14).
        assert_eq!(hal.u16(device.player_of(&hal, queue).at.driver + 2), 0, "queue {queue}");
    }
    block.forget(token);
}

/// Its requests are found in each of them, wake it from each, and none is left behind.
#[test]
fn who_goes_from_cpu_to_cpu_has_requests_in_several_queues() {
    let (hal, device, block) = with_two_queues(2, Features::empty());
    let disk: &dyn BlockDevice = &block;
    let (bell, waker) = bell();
    let before = hal.pieces();
    let mut flights = disk.in_flight(4);
    let next = |flights: &mut InFlight<'_, dyn BlockDevice + '_>| {
        pin!(flights.next()).poll(&mut Context::from_waker(&waker)).map(|found| found.map(|(tag, _)| tag))
    };
    for (tag, number) in [(0, 0), (1, 0), (2, 1), (3, 1)] {
        FakeCpu { number, ..FakeCpu::BUSY }.enter();
        let buffer = (&hal as &dyn Hal).buffer(SECTOR_BYTES).unwrap();
        flights.push(tag, BlockRequest::Read { sector: 0, buffer });
        assert!(next(&mut flights).is_pending());
    }
    let mut players = [0, 1].map(|queue| device.player_of(&hal, queue));
    let mut answer = |queue: usize| {
        let chain = players[queue].take().unwrap();
        hal.write(chain.parts[2].0, &[0]);
        players[queue].finish(&chain, 1 + SECTOR_BYTES as u32);
    };
    for (queue, tag) in [(0, 0), (1, 2)] {
        answer(queue);
        block.queue_interrupt(queue as u16, 2);
        assert_eq!(bell.0.swap(0, SeqCst), 1, "woken from queue {queue}");
        assert_eq!(next(&mut flights), Poll::Ready(Some(tag)));
        assert!(next(&mut flights).is_pending());
    }
    assert_eq!(flights.len(), 2);
    // One is answered and not taken, one is still with the device.
    answer(1);
    block.queue_interrupt(1, 2);
    drop(flights);
    assert_eq!(hal.pieces(), before + 1);
    answer(0);
    block.queue_interrupt(0, 2);
    assert_eq!(hal.pieces(), before);
}

/// §2.6.1: a queue that is reset gives back what was in it, and works again.
#[test]
fn a_request_without_an_answer_can_be_taken_back() {
    for ring in [Features::RING_RESET, Features::RING_RESET | Features::RING_PACKED | Features::INDIRECT_DESC]
    {
        let mut rig = rig(ring, 8);
        let (bell, waker) = bell();
        let read = |rig: &Rig| BlockRequest::Read { sector: 5, buffer: rig.buffer(1) };
        let Submitted::Sent(token) = rig.disk.submit(read(&rig), &waker) else { panic!("no room") };
        rig.disk.cancel(&rig.hal).unwrap();
        assert_eq!(bell.0.load(SeqCst), 1);
        let outcome = rig.disk.poll(token, &waker).unwrap();
        assert!(outcome.result == Err(Error::Cancelled) && outcome.buffer.is_some());
        rig.player = rig.device.player(&rig.hal);
        let token = rig.submit(read(&rig));
        assert_eq!(rig.serve(), 1);
        let outcome = rig.disk.poll(token, &waker).unwrap();
        assert_eq!((outcome.result, outcome.buffer.unwrap().bytes()[0]), (Ok(SECTOR_BYTES), 5));
        // A device that does not finish keeps what it has.
        let token = rig.submit(read(&rig));
        rig.device.registers().is_stuck = true;
        assert!(rig.disk.cancel(&rig.hal).is_err());
        assert!(rig.disk.poll(token, &waker).is_err());
        rig.device.registers().is_stuck = false;
        rig.serve();
    }
    let rig = rig(Features::empty(), 8);
    assert!(matches!(rig.disk.cancel(&rig.hal), Err(Error::Request(_))));
}

/// §2.7.10, §2.8.10: with the event index a device can say in a packed ring only that it wants to be told of nothing.
#[test]
fn a_device_can_say_that_it_looks_by_itself() {
    for ring in [Features::empty(), Features::RING_PACKED] {
        let rig = rig(ring | Features::EVENT_IDX, 8);
        assert_eq!(rig.disk.features().contains(Features::EVENT_IDX), !ring.is_empty());
        let at = rig.player.at.device;
        // VIRTQ_USED_F_NO_NOTIFY, RING_EVENT_FLAGS_DISABLE: both are 1.
        rig.hal.set_u16(if ring.is_empty() { at } else { at + 2 }, 1);
        let token = rig.submit(BlockRequest::Flush);
        rig.disk.tell();
        assert!(rig.device.registers().notifications.is_empty());
        rig.disk.forget(token);
    }
}

/// A CPU that looks needs no interrupt, and looks where its own requests are.
#[test]
fn who_looks_finds_the_answers() {
    let mut rig = rig(Features::empty(), 8);
    assert_eq!((rig.disk.look(0), rig.disk.look(1)), (None, None), "nothing was asked");
    let token = rig.submit(BlockRequest::Flush);
    assert_eq!((rig.disk.look(0), rig.disk.look(1)), (Some(0), None));
    let chain = rig.player.take().unwrap();
    let written = rig.carry_out(&chain);
    rig.player.finish(&chain, written);
    assert_eq!(rig.disk.look(0), Some(1));
    assert_eq!(rig.disk.poll(token, &bell().1).unwrap().result, Ok(0));
}

/// Who asks again and again, instead of waiting, is not left alone with a request that the device was never told of.
#[test]
fn a_request_that_is_polled_again_is_told_of() {
    let rig = rig(Features::empty(), 8);
    let token = rig.submit(BlockRequest::Flush);
    assert!(rig.device.registers().notifications.is_empty());
    let token = rig.disk.poll(token, &bell().1).unwrap_err();
    assert_eq!(rig.device.registers().notifications.len(), 1);
    rig.disk.forget(token);
}

/// §5.2.4: the disk behind may write in larger pieces than it is addressed by.
#[test]
fn the_topology_is_told() {
    let mut config = config();
    config[20..24].copy_from_slice(&512u32.to_le_bytes());
    (config[24], config[28]) = (3, 16);
    let features = Features::from_bits_retain(1 << 6 | 1 << 10);
    let device = FakeDevice::new(DeviceId::BLOCK, features, 8, config);
    let info = Disk::probe(device.transport(), &FakeHal::default(), 1).unwrap().info();
    assert_eq!((info.block_bytes, info.physical_block_bytes, info.optimal_bytes), (512, 4096, 8192));
}

/// A lock that a task holds is one that a handler may ask for: both sides need what is behind to be `Send`.
#[test]
fn a_disk_goes_to_any_task() {
    fn check<T: Send + Sync + ?Sized>(_: &T) {}
    let device = FakeDevice::new(DeviceId::BLOCK, Features::empty(), 8, config());
    let disk = Disk::probe(device.transport(), &FakeHal::default(), 1).unwrap();
    let disk: Box<dyn BlockDevice> = Box::new(disk);
    check(&*disk);
}
