//! Rings: what goes in comes out, once; what a device scribbles does no harm.
#![forbid(unsafe_code)]

use std::{cell::RefCell, collections::HashSet, thread_local, vec, vec::Vec};

use proptest::{collection::vec, prelude::*};

use super::ring_features;
use crate::{
    dma::{Direction, Dma, Segment},
    error::Error,
    hal::Hal,
    mmio::Mmio,
    virtio::{
        Fault, Features,
        fake::{Chain, FakeHal, Player},
        queue::{self, Queue},
    },
};

struct Rig {
    hal: FakeHal,
    data: Dma,
    queue: Queue<u32>,
    device: Player,
}

fn rig(size: u16, features: Features) -> Rig {
    let hal = FakeHal::default();
    let size = queue::size(size.into(), features).unwrap();
    let queue = Queue::new(&hal, size, features).unwrap();
    let device = Player::new(&hal, queue.addresses(), features);
    Rig { data: hal.dma(4096).unwrap(), hal, queue, device }
}

/// `count` parts of 16 bytes, the last for the device to write.
fn segments(data: &Dma, count: usize) -> Vec<Segment> {
    let direction = |last| if last { Direction::FromDevice } else { Direction::ToDevice };
    (0..count)
        .map(|part| Segment::new(data, 16 * part..16 * part + 16, direction(part + 1 == count)))
        .collect()
}

#[derive(Clone, Debug)]
enum Step {
    Add(usize),
    Take,
    /// Use one of the buffers that the device has taken.
    Use(usize, u32),
    Pop,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..=queue::MAX_SEGMENTS).prop_map(Step::Add),
        Just(Step::Take),
        (0..64usize, 0..=16u32).prop_map(|(which, len)| Step::Use(which, len)),
        Just(Step::Pop),
    ]
}

proptest! {
    /// §2.7, §2.8: the device sees each buffer as it was added, and each comes back once, with the length it said.
    #[test]
    fn every_buffer_comes_back_once(
        size in 1u16..20,
        features in ring_features(),
        steps in vec(step(), 0..300),
    ) {
        let Rig { data, mut queue, mut device, .. } = rig(size, features);
        let in_order = features.contains(Features::IN_ORDER);
        let (mut next, mut added, mut taken) = (0u32, Vec::new(), Vec::<(Chain, u32)>::new());
        let mut used = Vec::new();
        for step in steps {
            match step {
                Step::Add(count) => {
                    let segments = segments(&data, count);
                    if queue.add(&segments, next).is_ok() {
                        added.push((next, segments));
                        next += 1;
                    }
                }
                Step::Take => {
                    let Some(chain) = device.take() else { prop_assert!(added.is_empty()); continue };
                    let (value, segments) = added.remove(0);
                    let expected: Vec<_> = segments
                        .iter()
                        .map(|part| (part.address(), part.len_bytes(), part.direction() == Direction::FromDevice))
                        .collect();
                    prop_assert_eq!(&chain.parts, &expected);
                    taken.push((chain, value));
                }
                Step::Use(which, len) if !taken.is_empty() => {
                    let which = which % taken.len();
                    if in_order {
                        // The last of a batch speaks for all of it (§2.7.9, §2.8.9).
                        let batch: Vec<_> = taken.drain(..=which).collect();
                        let descriptors = batch.iter().map(|(chain, _)| chain.count).sum();
                        let last = batch.last().unwrap().0.id;
                        device.put(last.into(), len, descriptors, batch.len() as u16);
                        let of = |at: usize| (at == which).then_some(len);
                        used.extend(batch.iter().enumerate().map(|(at, (_, value))| (*value, of(at))));
                    } else {
                        let (chain, value) = taken.remove(which);
                        device.finish(&chain, len);
                        used.push((value, Some(len)));
                    }
                }
                Step::Use(..) => {}
                Step::Pop => {
                    let expected = (!used.is_empty()).then(|| used.remove(0));
                    prop_assert_eq!(queue.pop(), Ok(expected));
                }
            }
        }
        while !used.is_empty() {
            prop_assert_eq!(queue.pop(), Ok(Some(used.remove(0))));
        }
        prop_assert_eq!(queue.pop(), Ok(None));
        prop_assert!(!queue.ask_for_interrupt());
        let mut left: Vec<u32> = queue.drain().collect();
        left.sort();
        let mut expected: Vec<u32> = added.iter().map(|(value, _)| *value).collect();
        expected.extend(taken.iter().map(|(_, value)| *value));
        expected.sort();
        prop_assert_eq!(left, expected);
    }

    /// Whatever a device writes to the ring, wherever and whenever: a buffer comes back at most once, none is lost,
    /// every call returns, and the memory is the driver's own.
    #[test]
    fn a_scribbling_device_gets_nothing(
        size in 1u16..20,
        features in ring_features(),
        steps in vec((step(), vec((0..2000usize, any::<u16>()), 0..3)), 0..100),
    ) {
        let Rig { hal, data, mut queue, mut device } = rig(size, features);
        let at = queue.addresses();
        let len = (at.device - at.descriptors) as usize + if features.contains(Features::RING_PACKED) { 4 } else { 12 };
        let (mut next, mut back, mut taken) = (0u32, HashSet::new(), Vec::new());
        for (step, scribbles) in steps {
            match step {
                Step::Add(count) => {
                    if queue.add(&segments(&data, count), next).is_ok() {
                        next += 1;
                    }
                    queue.take_notification();
                }
                // A device that has scribbled over descriptors reads nonsense itself; only ids are needed here.
                Step::Take => taken.push(next as u16 % size),
                Step::Use(which, len) => {
                    let id = taken.get(which % taken.len().max(1)).copied().unwrap_or(which as u16);
                    device.put(id.into(), len, 1, 1);
                }
                Step::Pop => match queue.pop() {
                    Ok(Some((value, _))) => prop_assert!(back.insert(value), "{value} came back twice"),
                    Ok(None) => {}
                    Err(_) => break,
                },
            }
            for (offset, word) in scribbles {
                hal.set_u16(at.descriptors + (offset % (len / 2) * 2) as u64, word);
            }
        }
        queue.ask_for_interrupt();
        for value in queue.drain() {
            prop_assert!(back.insert(value), "{value} came back twice");
        }
        prop_assert_eq!(back.len(), next as usize);
        drop((queue, data));
        prop_assert_eq!(hal.pieces(), 0);
    }
}

fn both() -> [Features; 2] {
    [Features::VERSION_1, Features::VERSION_1 | Features::RING_PACKED]
}

#[test]
fn an_id_that_the_device_does_not_have_is_a_fault() {
    for features in both() {
        let Rig { data, mut queue, mut device, .. } = rig(8, features);
        queue.add(&segments(&data, 1), 0).unwrap();
        device.put(5, 0, 1, 1);
        assert_eq!(queue.pop(), Err(Fault::UsedId { id: 5 }));
    }
}

#[test]
fn a_buffer_that_is_used_twice_is_a_fault() {
    let Rig { data, mut queue, mut device, .. } = rig(8, Features::VERSION_1);
    for value in 0..2 {
        queue.add(&segments(&data, 1), value).unwrap();
    }
    device.put(0, 0, 1, 1);
    device.put(0, 0, 1, 1);
    assert_eq!(queue.pop(), Ok(Some((0, Some(0)))));
    assert_eq!(queue.pop(), Err(Fault::UsedId { id: 0 }));
}

#[test]
fn more_bytes_than_the_buffer_has_room_for_are_a_fault() {
    for features in both() {
        let Rig { data, mut queue, mut device, .. } = rig(8, features);
        queue.add(&segments(&data, 2), 0).unwrap();
        let chain = device.take().unwrap();
        device.finish(&chain, 17);
        assert_eq!(queue.pop(), Err(Fault::UsedLength { found: 17, limit: 16 }));
    }
}

#[test]
fn an_index_that_runs_ahead_is_a_fault() {
    let Rig { hal, data, mut queue, .. } = rig(8, Features::VERSION_1);
    queue.add(&segments(&data, 1), 0).unwrap();
    hal.set_u16(queue.addresses().device + 2, 2);
    assert_eq!(queue.pop(), Err(Fault::UsedTooMany { used: 2, in_flight: 1 }));
}

/// §2.7.10.1: without the event index a flag says that no notification is wanted.
#[test]
fn a_device_that_wants_no_notification_gets_none() {
    for features in both() {
        let Rig { hal, data, mut queue, device } = rig(8, features);
        // Split: `flags` of the used ring. Packed: `flags` of the device event suppression structure.
        let packed = features.contains(Features::RING_PACKED);
        hal.set_u16(device.at.device + if packed { 2 } else { 0 }, 1);
        queue.add(&segments(&data, 1), 0).unwrap();
        assert_eq!(queue.take_notification(), None, "notified");
        hal.set_u16(device.at.device + if packed { 2 } else { 0 }, 0);
        assert_eq!(queue.take_notification(), None, "nothing was added since");
        queue.add(&segments(&data, 1), 0).unwrap();
        queue.take_notification();
        assert_eq!(queue.counts().notifications, 1);
    }
}

/// §2.7.10, §2.8.10: the driver notifies only once the ring passes the place that the device has named.
#[test]
fn a_device_is_left_alone_until_the_ring_passes_its_event_index() {
    for features in both() {
        let Rig { hal, data, mut queue, device } = rig(8, features | Features::EVENT_IDX);
        if features.contains(Features::RING_PACKED) {
            // Descriptor 3, first round, by descriptor.
            hal.set_u32(device.at.device, 2 << 16 | 1 << 15 | 3);
        } else {
            hal.set_u16(device.at.device + 4 + 8 * 8, 3);
        }
        let mut told = Vec::new();
        for value in 0..6 {
            queue.add(&segments(&data, 1), value).unwrap();
            told.extend(queue.take_notification().map(|_| value));
        }
        assert_eq!(told, [3]);
    }
}

/// §2.7.7, §2.8.14: who looks by itself is not interrupted; who asks is, at the next buffer.
#[test]
fn a_driver_that_looks_by_itself_wants_no_interrupt() {
    for features in both().into_iter().flat_map(|ring| [ring, ring | Features::EVENT_IDX]) {
        let Rig { hal, data, mut queue, mut device } = rig(8, features);
        let (packed, event) =
            (features.contains(Features::RING_PACKED), features.contains(Features::EVENT_IDX));
        let is_wanted = |used: u16| match (packed, event) {
            (true, _) => hal.u16(device.at.driver + 2) != 1,
            (false, false) => hal.u16(device.at.driver) & 1 == 0,
            // The device tells of the entry that the driver has named.
            (false, true) => hal.u16(device.at.driver + 4 + 2 * 8) == used,
        };
        let at = |used: u16| is_wanted(used);
        queue.suppress_interrupts();
        assert!((0..8).all(|used| !at(used)), "{features:?}");
        queue.add(&segments(&data, 1), 0).unwrap();
        let wanted_later = !queue.ask_for_interrupt() && at(0);
        assert!(wanted_later, "{features:?}");
        let chain = device.take().unwrap();
        device.finish(&chain, 0);
        assert!(queue.ask_for_interrupt(), "what came before is told at once");
    }
}

/// §2.9: with NOTIFICATION_DATA a notification says how far the ring has come.
#[test]
fn a_notification_tells_the_position() {
    for (features, expected) in both().into_iter().zip([vec![1, 2, 3], vec![1 | 1 << 15, 2 | 1 << 15, 0]]) {
        let Rig { data, mut queue, mut device, .. } = rig(3, features);
        let mut told = Vec::new();
        for value in 0..3 {
            queue.add(&segments(&data, 1), value).unwrap();
            told.extend(queue.take_notification());
            let chain = device.take().unwrap();
            device.finish(&chain, 0);
            queue.pop().unwrap().unwrap();
        }
        assert_eq!(told, expected);
    }
}

#[test]
fn a_queue_has_a_size_that_its_format_allows() {
    let [split, packed] = both();
    assert_eq!(
        (queue::size(0, split), queue::size(5, split), queue::size(5, packed)),
        (None, Some(4), Some(5))
    );
    assert_eq!(queue::size(u32::MAX, packed), Some(queue::MAX_SIZE));
}

thread_local! {
    /// What a device does while the machine's fence lasts.
    static MEANWHILE: RefCell<Option<(Player, Chain)>> = const { RefCell::new(None) };
}

/// A machine with a fence of its own, in which a device uses a buffer.
struct Fenced(FakeHal);

impl Hal for Fenced {
    fn dma(&self, len_bytes: usize) -> Result<Dma, Error> {
        self.0.dma(len_bytes)
    }

    fn device_memory(&self, address: u64, len_bytes: usize) -> Result<Mmio<u8>, Error> {
        self.0.device_memory(address, len_bytes)
    }

    fn fence(&self) -> fn() {
        || {
            if let Some((mut device, chain)) = MEANWHILE.take() {
                device.finish(&chain, 0);
            }
        }
    }
}

/// The machine's own fence stands between the wish to be interrupted and the second look, in every ring.
#[test]
fn what_is_used_before_the_wish_is_public_is_found() {
    for features in [
        Features::empty(),
        Features::EVENT_IDX,
        Features::RING_PACKED,
        Features::RING_PACKED | Features::EVENT_IDX,
    ] {
        let hal = Fenced(FakeHal::default());
        let mut queue: Queue<u32> = Queue::new(&hal, 4, features).unwrap();
        let mut device = Player::new(&hal.0, queue.addresses(), features);
        let data = hal.dma(4096).unwrap();
        queue.add(&segments(&data, 1), 7).unwrap();
        assert!(!queue.ask_for_interrupt());
        let chain = device.take().unwrap();
        MEANWHILE.set(Some((device, chain)));
        assert!(queue.ask_for_interrupt(), "{features:?}");
        assert_eq!(queue.pop().unwrap().map(|(value, _)| value), Some(7));
    }
}
