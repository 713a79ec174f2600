//! Neighbouring requests of a batch, which go to a virtio disk as one (VirtIO 1.3 §5.2.6).
#![forbid(unsafe_code)]

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, atomic::Ordering::SeqCst},
    task::{Poll, Waker},
    vec,
    vec::Vec,
};

use super::{
    bell,
    block::{Rig, rig, rig_of_segments},
    in_flight::{Flights, in_flight, next, read},
};
use crate::{
    class::{BlockRequest, SECTOR_BYTES},
    error::Error,
    virtio::{Fault, Features, transport::Interrupt},
};

const TABLES: [Features; 2] = [Features::INDIRECT_DESC, Features::RING_PACKED.union(Features::INDIRECT_DESC)];

/// Data segments of each request that the device has got by now, which it drops.
fn data_segments(rig: &mut Rig) -> Vec<usize> {
    core::iter::from_fn(|| rig.player.take()).map(|chain| chain.parts.len() - 2).collect()
}

/// All outcomes that there are: tag, whether it went well, first byte.
fn outcomes(flights: &mut Flights<'_>, waker: &Waker) -> Vec<(u64, bool, u8)> {
    let taken = core::iter::from_fn(|| match next(flights, waker) {
        Poll::Ready(Some((tag, outcome))) => {
            Some((tag, outcome.result.is_ok(), outcome.buffer.unwrap().bytes()[0]))
        }
        _ => None,
    });
    taken.collect()
}

/// Four reads that the device has got as one.
fn gathered(rig: &Rig, flights: &mut Flights<'_>, waker: &Waker) {
    (0..4).for_each(|tag| flights.push(tag, read(rig, 10 + tag)));
    assert!(next(flights, waker).is_pending());
    rig.disk.tell();
}

#[test]
fn neighbours_are_one_request_and_have_an_outcome_each() {
    for features in TABLES {
        let mut rig = rig_of_segments(features, 8, 16);
        let disk = rig.disk.clone();
        let (bell, waker) = bell();
        let mut flights = in_flight(&disk, 4);
        for tag in 0..4 {
            let mut buffer = rig.buffer(1);
            buffer.bytes_mut().fill(0xa0 + tag as u8);
            flights.push(tag, BlockRequest::Write { sector: 20 + tag, buffer });
        }
        (4..8).for_each(|tag| flights.push(tag, read(&rig, 16 + tag)));
        assert!(next(&mut flights, &waker).is_pending());
        assert_eq!((rig.serve(), flights.len()), (2, 8));
        assert_eq!(bell.0.load(SeqCst), 1);
        let expected: Vec<_> = (0..8).map(|tag| (tag, true, 0xa0 + (tag % 4) as u8)).collect();
        assert_eq!(outcomes(&mut flights, &waker), expected);
        assert!(flights.is_empty());
    }
}

#[test]
fn only_neighbours_of_a_kind_are_gathered() {
    for features in TABLES {
        let mut rig = rig_of_segments(features, 16, 16);
        let disk = rig.disk.clone();
        let mut flights = in_flight(&disk, 16);
        let write = |sector| BlockRequest::Write { sector, buffer: rig.buffer(2) };
        let requests = [
            vec![read(&rig, 1), read(&rig, 2)],
            vec![read(&rig, 4)],
            vec![write(5), write(7), write(9)],
            vec![BlockRequest::Flush],
            vec![write(11)],
            vec![read(&rig, 13), read(&rig, 14)],
            vec![read(&rig, 14)],
            vec![read(&rig, 13)],
            vec![read(&rig, 63)],
        ];
        requests.into_iter().flatten().for_each(|request| flights.push(0, request));
        // Behind the end of the disk.
        flights.push(9, read(&rig, 64));
        let answer = next(&mut flights, &bell().1);
        assert!(matches!(answer, Poll::Ready(Some((9, outcome))) if outcome.result.is_err()));
        assert_eq!(data_segments(&mut rig), [2, 1, 3, 0, 1, 2, 1, 1, 1]);
    }
}

/// `seg_max` (§5.2.4), and the size of the queue (§2.7.5.3.1). Without tables, a request takes as many places of the ring as it has
/// segments.
#[test]
fn the_device_says_how_many_are_gathered() {
    let [split, packed] = TABLES;
    for (features, size, most, expected) in [
        (split, 8, 3, &[3, 3, 1][..]),
        (packed, 4, 16, &[2, 2]),
        (split, 8, u32::MAX, &[6, 1]),
        (split, 16, u32::MAX, &[7]),
        (split, 8, 0, &[1; 7]),
        (split, 2, 16, &[1; 2]),
        (packed - Features::INDIRECT_DESC, 32, 16, &[1; 7]),
    ] {
        let mut rig = rig_of_segments(features, size, most);
        let disk = rig.disk.clone();
        let mut flights = in_flight(&disk, 7);
        (0..7).for_each(|tag| flights.push(tag, read(&rig, tag)));
        assert!(next(&mut flights, &bell().1).is_pending());
        assert_eq!(data_segments(&mut rig), expected, "{size} {most}");
    }
    let mut rig = rig(split, 32);
    let disk = rig.disk.clone();
    let mut flights = in_flight(&disk, 2);
    (0..2).for_each(|tag| flights.push(tag, read(&rig, tag)));
    assert!(next(&mut flights, &bell().1).is_pending());
    assert_eq!(data_segments(&mut rig), [1, 1], "the device does not say");
}

#[test]
fn large_requests_go_alone() {
    let mut rig = rig_of_segments(Features::INDIRECT_DESC, 8, 16);
    // A disk that has grown, by 4096 sectors.
    rig.device.registers().config[1] = 16;
    rig.device.registers().interrupt = Interrupt::CONFIG;
    rig.interrupt();
    let disk = rig.disk.clone();
    let mut flights = in_flight(&disk, 8);
    for (sector, count) in [(0, 256), (256, 256), (512, 256), (768, 600), (1368, 1)] {
        flights.push(0, BlockRequest::Read { sector, buffer: rig.buffer(count) });
    }
    assert!(next(&mut flights, &bell().1).is_pending());
    assert_eq!(data_segments(&mut rig), [2, 1, 1, 1]);
}

/// Each has an outcome of its own, whoever finds the answer to all.
#[test]
fn what_has_failed_together_is_asked_for_again_alone() {
    for features in TABLES {
        for by_interrupt in [false, true] {
            let mut rig = rig_of_segments(features, 8, 16);
            rig.bad = Some(12);
            let disk = rig.disk.clone();
            let (bell, waker) = bell();
            let mut flights = in_flight(&disk, 8);
            gathered(&rig, &mut flights, &waker);
            let chain = rig.player.take().unwrap();
            assert_eq!(chain.parts.len(), 6);
            let written = rig.carry_out(&chain);
            rig.player.finish(&chain, written);
            if by_interrupt {
                rig.interrupt();
                assert_eq!(bell.0.load(SeqCst), 1);
            }
            // What comes after them is gathered again.
            (4..6).for_each(|tag| flights.push(tag, read(&rig, 10 + tag)));
            let (mut served, mut found) = (Vec::new(), Vec::new());
            while !flights.is_empty() {
                found.extend(outcomes(&mut flights, &waker));
                if !flights.is_empty() {
                    served.push(rig.serve());
                }
            }
            assert_eq!(served, [1; 5], "the others one by one");
            found.sort_unstable();
            let expected: Vec<_> = (0..6).map(|tag| (tag, tag != 2, 10 + tag as u8)).collect();
            assert_eq!(found, expected);
        }
    }
}

#[test]
fn success_with_too_few_bytes_is_none_for_any_of_them() {
    let mut rig = rig_of_segments(Features::INDIRECT_DESC, 8, 16);
    let disk = rig.disk.clone();
    let (_, waker) = bell();
    let mut flights = in_flight(&disk, 4);
    gathered(&rig, &mut flights, &waker);
    let chain = rig.player.take().unwrap();
    let written = rig.carry_out(&chain);
    rig.player.finish(&chain, written - 1);
    for tag in 0..4 {
        assert!(next(&mut flights, &waker).is_pending());
        assert_eq!(rig.serve(), 1);
        let Poll::Ready(Some((found, outcome))) = next(&mut flights, &waker) else { panic!("no answer") };
        assert_eq!((found, outcome.result), (tag, Ok(SECTOR_BYTES)));
    }
}

/// The answer comes while the requests are being sent, so that no interrupt wakes who waits.
#[test]
fn who_finds_a_failure_need_not_be_called_again() {
    let mut rig = rig_of_segments(Features::INDIRECT_DESC, 32, 16);
    let player = Arc::new(Mutex::new(rig.player.clone()));
    let device = player.clone();
    rig.device.registers().reacts = Some(Arc::new(move |_, _| {
        let mut player = device.lock().unwrap();
        let chain = player.take().unwrap();
        player.hal.write(chain.parts.last().unwrap().0, &[1]);
        player.finish(&chain, 1);
    }));
    let disk = rig.disk.clone();
    let mut flights = in_flight(&disk, 16);
    // So many that the device is told at once.
    (0..16).for_each(|tag| flights.push(tag, read(&rig, tag)));
    assert!(next(&mut flights, &bell().1).is_pending());
    rig.device.registers().reacts = None;
    rig.player = player.lock().unwrap().clone();
    assert_eq!(rig.serve(), 1, "the other eight");
    assert_eq!(outcomes(&mut flights, &bell().1).len(), 8);
    assert_eq!(data_segments(&mut rig), [1]);
}

/// Who asks again and again, instead of waiting, is not left alone with a request that the device was never told of.
#[test]
fn the_device_is_told_at_once_of_what_goes_alone() {
    let mut rig = rig_of_segments(Features::INDIRECT_DESC, 8, 16);
    rig.bad = Some(10);
    let disk = rig.disk.clone();
    let mut flights = in_flight(&disk, 4);
    gathered(&rig, &mut flights, &bell().1);
    assert_eq!(rig.serve(), 1);
    let before = rig.device.registers().notifications.len();
    assert!(next(&mut flights, &bell().1).is_pending());
    assert_eq!(rig.device.registers().notifications.len(), before + 1);
}

#[test]
fn dropped_neighbours_keep_their_buffers_until_the_device_is_done() {
    for features in TABLES {
        let mut rig = rig_of_segments(features, 8, 16);
        let before = rig.hal.pieces();
        let disk = rig.disk.clone();
        let mut flights = in_flight(&disk, 4);
        gathered(&rig, &mut flights, &bell().1);
        drop(flights);
        assert_eq!(rig.hal.pieces(), before + 4);
        assert_eq!(rig.serve(), 1);
        assert_eq!(rig.hal.pieces(), before);
    }
}

#[test]
fn neighbours_fail_with_the_device_and_are_taken_back_with_the_others() {
    for features in TABLES {
        let mut rig = rig_of_segments(features | Features::RING_RESET, 8, 16);
        let disk = rig.disk.clone();
        let (_, waker) = bell();
        let mut flights = in_flight(&disk, 4);
        let fate = |flights: &mut Flights<'_>, error| {
            let mut tags = BTreeSet::new();
            while let Poll::Ready(Some((tag, outcome))) = next(flights, &waker) {
                assert_eq!((outcome.result, outcome.buffer.is_some()), (Err(error), true));
                tags.insert(tag);
            }
            assert_eq!(tags, (0..4).collect());
            assert!(flights.is_empty());
        };
        gathered(&rig, &mut flights, &waker);
        rig.disk.cancel(&rig.hal).unwrap();
        fate(&mut flights, Error::Cancelled);
        gathered(&rig, &mut flights, &waker);
        rig.player = rig.device.player(&rig.hal);
        rig.player.put(7, 0, 1, 1);
        fate(&mut flights, Error::Fault(Fault::UsedId { id: 7 }));
        // Of a device that is gone nothing is asked.
        (0..4).for_each(|tag| flights.push(tag, read(&rig, tag)));
        fate(&mut flights, Error::Fault(Fault::UsedId { id: 7 }));
    }
}
