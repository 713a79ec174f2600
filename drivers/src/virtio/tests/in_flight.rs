//! Many requests of one task at the same time (`class::InFlight`), at a virtio disk.
#![forbid(unsafe_code)]

use std::{
    boxed::Box,
    cell::RefCell,
    collections::BTreeSet,
    future::Future,
    pin::pin,
    sync::{Arc, atomic::Ordering::SeqCst},
    task::{Context, Poll, Waker},
    vec::Vec,
};

use proptest::{collection::vec, prelude::*};

use super::{
    bell,
    block::{Disk, Rig, rig, rig_of_segments},
    ring_features,
};
use crate::{
    class::{BlockDevice, BlockRequest, InFlight, Outcome, SECTOR_BYTES},
    dma::DmaBuffer,
    error::Error,
    virtio::{Fault, Features, fake::FakeCpu},
};

const ALL_RINGS: [Features; 4] = [
    Features::empty(),
    Features::INDIRECT_DESC,
    Features::RING_PACKED,
    Features::RING_PACKED.union(Features::INDIRECT_DESC),
];

pub(super) type Flights<'a> = InFlight<'a, dyn BlockDevice + 'a>;

pub(super) fn in_flight(disk: &Disk, count: usize) -> Flights<'_> {
    let disk: &dyn BlockDevice = disk;
    disk.in_flight(count)
}

pub(super) fn next(flights: &mut Flights<'_>, waker: &Waker) -> Poll<Option<(u64, Outcome)>> {
    pin!(flights.next()).poll(&mut Context::from_waker(waker))
}

pub(super) fn read(rig: &Rig, sector: u64) -> BlockRequest {
    BlockRequest::Read { sector, buffer: rig.buffer(1) }
}

/// VirtIO 1.3 §2.6.4: the device may answer in any order.
#[test]
fn each_outcome_comes_with_its_tag_in_the_order_of_the_answers() {
    let mut rig = rig(Features::INDIRECT_DESC, 8);
    let disk = rig.disk.clone();
    let (bell, waker) = bell();
    let mut flights = in_flight(&disk, 4);
    assert!(matches!(next(&mut flights, &waker), Poll::Ready(None)), "nothing is awaited");
    (0..4).for_each(|sector| flights.push(sector, read(&rig, sector)));
    assert!(next(&mut flights, &waker).is_pending());
    let chains: Vec<_> = core::iter::from_fn(|| rig.player.take()).collect();
    assert_eq!((chains.len(), flights.len()), (4, 4));
    let mut order = Vec::new();
    for number in [2, 0, 3, 1] {
        let written = rig.carry_out(&chains[number]);
        rig.player.finish(&chains[number], written);
        rig.interrupt();
        assert_eq!(bell.0.swap(0, SeqCst), 1, "woken by each answer that is awaited");
        let Poll::Ready(Some((tag, outcome))) = next(&mut flights, &waker) else { panic!("no answer") };
        assert_eq!((outcome.result, outcome.buffer.unwrap().bytes()[0]), (Ok(SECTOR_BYTES), tag as u8));
        order.push(tag);
        assert_eq!(next(&mut flights, &waker).is_pending(), number != 1);
    }
    assert_eq!(order, [2, 0, 3, 1]);
    assert!(flights.is_empty());
}

#[test]
fn an_answer_is_found_without_an_interrupt() {
    let mut rig = rig(Features::empty(), 8);
    let disk = rig.disk.clone();
    let mut flights = in_flight(&disk, 1);
    flights.push(7, BlockRequest::Flush);
    assert!(next(&mut flights, &bell().1).is_pending());
    let chain = rig.player.take().unwrap();
    let written = rig.carry_out(&chain);
    rig.player.finish(&chain, written);
    assert!(matches!(next(&mut flights, &bell().1), Poll::Ready(Some((7, _)))));
}

std::thread_local! {
    /// What the device does while somebody lingers.
    static MEANWHILE: RefCell<Option<Box<dyn FnMut()>>> = const { RefCell::new(None) };
}

/// Looks twice, and then whenever the device has done one more piece of work. Without such a device it is not worth a look.
fn linger(found: &mut dyn FnMut() -> bool) {
    MEANWHILE.with_borrow_mut(|meanwhile| {
        if let Some(meanwhile) = meanwhile {
            assert_eq!([found(), found()], [false; 2]);
            meanwhile();
            while !found() {
                meanwhile();
            }
        }
    });
}

/// A rig whose disk is asked by one who is alone and lingers; what the device does meanwhile, for each request; and whether it is to
/// interrupt.
fn lingering(features: Features) -> (Arc<Disk>, impl Fn() -> bool) {
    let Rig { hal, mut player, disk, .. } = rig(features, 8);
    FakeCpu { is_alone: true, linger, ..FakeCpu::BUSY }.enter();
    // VIRTQ_AVAIL_F_NO_INTERRUPT (VirtIO 1.3 §2.7.6), RING_EVENT_FLAGS_DISABLE (§2.8.14): both are 1.
    let flags = player.at.driver + if player.packed { 2 } else { 0 };
    let wants_interrupts = {
        let hal = hal.clone();
        move || hal.u16(flags) == 0
    };
    MEANWHILE.set(Some(Box::new(move || {
        assert_eq!(hal.u16(flags), 1, "no interrupts while somebody looks");
        let chain = player.take().expect("the device was told");
        hal.write(chain.parts.last().unwrap().0, &[0]);
        player.finish(&chain, 1);
    })));
    (disk, wants_interrupts)
}

#[test]
fn who_lingers_has_the_answer_at_once_and_who_waits_has_an_interrupt() {
    for features in [Features::empty(), Features::RING_PACKED] {
        let (disk, wants_interrupts) = lingering(features);
        let (bell, waker) = bell();
        let mut flights = in_flight(&disk, 1);
        for tag in 0..3 {
            flights.push(tag, BlockRequest::Flush);
            let Poll::Ready(Some((found, outcome))) = next(&mut flights, &waker) else { panic!("no answer") };
            assert_eq!((found, outcome.result, bell.0.load(SeqCst)), (tag, Ok(0), 0));
            assert!(!wants_interrupts(), "nobody waits for one");
        }
        MEANWHILE.set(None);
        flights.push(3, BlockRequest::Flush);
        assert!(next(&mut flights, &waker).is_pending() && wants_interrupts());
    }
}

/// Somebody else waits for another answer, and this one has something to do now.
#[test]
fn who_has_lingered_leaves_an_interrupt_to_others() {
    for features in [Features::empty(), Features::RING_PACKED] {
        let (disk, wants_interrupts) = lingering(features);
        let device: &dyn BlockDevice = &*disk;
        let mut other = pin!(device.flush());
        assert!(other.as_mut().poll(&mut Context::from_waker(&bell().1)).is_pending());
        let mut flights = in_flight(&disk, 2);
        (0..2).for_each(|tag| flights.push(tag, BlockRequest::Flush));
        // The device answers in order: first that of the other one, then the first of these.
        assert!(matches!(next(&mut flights, &bell().1), Poll::Ready(Some((0, _)))));
        assert!(!wants_interrupts(), "the other one has its answer");
        let mut more = pin!(device.flush());
        assert!(more.as_mut().poll(&mut Context::from_waker(&bell().1)).is_pending());
        assert!(wants_interrupts());
        assert!(matches!(next(&mut flights, &bell().1), Poll::Ready(Some((1, _)))));
        assert!(wants_interrupts());
        MEANWHILE.set(None);
    }
}

/// Who has an answer already, or nothing under way to look for, does not look.
#[test]
fn who_does_not_linger_leaves_interrupts_to_others() {
    for features in [Features::empty(), Features::RING_PACKED] {
        let (disk, wants_interrupts) = lingering(features);
        MEANWHILE.set(None);
        let device: &dyn BlockDevice = &*disk;
        let mut others: Vec<_> = (0..4).map(|_| Box::pin(device.flush())).collect();
        let mut wait = |count| {
            others.iter_mut().take(count).for_each(|other| {
                assert!(other.as_mut().poll(&mut Context::from_waker(&bell().1)).is_pending());
            });
        };
        wait(1);
        let mut flights = in_flight(&disk, 1);
        flights.push(0, BlockRequest::Discard { sector: u64::MAX, count: 1 });
        assert!(matches!(next(&mut flights, &bell().1), Poll::Ready(Some((0, _)))), "refused");
        assert!(wants_interrupts());
        // Two descriptors each: the queue of eight is full.
        wait(4);
        flights.push(1, BlockRequest::Flush);
        assert!(next(&mut flights, &bell().1).is_pending());
        assert!(wants_interrupts());
    }
}

/// Else it would have nothing to do while the next are asked.
#[test]
fn the_device_is_told_of_many_requests_before_all_are_asked() {
    let mut rig = rig(Features::INDIRECT_DESC, 64);
    let disk = rig.disk.clone();
    let mut flights = in_flight(&disk, 40);
    (0..40).for_each(|tag| flights.push(tag, BlockRequest::Flush));
    assert!(next(&mut flights, &bell().1).is_pending());
    assert_eq!(rig.device.registers().notifications.len(), 2, "of 16 each");
    rig.disk.tell();
    assert_eq!(rig.device.registers().notifications.len(), 3, "of the rest, at the end of the round");
    assert_eq!(rig.serve(), 40);
}

#[test]
fn what_does_not_fit_is_sent_when_there_is_room() {
    let mut rig = rig(Features::INDIRECT_DESC, 2);
    let disk = rig.disk.clone();
    let (bell, waker) = bell();
    let mut flights = in_flight(&disk, 5);
    (0..5).for_each(|tag| flights.push(tag, read(&rig, tag)));
    let mut tags = BTreeSet::new();
    while tags.len() < 5 {
        match next(&mut flights, &waker) {
            Poll::Ready(next) => assert!(tags.insert(next.unwrap().0), "each is answered once"),
            Poll::Pending => {
                bell.0.store(0, SeqCst);
                assert!(rig.serve() > 0);
                assert!(bell.0.load(SeqCst) > 0, "woken");
            }
        }
    }
    assert!(matches!(next(&mut flights, &waker), Poll::Ready(None)));
}

#[test]
fn what_is_refused_is_told_among_the_others() {
    let rig = rig(Features::empty(), 8);
    let disk: &dyn BlockDevice = &*rig.disk;
    let mut flights = disk.in_flight(1);
    flights.push(9, read(&rig, u64::MAX));
    let Poll::Ready(Some((9, outcome))) = next(&mut flights, &bell().1) else { panic!("not refused") };
    assert!(matches!(outcome.result, Err(Error::Request(_))) && outcome.buffer.is_some());
}

#[test]
fn dropped_requests_keep_their_buffers_until_the_device_is_done() {
    let mut rig = rig(Features::empty(), 16);
    let before = rig.hal.pieces();
    let disk = rig.disk.clone();
    let mut flights = in_flight(&disk, 3);
    (0..3).for_each(|tag| flights.push(tag, read(&rig, tag)));
    assert!(next(&mut flights, &bell().1).is_pending());
    flights.push(3, read(&rig, 3));
    drop(flights);
    assert_eq!(rig.hal.pieces(), before + 3, "the last one was not sent");
    rig.serve();
    assert_eq!(rig.hal.pieces(), before);
}

#[test]
fn when_the_device_lies_all_of_them_fail() {
    for features in [Features::empty(), Features::RING_PACKED] {
        let rig = rig(features, 16);
        let disk: &dyn BlockDevice = &*rig.disk;
        let mut flights = disk.in_flight(3);
        (0..3).for_each(|tag| flights.push(tag, read(&rig, tag)));
        assert!(next(&mut flights, &bell().1).is_pending());
        let Rig { mut player, .. } = rig;
        player.put(15, 0, 1, 1);
        for _ in 0..3 {
            let Poll::Ready(Some((_, outcome))) = next(&mut flights, &bell().1) else { panic!("no answer") };
            assert_eq!(outcome.result, Err(Error::Fault(Fault::UsedId { id: 15 })));
        }
        assert!(matches!(next(&mut flights, &bell().1), Poll::Ready(None)));
    }
}

/// The device keeps the whole ring, so that no place in it becomes free.
#[test]
fn what_is_asked_of_a_device_that_has_lied_fails_at_once() {
    for features in ALL_RINGS {
        let rig = rig(features, 2);
        let disk: &dyn BlockDevice = &*rig.disk;
        let mut flights = disk.in_flight(3);
        (0..2).for_each(|tag| flights.push(tag, BlockRequest::Flush));
        assert!(next(&mut flights, &bell().1).is_pending());
        let Rig { mut player, .. } = rig;
        player.put(15, 0, 1, 1);
        flights.push(2, BlockRequest::Flush);
        let error = Some(Error::Fault(Fault::UsedId { id: 15 }));
        for _ in 0..3 {
            let Poll::Ready(Some((_, outcome))) = next(&mut flights, &bell().1) else { panic!("no answer") };
            assert_eq!(outcome.result.err(), error);
        }
        let buffer = DmaBuffer::new(crate::dma::testing::shared(0, SECTOR_BYTES, Box::new(())).0);
        flights.push(3, BlockRequest::Read { sector: 0, buffer });
        let Poll::Ready(Some((3, outcome))) = next(&mut flights, &bell().1) else { panic!("no answer") };
        assert_eq!((outcome.result.err(), outcome.buffer.is_some()), (error, true));
    }
}

/// A sector that cannot be read.
const BAD: u64 = 11;

proptest! {
    /// Whatever is pushed when, and however the device takes its time: each request is answered once, with its own sector,
    /// or with the error that is its own, and nobody waits for ever.
    #[test]
    fn every_request_is_answered_once_with_what_it_asked_for(
        features in ring_features(),
        segments in 1..6u32,
        steps in vec((0..4u8, 0..32u64), 0..200),
    ) {
        let mut rig = rig_of_segments(features - Features::IN_ORDER, 16, segments);
        rig.bad = Some(BAD);
        let disk: Arc<Disk> = rig.disk.clone();
        let disk: &dyn BlockDevice = &*disk;
        let (bell, waker) = bell();
        let mut flights = Box::new(disk.in_flight(8));
        let (mut pushed, mut chains, mut open) = (0u64, Vec::new(), BTreeSet::new());
        let check = |answer: Option<(u64, Outcome)>, open: &mut BTreeSet<u64>| {
            let Some((tag, outcome)) = answer else { return assert!(open.is_empty()) };
            assert!(open.remove(&tag), "answered twice");
            assert_eq!(outcome.result.is_err(), tag % 64 == BAD);
            assert_eq!(outcome.buffer.unwrap().bytes()[0], (tag % 64) as u8);
        };
        for (step, which) in steps {
            match step {
                0 => {
                    flights.push(pushed, read(&rig, pushed % 64));
                    open.insert(pushed);
                    pushed += 1;
                }
                1 => if let Poll::Ready(answer) = next(&mut flights, &waker) { check(answer, &mut open) },
                2 => chains.extend(rig.player.take()),
                _ if !chains.is_empty() => {
                    let chain = chains.swap_remove(which as usize % chains.len());
                    let written = rig.carry_out(&chain);
                    rig.player.finish(&chain, written);
                    if which % 2 == 0 { rig.interrupt() }
                }
                _ => {}
            }
        }
        for chain in chains {
            let written = rig.carry_out(&chain);
            rig.player.finish(&chain, written);
        }
        while !flights.is_empty() {
            match next(&mut flights, &waker) {
                Poll::Ready(answer) => check(answer, &mut open),
                Poll::Pending => {
                    bell.0.store(0, SeqCst);
                    rig.serve();
                    prop_assert!(bell.0.load(SeqCst) > 0, "nobody wakes who waits");
                }
            }
        }
        prop_assert!(open.is_empty());
    }
}
