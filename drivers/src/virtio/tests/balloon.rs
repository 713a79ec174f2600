//! The balloon device (VirtIO 1.3 §5.5).
#![forbid(unsafe_code)]

use std::{
    sync::atomic::Ordering::SeqCst,
    task::{Poll, Waker},
    vec,
    vec::Vec,
};

use proptest::{collection::vec, prelude::*};

use super::{bell, hostile, ring_features};
use crate::{
    error::Error,
    hal::Hal,
    virtio::{
        DeviceId, Fault, Features,
        balloon::{Balloon, News, Statistic},
        fake::{FakeDevice, FakeHal, Player},
        transport::Interrupt,
    },
};

const MUST_TELL_HOST: u64 = 1;
const STATS_VQ: u64 = 1 << 1;
const DEFLATE_ON_OOM: u64 = 1 << 2;
const FREE_PAGE_HINT: u64 = 1 << 3;
const REPORTING: u64 = 1 << 5;

struct Rig {
    hal: FakeHal,
    device: FakeDevice,
    balloon: Balloon,
}

fn rig(features: u64, ring: Features) -> Rig {
    let hal = FakeHal::default();
    let features = Features::from_bits_retain(features) | ring;
    let device = FakeDevice::new(DeviceId::BALLOON, features, 8, vec![0; 16]).with_queues(5);
    let balloon = Balloon::probe(device.transport(), &hal).unwrap();
    Rig { hal, device, balloon }
}

fn numbers(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
}

/// §5.5.6: lists of page numbers go one way and the other, and the configuration tells how many pages are meant.
#[test]
fn pages_go_in_and_out() {
    let Rig { hal, device, mut balloon } = rig(MUST_TELL_HOST | DEFLATE_ON_OOM, Features::empty());
    assert!(balloon.must_tell_host() && balloon.deflates_on_oom() && !balloon.reports());
    let (bell, waker) = bell();
    assert_eq!(balloon.poll_news(&waker), Poll::Ready(News { wants_statistics: false, target: 0 }));
    assert!(balloon.poll_news(&waker).is_pending());
    device.registers().config[..4].copy_from_slice(&700u32.to_le_bytes());
    device.registers().interrupt = Interrupt::CONFIG;
    balloon.interrupt();
    assert_eq!(bell.0.load(SeqCst), 1);
    assert_eq!(balloon.poll_news(&waker), Poll::Ready(News { wants_statistics: false, target: 700 }));
    for (queue, inflated) in [(0, true), (1, false)] {
        let mut send = |pages: [u32; 2]| match inflated {
            true => balloon.inflate(pages.into_iter()),
            false => balloon.deflate(pages.into_iter()),
        };
        assert!(send([5, 9]));
        assert!(!send([6, 7]), "one list at a time");
        let mut player = device.player_of(&hal, queue);
        let chain = player.take().unwrap();
        let (address, len, is_write) = chain.parts[0];
        assert_eq!((numbers(&hal.read(address, len as usize)), is_write), (vec![5, 9], false));
        assert!(balloon.poll_read(inflated, &waker).is_pending());
        player.finish(&chain, 0);
        balloon.queue_interrupt();
        assert_eq!(balloon.poll_read(inflated, &waker), Poll::Ready(Ok(())));
    }
    balloon.set_actual(2);
    assert_eq!(device.registers().config[4], 2);
}

/// §5.5.6.3: the device has a buffer all the time, and gives it back when it wants it filled.
#[test]
fn statistics_are_told_when_the_host_asks() {
    let Rig { hal, device, mut balloon } = rig(STATS_VQ, Features::RING_PACKED);
    let mut player = device.player_of(&hal, 2);
    let chain = player.take().unwrap();
    balloon.tell(&[(Statistic::Free, 1)]);
    assert_eq!(player.take(), None, "nobody has asked");
    player.finish(&chain, 0);
    balloon.interrupt();
    assert!(balloon.news().wants_statistics);
    balloon.tell(&[(Statistic::Free, 0x1234), (Statistic::Total, 7)]);
    assert!(!balloon.news().wants_statistics);
    let (address, len, _) = player.take().unwrap().parts[0];
    let expected = [4, 0, 0x34, 0x12, 0, 0, 0, 0, 0, 0, 5, 0, 7, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(hal.read(address, len as usize), expected);
}

/// §5.5.6.7, and the queue's number where hints are offered too.
#[test]
fn free_memory_is_lent_and_comes_back() {
    for (hint, queue) in [(0, 3), (FREE_PAGE_HINT, 4)] {
        let Rig { hal, device, mut balloon } = rig(STATS_VQ | REPORTING | hint, Features::empty());
        let memory = |count: usize| -> Vec<_> {
            let hal: &dyn Hal = &hal;
            (0..count).map(|_| hal.buffer(8192).unwrap()).collect()
        };
        assert!(balloon.report(memory(2)).is_ok());
        assert_eq!(balloon.report(memory(1)).unwrap_err().len(), 1, "one report at a time");
        let mut player = device.player_of(&hal, queue);
        let chain = player.take().unwrap();
        assert!(chain.parts.len() == 2 && chain.parts.iter().all(|part| (part.1, part.2) == (8192, true)));
        assert!(balloon.poll_reported(Waker::noop()).is_pending());
        player.finish(&chain, 0);
        balloon.interrupt();
        let Poll::Ready(memory) = balloon.poll_reported(Waker::noop()) else { panic!("not back") };
        assert_eq!(memory.len(), 2);
    }
}

#[test]
fn a_device_that_lies_is_reset_and_lent_memory_comes_back() {
    let Rig { hal, device, mut balloon } = rig(STATS_VQ | REPORTING, Features::empty());
    let buffer = {
        let hal: &dyn Hal = &hal;
        hal.buffer(4096).unwrap()
    };
    balloon.report(vec![buffer]).unwrap();
    device.player_of(&hal, 0).put(3, 0, 1, 1);
    balloon.interrupt();
    assert_eq!(balloon.fault(), Some(Error::Fault(Fault::UsedTooMany { used: 1, in_flight: 0 })));
    assert!(matches!(balloon.poll_reported(Waker::noop()), Poll::Ready(memory) if memory.len() == 1));
    assert!(!balloon.inflate([1].into_iter()));
    drop(balloon);
    assert_eq!(hal.pieces(), 0);
}

proptest! {
    #[test]
    fn any_configuration_is_survived(config in vec(any::<u8>(), 0..20), features: u64, queues in 0..6u16) {
        let hal = FakeHal::default();
        let device = FakeDevice::new(DeviceId::BALLOON, Features::from_bits_retain(features), 8, config);
        drop(Balloon::probe(device.with_queues(queues).transport(), &hal));
        prop_assert_eq!(hal.pieces(), 0);
    }

    /// Whatever the device writes to its rings: every call returns, lent memory comes back at most once, and none is left in
    /// the end.
    #[test]
    fn a_hostile_device_gets_nothing(
        ring in ring_features(),
        features in 0..64u64,
        steps in vec((0..8u8, any::<u16>(), any::<u32>()), 0..120),
    ) {
        let Rig { hal, device, mut balloon } = rig(features, ring);
        let queues: Vec<u16> = device.registers().queues.keys().copied().collect();
        let mut players: Vec<Player> = queues.iter().map(|&queue| device.player_of(&hal, queue)).collect();
        let (mut lent, mut back) = (0, 0);
        for (step, which, value) in steps {
            let at = usize::from(which) % players.len();
            match step {
                0 => hostile::scribble(&players[at], value),
                1 => players[at].put(u32::from(which % 9), value % 600, 1, 1),
                2 => balloon.interrupt(),
                3 => _ = balloon.inflate(0..value % 2000),
                4 => _ = balloon.deflate(0..value % 2000),
                5 => {
                    _ = balloon.deflate_was_read();
                    _ = balloon.poll_read(value & 1 != 0, Waker::noop());
                }
                6 => {
                    let buffer = { let hal: &dyn Hal = &hal; hal.buffer(4096).unwrap() };
                    lent += usize::from(balloon.report(vec![buffer]).is_ok());
                }
                _ => {
                    balloon.tell(&[(Statistic::Available, value.into())]);
                    if let Poll::Ready(memory) = balloon.poll_reported(Waker::noop()) {
                        back += memory.len();
                    }
                }
            }
            prop_assert!(back <= lent);
        }
        balloon.interrupt();
        drop(balloon);
        prop_assert_eq!(hal.pieces(), 0);
    }
}
