//! The network card (VirtIO 1.3 §5.1).
#![forbid(unsafe_code)]

use std::{cell::Cell, sync::atomic::Ordering::SeqCst, vec, vec::Vec};

use proptest::{collection::vec, prelude::*};

use super::{bell, ring_features};
use crate::{
    class::net::{ChecksumPlace, Control, Frame, MacAddress, NetDevice, Offloads, Segments, SendOffload},
    error::Error,
    virtio::{
        DeviceId, Fault, Features, Status,
        fake::{Chain, FakeDevice, FakeHal, Player},
        net::{Net, Setting, Sizes},
        transport::Interrupt,
    },
};

pub(super) const MAC: MacAddress = MacAddress([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
pub(super) const SIZES: Sizes = Sizes { receive: 8, short: 4, long: 2, long_bytes: 16 << 10 };

const CSUM: u64 = 1 << 0;
const GUEST_CSUM: u64 = 1 << 1;
const MAC_BIT: u64 = 1 << 5;
const GUEST_TSO: u64 = 1 << 7 | 1 << 8;
const HOST_TSO: u64 = 1 << 11 | 1 << 12;
const MRG_RXBUF: u64 = 1 << 15;
const STATUS: u64 = 1 << 16;
pub(super) const CTRL: u64 = 1 << 17 | 1 << 18 | 1 << 19 | 1 << 21 | 1 << 23;
pub(super) const ALL: u64 = CSUM | GUEST_CSUM | MAC_BIT | GUEST_TSO | HOST_TSO | MRG_RXBUF | STATUS;

pub(super) type Card = Net<FakeHal>;

/// A card, and who plays it.
struct Rig {
    hal: FakeHal,
    device: FakeDevice,
    to_guest: Player,
    from_guest: Player,
    card: Card,
}

pub(super) fn config() -> Vec<u8> {
    let mut config = MAC.0.to_vec();
    config.extend([1, 0, 1, 0, 0xdc, 5, 0, 0]);
    config
}

pub(super) fn setting(cpus: u16) -> Setting {
    Setting { cpus, current_cpu: || CPU.get(), sizes: |_| SIZES, mac: || MacAddress([2, 0, 0, 0, 0, 1]) }
}

thread_local! {
    /// The CPU on which the test is.
    pub(super) static CPU: Cell<u16> = const { Cell::new(0) };
}

fn probe(device: &FakeDevice, hal: &FakeHal) -> Result<Card, Error> {
    Card::probe(device.transport(), hal, setting(1))
}

fn rig(features: Features, own: u64) -> Rig {
    let hal = FakeHal::default();
    let features = features | Features::from_bits_retain(own);
    let device = FakeDevice::new(DeviceId::NET, features, 16, config()).with_queues(3);
    let card = probe(&device, &hal).unwrap();
    let (to_guest, from_guest) = (device.player_of(&hal, 0), device.player_of(&hal, 1));
    Rig { hal, device, to_guest, from_guest, card }
}

impl Rig {
    /// Writes `bytes` to as many buffers of the guest as it takes, as the standard says.
    fn give(&mut self, flags: u8, bytes: &[u8]) {
        let mut packet = vec![flags, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        packet.extend(bytes);
        let count = packet.len().div_ceil(4096);
        packet[10] = count as u8;
        let chains: Vec<Chain> = (0..count).map(|_| self.to_guest.take().expect("a buffer")).collect();
        for (chain, piece) in chains.iter().zip(packet.chunks(4096)) {
            self.hal.write(chain.parts[0].0, piece);
            self.to_guest.finish(chain, piece.len() as u32);
        }
    }

    /// The next packet that the guest sends, header and all.
    fn take(&mut self) -> Option<Vec<u8>> {
        let chain = self.from_guest.take()?;
        let packet = chain.parts.iter().flat_map(|&(address, len, _)| self.hal.read(address, len as usize));
        let packet = packet.collect();
        self.from_guest.finish(&chain, 0);
        Some(packet)
    }

    fn send(&self, bytes: &[u8], offload: SendOffload) -> bool {
        let Some(mut frame) = self.card.buffer(bytes.len()) else { return false };
        frame.bytes_mut().copy_from_slice(bytes);
        self.card.send(frame, offload);
        true
    }

    fn interrupt(&self) {
        self.card.interrupt();
    }

    fn fault(&self) -> Option<Error> {
        self.card.control(Control::Promiscuous(true)).err().filter(|error| matches!(error, Error::Fault(_)))
    }
}

pub(super) fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 7 + at) as u8).collect()
}

/// Both formats, each with and without the event index.
pub(super) fn rings() -> [Features; 4] {
    let packed = Features::RING_PACKED;
    [Features::empty(), Features::EVENT_IDX, packed, packed | Features::EVENT_IDX]
}

#[test]
fn frames_come_in_and_go_out_unchanged() {
    for features in rings() {
        let mut rig = rig(features, ALL);
        for round in 0..40 {
            let frame = bytes(60 + 37 * round);
            rig.give(0, &frame);
            let received = rig.card.receive(0).unwrap();
            assert_eq!(received.bytes(), frame);
            rig.card.recycle(received);
            assert!(rig.card.receive(0).is_none());
            assert!(rig.send(&frame, SendOffload::default()));
            assert_eq!(rig.take().unwrap()[12..], frame);
        }
        assert_eq!((rig.card.counts().received, rig.card.counts().sent), (40, 40));
    }
}

/// §5.1.6.4: a frame in several buffers is one frame, and all its buffers go back to the device.
#[test]
fn a_spread_frame_is_put_together() {
    for features in rings() {
        let mut rig = rig(features, ALL);
        for len in [4084, 4085, 8180, 20_000, 30_000] {
            for _ in 0..3 {
                let frame = bytes(len);
                rig.give(2, &frame);
                let received = rig.card.receive(0).unwrap();
                assert!(received.bytes() == frame && received.checksum_is_good());
                rig.card.recycle(received);
            }
        }
        assert_eq!((0..9).filter(|_| rig.to_guest.take().is_some()).count(), 8, "all buffers are back");
    }
}

#[test]
fn the_device_is_told_what_to_compute() {
    let mut rig = rig(Features::empty(), ALL);
    let offloads = rig.card.info().offloads;
    assert_eq!(offloads, Offloads::all());
    let segments = Some(Segments { data_bytes: 1448, header_bytes: 54, is_ipv6: false });
    let checksum = Some(ChecksumPlace { start: 34, offset: 16 });
    assert!(rig.send(&bytes(10_000), SendOffload { checksum, segments }));
    let packet = rig.take().unwrap();
    assert_eq!(packet[..12], [1, 1, 54, 0, 0xa8, 5, 34, 0, 16, 0, 0, 0]);
    assert_eq!(packet.len(), 12 + 10_000);
}

/// §5.1.3.1: none without what it requires.
#[test]
fn features_that_need_others_are_not_taken_without_them() {
    let chosen = |own| rig(Features::empty(), own).device.registers().chosen & 0x00ff_ffff;
    assert_eq!(chosen(HOST_TSO | GUEST_TSO | MRG_RXBUF), MRG_RXBUF);
    assert_eq!(chosen(CSUM | HOST_TSO | GUEST_CSUM | GUEST_TSO), CSUM | HOST_TSO | GUEST_CSUM);
    assert_eq!(chosen(CTRL & !(1 << 17)), 0);
}

#[test]
fn without_segmentation_no_long_frame_is_taken() {
    let rig = rig(Features::empty(), CSUM);
    assert!(rig.card.buffer(4085).is_none() && rig.card.buffer(1514).is_some());
}

#[test]
fn who_finds_no_room_is_woken_when_there_is() {
    for features in rings() {
        let mut rig = rig(features, 0);
        while rig.send(&bytes(60), SendOffload::default()) {}
        rig.card.flush();
        let (bell, waker) = bell();
        assert!(rig.card.wait(0, &waker), "nothing to do yet");
        rig.take().unwrap();
        rig.interrupt();
        assert_eq!(bell.0.load(SeqCst), 1);
        assert!(rig.send(&bytes(60), SendOffload::default()));
    }
}

/// An interrupt for a frame that was taken already says nothing of room.
#[test]
fn who_finds_no_room_is_woken_after_an_interrupt_for_something_else() {
    for features in rings() {
        let mut rig = rig(features, 0);
        while rig.send(&bytes(60), SendOffload::default()) {}
        rig.interrupt();
        let (bell, waker) = bell();
        assert!(rig.card.wait(0, &waker), "nothing to do yet");
        rig.take().unwrap();
        assert!(!rig.card.wait(0, &waker), "there is room, and the wait asks for it");
        drop(bell);
    }
}

#[test]
fn a_frame_that_came_before_the_wait_is_not_missed() {
    for features in rings() {
        let mut rig = rig(features, 0);
        rig.give(0, &bytes(60));
        assert!(!rig.card.wait(0, &bell().1));
    }
}

#[test]
fn notifications_are_sent_for_batches() {
    let rig = rig(Features::empty(), 0);
    rig.device.registers().notifications.clear();
    for _ in 0..3 {
        assert!(rig.send(&bytes(60), SendOffload::default()));
    }
    assert_eq!(rig.device.registers().notifications, []);
    rig.card.flush();
    rig.card.flush();
    assert_eq!(rig.device.registers().notifications, [(1, None)]);
}

#[test]
fn link_address_and_mtu_are_read() {
    let rig = rig(Features::empty(), ALL | 1 << 3);
    let info = rig.card.info();
    assert_eq!((info.mac, info.mtu, info.link_up), (MAC, 1500, true));
    rig.device.registers().config[6] = 0;
    rig.device.registers().interrupt = Interrupt::CONFIG;
    rig.interrupt();
    assert!(!rig.card.info().link_up);
}

#[test]
fn a_card_that_does_not_answer_commands_is_not_waited_for() {
    let rig = rig(Features::empty(), CTRL);
    for _ in 0..2 {
        assert!(matches!(rig.card.control(Control::Promiscuous(true)), Err(Error::Failed(_))));
    }
}

#[test]
fn a_card_without_commands_refuses_them() {
    let rig = rig(Features::empty(), 0);
    assert!(matches!(rig.card.control(Control::AllMulticast(true)), Err(Error::Request(_))));
}

#[test]
fn a_header_that_lies_is_the_end_of_the_card() {
    for (features, told) in rings().into_iter().zip([0, 2, 99, 3]) {
        let mut rig = rig(features, ALL);
        let chain = rig.to_guest.take().unwrap();
        rig.hal.write(chain.parts[0].0, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, told, 0]);
        rig.to_guest.finish(&chain, 100);
        assert!(rig.card.receive(0).is_none());
        let fault = Fault::FrameBuffers { found: 1, told: told.into() };
        assert_eq!(rig.fault(), Some(Error::Fault(fault)));
        assert_eq!(rig.device.registers().status, Status::empty());
        assert!(!rig.card.info().link_up && rig.card.buffer(60).is_none());
    }
}

#[test]
fn a_frame_that_is_too_short_is_dropped_and_the_next_one_taken() {
    let mut rig = rig(Features::empty(), ALL);
    for len in [0, 11, 12, 25] {
        let chain = rig.to_guest.take().unwrap();
        rig.hal.write(chain.parts[0].0, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
        rig.to_guest.finish(&chain, len);
    }
    rig.give(0, &bytes(60));
    assert_eq!(rig.card.receive(0).unwrap().bytes(), bytes(60));
    assert_eq!(rig.card.counts().dropped, 4);
}

#[test]
fn the_buffers_of_a_card_that_cannot_be_reset_are_never_freed() {
    let mut rig = rig(Features::empty(), 0);
    rig.device.registers().is_stuck = true;
    rig.to_guest.put(77, 0, 1, 1);
    assert!(rig.card.receive(0).is_none());
    let Rig { hal, card, .. } = rig;
    drop(card);
    assert_eq!(hal.pieces(), 8 + 2, "buffers and rings");
}

#[test]
fn no_memory_is_an_error_and_leaves_none_behind() {
    for pieces in 0..8 {
        let hal = FakeHal::default();
        hal.fail_after(pieces);
        let features = Features::from_bits_retain(ALL | CTRL);
        let device = FakeDevice::new(DeviceId::NET, features, 8, config()).with_queues(3);
        assert!(matches!(probe(&device, &hal), Err(Error::NoDmaMemory { .. })));
        assert_eq!(hal.pieces(), 0);
    }
}

proptest! {
    /// Any configuration, of any length: refused or taken, never believed to be what no card is.
    #[test]
    fn any_configuration_is_survived(config in vec(any::<u8>(), 0..16), features: u64, queues in 0u16..4) {
        let hal = FakeHal::default();
        let device = FakeDevice::new(DeviceId::NET, Features::from_bits_retain(features), 8, config);
        let device = device.with_queues(queues);
        if let Ok(net) = probe(&device, &hal) {
            let info = net.info();
            prop_assert!(info.mac.is_unicast() && info.mtu >= 68);
            prop_assert!(info.max_frame_bytes >= usize::from(info.mtu) + 14);
        }
        prop_assert_eq!(hal.pieces(), 0);
    }

    /// A device that scribbles over rings and buffers, names any buffer with any length and interrupts when it likes: the
    /// guest reads no byte that is not a frame's, every call returns, and no memory is left in the end.
    #[test]
    fn a_hostile_card_costs_its_frames_and_nothing_else(
        features in ring_features(),
        own in prop_oneof![Just(ALL), Just(0), Just(MRG_RXBUF)],
        steps in vec((0..9u8, any::<u16>(), any::<u32>()), 0..150),
    ) {
        let mut rig = rig(features - Features::IN_ORDER, own);
        let waker = bell().1;
        // Where the buffers lie, looked up before the rings are nonsense.
        let chains: Vec<Chain> = std::iter::from_fn(|| rig.to_guest.take()).collect();
        let mut held: Vec<Frame> = Vec::new();
        for (step, which, value) in steps {
            let player = if which & 1 == 0 { &mut rig.to_guest } else { &mut rig.from_guest };
            let alive = !rig.device.registers().status.is_empty();
            match step {
                0 if alive => {
                    let ring_bytes = player.at.device - player.at.descriptors + 4;
                    player.hal.set_u16(player.at.descriptors + u64::from(which) % (ring_bytes / 2) * 2, value as u16);
                }
                1 | 2 if alive => player.put(u32::from(which >> 1) % 20, value % 5000, 1, 1),
                3 if alive => {
                    let chain = &chains[usize::from(which) % chains.len()];
                    rig.hal.write(chain.parts[0].0, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, value as u8 % 4, 0]);
                    rig.to_guest.finish(chain, value % 4097);
                }
                4 => rig.interrupt(),
                5 => held.extend(rig.card.receive(0)),
                6 => if let Some(frame) = held.pop() {
                    prop_assert!(frame.bytes().len() <= 70_000);
                    rig.card.recycle(frame);
                },
                7 => {
                    rig.send(&bytes(usize::from(which) % 5000), SendOffload::default());
                    rig.card.flush();
                }
                _ => {
                    rig.card.wait(0, &waker);
                }
            }
        }
        drop((held, waker));
        let Rig { hal, card, .. } = rig;
        drop(card);
        prop_assert_eq!(hal.pieces(), 0);
    }
}
