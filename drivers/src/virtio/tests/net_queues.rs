//! Several pairs of queues of a network card (VirtIO 1.3 §5.1.5, §5.1.6.5.5).
#![forbid(unsafe_code)]

use std::{
    sync::{Arc, Mutex, atomic::Ordering::SeqCst},
    vec,
    vec::Vec,
};

use proptest::prelude::*;

use super::{
    bell,
    net::{ALL, CPU, CTRL, Card, MAC, bytes, config, rings, setting},
};
use crate::{
    class::net::{Control, NetDevice, SendOffload},
    error::Error,
    virtio::{
        DeviceId, Features, Status,
        fake::{Chain, FakeDevice, FakeHal, Player},
    },
};

const MQ: u64 = 1 << 22;
const OK: u8 = 0;
const REFUSED: u8 = 1;

/// A card of several queues, and the commands that it was given.
struct Rig {
    hal: FakeHal,
    device: FakeDevice,
    commands: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Rig {
    /// It says to have `pairs`, has `queues`, and answers commands with `answer`, if it answers.
    fn new(features: Features, pairs: u16, queues: u16, answer: Option<u8>) -> Self {
        let hal = FakeHal::default();
        let mut config = config();
        config[8..10].copy_from_slice(&pairs.to_le_bytes());
        let features = features | Features::from_bits_retain(ALL | CTRL | MQ);
        let device = FakeDevice::new(DeviceId::NET, features, 16, config).with_queues(queues);
        let commands = Arc::new(Mutex::new(Vec::new()));
        let (seen, memory, player) = (commands.clone(), hal.clone(), Mutex::new(None::<Player>));
        let controlq = pairs.wrapping_mul(2);
        device.registers().reacts = Some(Arc::new(move |device, queue| {
            if queue != controlq || queue == 0 || answer.is_none() {
                return;
            }
            let mut player = player.lock().unwrap();
            let player = player.get_or_insert_with(|| device.player_of(&memory, queue));
            while let Some(chain) = player.take() {
                let (address, len, _) = chain.parts[0];
                seen.lock().unwrap().push(memory.read(address, len as usize));
                memory.write(chain.parts[1].0, &[answer.unwrap()]);
                player.finish(&chain, 1);
            }
        }));
        Self { hal, device, commands }
    }

    /// One of eight pairs, with everything that they need.
    fn ordinary(features: Features) -> Self {
        Self::new(features, 8, 17, Some(OK))
    }

    fn probe(&self, cpus: u16) -> Result<Card, Error> {
        CPU.set(0);
        Card::probe(self.device.transport(), &self.hal, setting(cpus))
    }

    fn player(&self, queue: u16) -> Player {
        self.device.player_of(&self.hal, queue)
    }

    /// Puts a frame into the next buffer of a receive queue.
    fn give(&self, player: &mut Player, frame: &[u8]) {
        let chain = player.take().expect("a buffer");
        self.hal.write(chain.parts[0].0, &[&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0], frame].concat());
        player.finish(&chain, 12 + frame.len() as u32);
    }

    /// Whether MQ was negotiated.
    fn has_several(&self) -> bool {
        self.device.registers().chosen & MQ != 0
    }
}

fn send(card: &Card, frame: &[u8]) {
    let mut room = card.buffer(frame.len()).expect("room");
    room.bytes_mut().copy_from_slice(frame);
    card.send(room, SendOffload::default());
}

#[test]
fn there_is_a_pair_for_each_cpu_as_far_as_the_card_has_them() {
    for (pairs, cpus, used) in [(8, 4, 4u8), (2, 4, 2), (8, 8, 8)] {
        let rig = Rig::new(Features::empty(), pairs, 2 * pairs + 1, Some(OK));
        let card = rig.probe(cpus).unwrap();
        assert_eq!(card.queues(), used.into());
        assert_eq!(*rig.commands.lock().unwrap(), [[4, 0, used, 0]]);
        let queues: Vec<u16> = rig.device.registers().queues.keys().copied().collect();
        assert_eq!(queues, (0..2 * u16::from(used)).chain([2 * pairs]).collect::<Vec<_>>(), "no others");
    }
}

#[test]
fn one_cpu_has_no_use_for_several_and_one_pair_needs_no_command() {
    let rig = Rig::new(Features::empty(), 8, 3, Some(OK));
    assert_eq!((rig.probe(1).unwrap().queues(), rig.has_several()), (1, false));
    let rig = Rig::new(Features::empty(), 1, 3, Some(OK));
    assert_eq!((rig.probe(4).unwrap().queues(), rig.has_several()), (1, true));
    assert_eq!(rig.commands.lock().unwrap().len(), 0);
}

#[test]
fn a_frame_is_sent_by_the_queue_of_its_cpu() {
    for features in rings() {
        let rig = Rig::ordinary(features);
        let card = rig.probe(4).unwrap();
        let mut players: Vec<Player> = (0..4).map(|pair| rig.player(2 * pair + 1)).collect();
        rig.device.registers().notifications.clear();
        for cpu in [0, 1, 2, 3, 2] {
            CPU.set(cpu);
            send(&card, &bytes(60 + usize::from(cpu)));
            card.flush();
        }
        let found: Vec<Vec<u32>> = players
            .iter_mut()
            .map(|player| std::iter::from_fn(|| player.take()).map(|chain| chain.parts[0].1).collect())
            .collect();
        assert_eq!(found, [vec![72], vec![73], vec![74, 74], vec![75]]);
        let notified: Vec<u16> = rig.device.registers().notifications.iter().map(|told| told.0).collect();
        assert_eq!(notified[..4], [1, 3, 5, 7]);
        assert_eq!((0..4).map(|queue| card.queue_counts(queue).sent).collect::<Vec<_>>(), [1, 1, 2, 1]);
    }
}

/// Its buffer goes back to where it came from, whichever CPU has looked at it.
#[test]
fn a_frame_is_found_in_its_queue_and_its_buffer_goes_back_there() {
    for features in rings() {
        let rig = Rig::ordinary(features);
        let card = rig.probe(4).unwrap();
        for queue in 0..4 {
            let mut player = rig.player(2 * queue);
            let chains: Vec<Chain> = std::iter::from_fn(|| rig.player(2 * queue).take()).take(1).collect();
            assert_eq!(chains.len(), 1);
            for round in 0..20 {
                rig.give(&mut player, &bytes(60 + round));
                CPU.set(3 - queue);
                assert!((0..4).filter(|other| *other != queue).all(|other| card.receive(other).is_none()));
                let frame = card.receive(queue).unwrap();
                assert_eq!(frame.bytes(), bytes(60 + round));
                card.recycle(frame);
                card.flush();
            }
            assert_eq!(std::iter::from_fn(|| player.take()).count(), 8, "all buffers are back");
        }
    }
}

#[test]
fn who_waits_for_a_queue_is_woken_by_it_alone_and_on_its_cpu() {
    let rig = Rig::ordinary(Features::empty());
    let card = rig.probe(4).unwrap();
    let bells: Vec<_> = (0..4).map(|_| bell()).collect();
    for (queue, (_, waker)) in (0..).zip(&bells) {
        assert!(card.wait(queue, waker));
    }
    // A message for the receive queue of pair 1, and one for both queues of pair 3, which came to CPU 0.
    CPU.set(1);
    card.queue_interrupt(2, 100);
    CPU.set(0);
    card.queue_interrupt(6, 1);
    assert_eq!(bells.iter().map(|(bell, _)| bell.0.load(SeqCst)).collect::<Vec<_>>(), [0, 1, 0, 1]);
    let counts = |queue| (card.queue_counts(queue).interrupts, card.queue_counts(queue).own_interrupts);
    assert_eq!([0, 1, 2, 3].map(counts), [(0, 0), (1, 1), (0, 0), (1, 0)]);
    assert_eq!((card.counts().interrupts, card.counts().own_interrupts), (2, 1));
}

#[test]
fn one_who_waits_for_all_queues_is_woken_by_any() {
    for queue in 0..4 {
        let rig = Rig::ordinary(Features::empty());
        let card = rig.probe(4).unwrap();
        let (bell, waker) = bell();
        assert!(card.wait_for_all(&waker));
        card.queue_interrupt(2 * queue, 100);
        assert_eq!(bell.0.load(SeqCst), 1);
        rig.give(&mut rig.player(2 * queue), &bytes(60));
        assert!(!card.wait_for_all(&waker), "there is one");
    }
}

#[test]
fn a_card_that_will_not_use_several_pairs_is_used_by_one() {
    for answer in [Some(REFUSED), Some(99), None] {
        let rig = Rig::new(Features::empty(), 8, 17, answer);
        let card = rig.probe(4).unwrap();
        assert_eq!(card.queues(), 1);
        CPU.set(3);
        send(&card, &bytes(60));
        assert!(rig.player(1).take().is_some());
        assert!(card.receive(1).is_none() && card.wait(1, &bell().1));
        drop(card);
        assert_eq!(rig.hal.pieces(), 0);
    }
}

/// §5.1.4.1: 1 to 0x8000, and the control queue is behind them all (§5.1.2).
#[test]
fn a_number_of_pairs_that_cannot_be_leaves_one() {
    for (pairs, queues) in [(0, 17), (0x8001, 17), (0xffff, 17), (0x8000, 17), (9, 17), (2, 3)] {
        let rig = Rig::new(Features::empty(), pairs, queues, Some(OK));
        let card = rig.probe(4).unwrap();
        assert_eq!((card.queues(), rig.has_several(), card.info().mac), (1, false, MAC), "{pairs}");
        let queues: Vec<u16> = rig.device.registers().queues.keys().copied().collect();
        assert_eq!(queues, [0, 1, 2]);
    }
}

/// What one queue shows to be a lie is the end of all.
#[test]
fn a_lie_in_one_queue_ends_the_card_and_wakes_who_waits_for_another() {
    for features in rings() {
        let rig = Rig::ordinary(features);
        let card = rig.probe(4).unwrap();
        let (bell, waker) = bell();
        assert!(card.wait(0, &waker));
        let held = card.buffer(60).unwrap();
        rig.player(6).put(77, 100, 1, 1);
        assert!(card.receive(3).is_none());
        assert_eq!(bell.0.load(SeqCst), 1);
        assert_eq!(rig.device.registers().status, Status::empty());
        assert!(!card.info().link_up && card.buffer(60).is_none());
        assert!(matches!(card.control(Control::Promiscuous(true)), Err(Error::Fault(_))));
        card.send(held, SendOffload::default());
        drop(card);
        assert_eq!(rig.hal.pieces(), 0);
    }
}

#[test]
fn no_memory_for_a_pair_is_an_error_and_leaves_none_behind() {
    for pieces in [0, 3, 20, 40] {
        let rig = Rig::ordinary(Features::empty());
        rig.hal.fail_after(pieces);
        assert!(matches!(rig.probe(4), Err(Error::NoDmaMemory { .. })));
        assert_eq!(rig.hal.pieces(), 0);
        assert!(rig.device.registers().status.is_empty());
    }
}

proptest! {
    /// Any number of pairs and of queues, any answer: there are some queues or there is no card, and each works.
    #[test]
    fn any_number_of_queues_is_survived(
        pairs in prop_oneof![0u16..20, any::<u16>()], queues in 0u16..40, cpus in 1u16..9, answer: u8,
    ) {
        let rig = Rig::new(Features::empty(), pairs, queues, Some(answer));
        if let Ok(card) = rig.probe(cpus) {
            prop_assert!((1..=cpus).contains(&card.queues()));
            // No more than one queue has room for.
            for cpu in 0..cpus.min(4) {
                CPU.set(cpu);
                send(&card, &bytes(60));
                prop_assert!(rig.player(2 * (cpu % card.queues()) + 1).take().is_some());
            }
        }
        prop_assert_eq!(rig.hal.pieces(), 0);
    }
}
