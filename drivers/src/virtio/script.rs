//! A device that does what a script of bytes says, and a driver that is used meanwhile: what the fuzz target `virtio` runs
//! (tests/fuzz), and a property test of this crate.
//!
//! [`run`] promises for every script: no call goes on for ever or panics, the driver touches no memory that is not its own, no
//! request is answered twice (a token is used up by its answer), and in the end no memory is left.
#![forbid(unsafe_code)]

use alloc::{boxed::Box, vec::Vec};
use core::task::Waker;

use super::{
    DeviceId, Features, Status, Token,
    balloon::{Balloon, Statistic},
    block::Block,
    console::Console,
    entropy::Entropy,
    fake::{FakeCpu, FakeDevice, FakeHal, Player},
    net::{Net, Setting, Sizes},
    transport::Interrupt,
};
use crate::{
    class::{
        Batch, BlockRequest, Exclusive, Outcome, Requests, Submitted,
        net::{Control, Frame, MacAddress, NetDevice, SendOffload},
    },
    dma::DmaBuffer,
    error::Error,
    hal::Hal,
};

/// The bytes that are left of a script; zeroes behind its end.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn u8(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes([self.u8(), self.u8(), self.u8(), self.u8()])
    }
}

/// A driver in use.
trait Driver {
    fn interrupt(&mut self);
    fn queue_interrupt(&mut self, queue: u16);
    /// Asks something, takes an answer, gives a request up.
    fn act(&mut self, what: u8, value: u32, hal: &FakeHal);
}

/// Descriptors of each queue, and queues.
const QUEUE_SIZE: u32 = 8;
const QUEUES: u16 = 12;
/// Steps of one script.
const STEPS: u32 = 400;

/// Plays `script`.
pub fn run(script: &[u8]) {
    let mut script = Script(script);
    let hal = FakeHal::default();
    let kind = script.u8() % 5;
    let mut features = Features::VERSION_1 | Features::from_bits_retain(script.u32().into());
    let ring = script.u8();
    features.set(Features::RING_PACKED, ring & 1 != 0);
    features.set(Features::IN_ORDER, ring & 2 != 0);
    features.set(Features::RING_RESET, ring & 4 != 0);
    features.set(Features::NOTIFICATION_DATA, ring & 8 != 0);
    let config = (0..64).map(|_| script.u8()).collect();
    let kinds = [DeviceId::BLOCK, DeviceId::ENTROPY, DeviceId::CONSOLE, DeviceId::BALLOON, DeviceId::NET];
    let id = kinds[usize::from(kind)];
    let device = FakeDevice::new(id, features, QUEUE_SIZE, config).with_queues(QUEUES);
    if let Ok(mut driver) = probe(id, &device, &hal) {
        play(&mut script, &device, &hal, &mut *driver);
    }
    assert_eq!(hal.pieces(), 0, "memory is left behind");
}

fn probe(id: DeviceId, device: &FakeDevice, hal: &FakeHal) -> Result<Box<dyn Driver>, Error> {
    FakeCpu { number: 1, ..FakeCpu::BUSY }.enter();
    let transport = device.transport();
    Ok(match id {
        DeviceId::BLOCK => {
            Box::new(BlockUser(Block::probe(transport, hal, 2)?, Vec::new(), Batch::default()))
        }
        DeviceId::ENTROPY => Box::new(EntropyUser(Entropy::probe(transport, hal)?, Vec::new())),
        DeviceId::CONSOLE => Box::new(Console::probe(transport, hal)?),
        DeviceId::BALLOON => Box::new(Balloon::probe(transport, hal)?),
        _ => {
            let sizes = |_| Sizes { receive: 8, short: 4, long: 2, long_bytes: 16 << 10 };
            let mac = || MacAddress([2, 0, 0, 0, 0, 1]);
            let setting = Setting { cpus: 2, current_cpu: || 1, sizes, mac };
            Box::new(NetUser(Net::probe(transport, hal, setting)?, Vec::new()))
        }
    })
}

fn play(script: &mut Script<'_>, device: &FakeDevice, hal: &FakeHal, driver: &mut dyn Driver) {
    let queues: Vec<u16> = device.registers().queues.keys().copied().collect();
    let side = |queue| Side { player: device.player_of(hal, queue), is_whole: true };
    let mut sides: Vec<Side> = queues.iter().map(|&queue| side(queue)).collect();
    for _ in 0..STEPS {
        if script.0.is_empty() {
            break;
        }
        let (step, which) = (script.u8(), script.u8());
        let at = usize::from(which) % sides.len();
        // A queue that was reset alone lies elsewhere now, and is new.
        let now = device.registers().queues.get(&queues[at]).copied();
        if now.is_some_and(|now| now != sides[at].player.at) {
            sides[at] = side(queues[at]);
        }
        let Side { player, is_whole } = &mut sides[at];
        let is_there = hal.has(player.at.descriptors);
        match step % 8 {
            0 if is_there => {
                scribble(player, script.u32());
                *is_whole = false;
            }
            1 if is_there => {
                player.put(script.u8().into(), script.u8().into(), 1, 1);
                // A buffer that it has said to be used is not the device's to take any more.
                *is_whole = false;
            }
            // Once it was reset no device looks at a ring.
            5 if is_there && *is_whole && device.registers().status.contains(Status::DRIVER_OK) => {
                answer(player, script)
            }
            0 | 1 | 5 => {}
            2 => driver.interrupt(),
            3 => driver.queue_interrupt(at as u16),
            4 => {
                let (place, byte) = (usize::from(script.u8()) % 64, script.u8());
                let mut registers = device.registers();
                registers.config[place] = byte;
                registers.interrupt = Interrupt::from_bits_truncate(byte.into());
                registers.status.set(Status::DEVICE_NEEDS_RESET, byte == 0xff);
            }
            _ => {
                let value = script.u32();
                driver.act(which, value, hal);
            }
        }
    }
    driver.interrupt();
}

/// The device's side of a queue.
struct Side {
    player: Player,
    /// The device has kept to the rules: what the driver offers can be read.
    is_whole: bool,
}

/// Answers the next request with bytes of the script, as many as it has room for.
fn answer(player: &mut Player, script: &mut Script<'_>) {
    let Some(chain) = player.take() else { return };
    let mut written = 0;
    for &(address, len, _) in chain.parts.iter().filter(|(_, _, is_write)| *is_write) {
        let bytes: Vec<u8> = (0..len.min(16)).map(|_| script.u8()).collect();
        player.hal.write(address, &bytes);
        written += len;
    }
    player.finish(&chain, written);
}

/// Writes a word somewhere into the ring, which place and which word `value` says.
pub(crate) fn scribble(player: &Player, value: u32) {
    let bytes = ring_bytes(player);
    let offset = u64::from(value >> 16) % (bytes / 2) * 2;
    player.hal.set_u16(player.at.descriptors + offset, value as u16);
}

/// Bytes of the ring: the areas lie in one piece, that of the device last.
fn ring_bytes(player: &Player) -> u64 {
    let at = player.at;
    let device_bytes = if player.packed { 4 } else { 6 + 8 * u64::from(at.size) };
    at.device - at.descriptors + device_bytes
}

struct BlockUser(Block<FakeHal>, Vec<Token>, Batch<BlockRequest, Outcome>);

impl Driver for BlockUser {
    fn interrupt(&mut self) {
        self.0.interrupt();
    }

    fn queue_interrupt(&mut self, queue: u16) {
        match queue % 3 {
            0 => _ = self.0.look(queue / 3),
            1 => self.0.tell(),
            _ => self.0.queue_interrupt(queue / 3, 1),
        }
    }

    fn act(&mut self, what: u8, value: u32, hal: &FakeHal) {
        let Self(block, tokens, batch) = self;
        let sector = u64::from(value % 16);
        let request = match what % 9 {
            0 => BlockRequest::Read { sector, buffer: buffer(hal) },
            1 => BlockRequest::Write { sector, buffer: buffer(hal) },
            2 => BlockRequest::Flush,
            3 => BlockRequest::Discard { sector, count: value >> 16 },
            4 => BlockRequest::GetId { buffer: buffer(hal) },
            5 => return block.cancel(hal).unwrap_or_default(),
            6 => return tokens.pop().into_iter().for_each(|token| block.forget(token)),
            7 => {
                let requests = (0..u64::from(value >> 28))
                    .map(|number| BlockRequest::Read { sector: sector + number, buffer: buffer(hal) });
                batch.unsent.extend(requests.map(|request| (0, request)));
                block.advance(batch, Waker::noop());
                return batch.done.clear();
            }
            _ => {
                let Some(token) = tokens.pop() else { return };
                return block.poll(token, Waker::noop()).map_or_else(|token| tokens.push(token), drop);
            }
        };
        if let Submitted::Sent(token) = block.submit(request, Waker::noop()) {
            tokens.push(token);
        }
    }
}

struct EntropyUser(Entropy, Vec<Token>);

impl Driver for EntropyUser {
    fn interrupt(&mut self) {
        self.0.interrupt();
    }

    fn queue_interrupt(&mut self, _queue: u16) {
        self.0.queue_interrupt();
    }

    fn act(&mut self, what: u8, _value: u32, hal: &FakeHal) {
        let Self(entropy, tokens) = self;
        match (what % 3, tokens.pop()) {
            (0, Some(token)) => entropy.forget(token),
            (1, Some(token)) => {
                entropy.poll(token, Waker::noop()).map_or_else(|token| tokens.push(token), drop)
            }
            (_, token) => {
                tokens.extend(token);
                if let Submitted::Sent(token) = entropy.submit(buffer(hal), Waker::noop()) {
                    tokens.push(token);
                }
            }
        }
    }
}

impl Driver for Console {
    fn interrupt(&mut self) {
        Console::interrupt(self);
    }

    fn queue_interrupt(&mut self, _queue: u16) {
        Console::queue_interrupt(self);
    }

    fn act(&mut self, what: u8, value: u32, _hal: &FakeHal) {
        let id = (value % 9) as u16;
        match what % 4 {
            0 => _ = self.poll_read(id, &mut [0; 100], Waker::noop()),
            1 => _ = self.poll_write(id, &value.to_le_bytes(), Waker::noop()),
            2 => self.set_open(id, true),
            _ => self.emergency_write(what),
        }
    }
}

impl Driver for Balloon {
    fn interrupt(&mut self) {
        Balloon::interrupt(self);
    }

    fn queue_interrupt(&mut self, _queue: u16) {
        Balloon::queue_interrupt(self);
    }

    fn act(&mut self, what: u8, value: u32, hal: &FakeHal) {
        match what % 8 {
            0 => _ = self.inflate(0..value % 2000),
            1 => _ = self.deflate(0..value % 2000),
            2 => _ = self.deflate_was_read(),
            3 => _ = self.poll_read(value & 1 != 0, Waker::noop()),
            4 => self.tell(&[(Statistic::Free, value.into())]),
            5 => drop(self.report(Vec::from([buffer(hal)]))),
            6 => drop(self.poll_reported(Waker::noop())),
            _ => self.set_actual(value),
        }
    }
}

struct NetUser(Net<FakeHal>, Vec<Frame>);

impl Driver for NetUser {
    fn interrupt(&mut self) {
        self.0.interrupt();
    }

    fn queue_interrupt(&mut self, queue: u16) {
        self.0.queue_interrupt(queue, 2);
    }

    fn act(&mut self, what: u8, value: u32, _hal: &FakeHal) {
        let Self(card, held) = self;
        match what % 8 {
            0 => held.extend(card.receive(value as u16 % 3)),
            1 => held.pop().into_iter().for_each(|frame| card.recycle(frame)),
            2 | 3 => {
                let Some(mut frame) = card.buffer(14 + value as usize % 20_000) else { return };
                frame.bytes_mut().fill(what);
                card.send(frame, SendOffload::default());
            }
            4 => card.flush(),
            5 => _ = card.wait_for_all(Waker::noop()),
            // Seldom: who waits for an answer that does not come waits long.
            6 if value.is_multiple_of(64) => _ = card.control(Control::Promiscuous(value & 64 != 0)),
            _ => {
                let info = card.info();
                assert!(info.mac.is_unicast() && info.mtu >= 68);
                _ = card.take_announcement();
                // Every byte of a frame may be looked at.
                assert!(held.iter().all(|frame| frame.bytes().iter().map(|&byte| u64::from(byte)).sum::<u64>() < 1 << 40));
            }
        }
    }
}

fn buffer(hal: &FakeHal) -> DmaBuffer {
    let hal: &dyn Hal = hal;
    hal.buffer(512).expect("the fake machine has memory")
}
