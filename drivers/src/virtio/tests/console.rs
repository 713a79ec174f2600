//! The console device (VirtIO 1.3 §5.3).
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
    virtio::{
        DeviceId, Fault, Features,
        console::{Console, MAX_PORTS, Size},
        fake::{FakeDevice, FakeHal, Player},
        transport::Interrupt,
    },
};

const SIZE: u64 = 1;
const MULTIPORT: u64 = 1 << 1;
const EMERG_WRITE: u64 = 1 << 2;

struct Rig {
    hal: FakeHal,
    device: FakeDevice,
    console: Console,
}

/// A device with `ports` ports at most, of which it has told nothing yet.
fn rig(features: u64, ring: Features, ports: u32) -> Rig {
    let mut config = vec![80, 0, 25, 0];
    config.extend(ports.to_le_bytes());
    config.extend([0; 4]);
    let hal = FakeHal::default();
    let features = Features::from_bits_retain(features) | ring;
    let device = FakeDevice::new(DeviceId::CONSOLE, features, 64, config).with_queues(64);
    let console = Console::probe(device.transport(), &hal).unwrap();
    Rig { hal, device, console }
}

impl Rig {
    fn player(&self, queue: u16) -> Player {
        self.device.player_of(&self.hal, queue)
    }
}

/// Puts `bytes` into the next buffer that the driver has offered in a queue.
fn put(player: &mut Player, bytes: &[u8]) {
    let chain = player.take().expect("the driver offers buffers");
    player.hal.write(chain.parts[0].0, bytes);
    player.finish(&chain, bytes.len() as u32);
}

/// All that the driver has sent through a queue.
fn drain(player: &mut Player) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(chain) = player.take() {
        for &(address, len, is_write) in &chain.parts {
            assert!(!is_write);
            bytes.extend(player.hal.read(address, len as usize));
        }
        player.finish(&chain, 0);
    }
    bytes
}

#[test]
fn without_ports_it_is_one_console() {
    let mut rig = rig(SIZE, Features::empty(), 1);
    let ports: Vec<_> = rig.console.ports().cloned().collect();
    assert_eq!((ports.len(), ports[0].is_console, ports[0].host_is_open), (1, true, true));
    assert_eq!(ports[0].size, Some(Size { columns: 80, rows: 25 }));
    let waker = Waker::noop();
    assert_eq!(rig.console.poll_write(0, b"hello", waker), Poll::Ready(Ok(5)));
    assert!(!rig.console.is_drained(0));
    assert_eq!(drain(&mut rig.player(1)), b"hello");
    assert!(rig.console.is_drained(0));
    let mut bytes = [0; 3];
    let (bell, waker) = bell();
    assert!(rig.console.poll_read(0, &mut bytes, &waker).is_pending());
    put(&mut rig.player(0), b"typed");
    rig.console.interrupt();
    assert_eq!(bell.0.load(SeqCst), 1);
    assert_eq!(rig.console.poll_read(0, &mut bytes, &waker), Poll::Ready(Ok(3)));
    assert_eq!(&bytes, b"typ");
    assert_eq!(rig.console.poll_read(0, &mut bytes, &waker), Poll::Ready(Ok(2)));
    // The configuration tells of another size (§5.3.5).
    rig.device.registers().config[0] = 100;
    rig.device.registers().interrupt = Interrupt::CONFIG;
    rig.console.interrupt();
    assert_eq!(rig.console.ports().next().unwrap().size, Some(Size { columns: 100, rows: 25 }));
}

/// §5.3.6.2: ports come, are named, are opened and go by control messages.
#[test]
fn ports_are_told_of_by_messages() {
    let mut rig = rig(MULTIPORT, Features::RING_PACKED, 31);
    let (mut to_driver, mut from_driver) = (rig.player(2), rig.player(3));
    assert_eq!(drain(&mut from_driver), [0, 0, 0, 0, 0, 0, 1, 0], "ready");
    assert_eq!(rig.console.ports().count(), 0);
    put(&mut to_driver, &[0, 0, 0, 0, 1, 0, 1, 0]);
    put(&mut to_driver, &[0, 0, 0, 0, 4, 0, 1, 0]);
    put(&mut to_driver, &[1, 0, 0, 0, 1, 0, 1, 0]);
    put(&mut to_driver, b"\x01\0\0\0\x07\0\0\0log");
    put(&mut to_driver, &[1, 0, 0, 0, 6, 0, 1, 0]);
    put(&mut to_driver, &[30, 0, 0, 0, 1, 0, 1, 0]);
    put(&mut to_driver, b"nonsense");
    put(&mut to_driver, &[0, 0, 0, 0, 5, 0, 0, 0, 40, 0, 10, 0]);
    rig.console.interrupt();
    let answers = drain(&mut from_driver);
    let answers: Vec<&[u8]> = answers.chunks(8).collect();
    let expected: [&[u8]; 4] = [
        &[0, 0, 0, 0, 3, 0, 1, 0],
        &[0, 0, 0, 0, 6, 0, 1, 0],
        &[1, 0, 0, 0, 3, 0, 1, 0],
        // Port 30 gets no queues here: it is not ready.
        &[30, 0, 0, 0, 3, 0, 0, 0],
    ];
    assert_eq!(answers, expected);
    let ports: Vec<_> = rig.console.ports().cloned().collect();
    assert_eq!((ports[0].is_console, ports[0].size), (true, Some(Size { columns: 40, rows: 10 })));
    assert_eq!((ports[1].name.as_str(), ports[1].host_is_open, ports[1].is_console), ("log", true, false));
    // Port 1 has the queues 4 and 5.
    let waker = Waker::noop();
    assert_eq!(rig.console.poll_write(1, b"line", waker), Poll::Ready(Ok(4)));
    assert_eq!(drain(&mut rig.player(5)), b"line");
    put(&mut to_driver, &[1, 0, 0, 0, 2, 0, 1, 0]);
    rig.console.interrupt();
    assert!(matches!(rig.console.poll_write(1, b"x", waker), Poll::Ready(Err(Error::Request(_)))));
}

#[test]
fn a_port_that_nobody_reads_makes_the_writer_wait() {
    let mut rig = rig(0, Features::empty(), 1);
    let (bell, waker) = bell();
    let mut sent = 0;
    while let Poll::Ready(count) = rig.console.poll_write(0, &[7; 1000], &waker) {
        sent += count.unwrap();
    }
    let mut player = rig.player(1);
    assert_eq!(drain(&mut player).len(), sent);
    rig.console.interrupt();
    assert_eq!(bell.0.load(SeqCst), 1);
    assert!(rig.console.poll_write(0, b"more", &waker).is_ready());
}

/// §5.3.4: one register shows one character, queue or not.
#[test]
fn a_dying_guest_has_a_register() {
    let mut rig = rig(EMERG_WRITE, Features::empty(), 1);
    rig.console.emergency_write(b'!');
    assert_eq!(rig.device.registers().config[8], b'!');
}

#[test]
fn a_device_that_lies_is_reset() {
    let mut rig = rig(0, Features::empty(), 1);
    let (bell, waker) = bell();
    assert!(rig.console.poll_read(0, &mut [0], &waker).is_pending());
    rig.player(0).put(77, 0, 1, 1);
    rig.console.interrupt();
    assert_eq!(bell.0.load(SeqCst), 1);
    let fault = Error::Fault(Fault::UsedId { id: 77 });
    assert_eq!(rig.console.poll_read(0, &mut [0], &waker), Poll::Ready(Err(fault)));
    drop(rig.console);
    assert_eq!(rig.hal.pieces(), 0);
}

proptest! {
    /// Any configuration: no more ports than are driven, and no memory left behind.
    #[test]
    fn any_configuration_is_survived(config in vec(any::<u8>(), 0..16), features: u64, queues in 0..40u16) {
        let hal = FakeHal::default();
        let features = Features::from_bits_retain(features);
        let device = FakeDevice::new(DeviceId::CONSOLE, features, 8, config).with_queues(queues);
        if let Ok(console) = Console::probe(device.transport(), &hal) {
            prop_assert!(console.ports().count() <= MAX_PORTS.into());
        }
        prop_assert_eq!(hal.pieces(), 0);
    }

    /// Messages and text of any content, at any time: every call returns, no fault is seen where there is none, and in the
    /// end no memory is left.
    #[test]
    fn any_message_is_survived(
        ring in ring_features(),
        steps in vec((0..4u8, any::<u16>(), vec(0..9u8, 0..20)), 0..120),
    ) {
        let Rig { hal, device, mut console } = rig(MULTIPORT, ring - Features::IN_ORDER, 3);
        let queues: Vec<u16> = device.registers().queues.keys().copied().collect();
        let mut players: Vec<Player> = queues.iter().map(|&queue| device.player_of(&hal, queue)).collect();
        for (step, which, bytes) in steps {
            match step {
                0 => hostile::fill(&mut players[usize::from(which) % queues.len()], &bytes),
                1 => hostile::fill(&mut players[2], &bytes),
                2 => console.interrupt(),
                _ => {
                    _ = console.poll_write(which % 4, &bytes, Waker::noop());
                    _ = console.poll_read(which % 4, &mut [0; 4], Waker::noop());
                }
            }
        }
        console.interrupt();
        prop_assert_eq!(console.fault(), None);
        drop(console);
        prop_assert_eq!(hal.pieces(), 0);
    }

    /// Scribbles over all rings, answers to what was not asked, interrupts at any time: every call returns, and in the end
    /// no memory is left.
    #[test]
    fn a_hostile_device_gets_nothing(
        ring in ring_features(),
        features in 0..8u64,
        steps in vec((0..5u8, any::<u16>(), any::<u32>()), 0..120),
    ) {
        let Rig { hal, device, mut console } = rig(features, ring, 3);
        let queues: Vec<u16> = device.registers().queues.keys().copied().collect();
        let mut players: Vec<Player> = queues.iter().map(|&queue| device.player_of(&hal, queue)).collect();
        for (step, which, value) in steps {
            let at = usize::from(which) % players.len();
            match step {
                0 => hostile::scribble(&players[at], value),
                1 => players[at].put(u32::from(which % 70), value % 600, 1, 1),
                2 => console.interrupt(),
                3 => _ = console.poll_write(which % 4, &value.to_le_bytes(), Waker::noop()),
                _ => _ = console.poll_read(which % 4, &mut [0; 40], Waker::noop()),
            }
        }
        console.interrupt();
        drop(console);
        prop_assert_eq!(hal.pieces(), 0);
    }
}
