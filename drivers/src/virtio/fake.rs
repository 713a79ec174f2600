//! A machine and a device that a test plays: memory that knows who may use it, registers, and the device's side of a
//! virtqueue in both formats.
#![forbid(unsafe_code)]

mod cpu;

use std::{
    boxed::Box,
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, atomic::Ordering::SeqCst},
    vec::Vec,
};

use super::{
    DeviceId, Features, Status,
    queue::Addresses,
    transport::{Interrupt, Transport},
};
use crate::{
    dma::{self, Dma},
    error::Error,
    hal::{Hal, Lock, Locks},
    mmio::Mmio,
};

pub(crate) use cpu::FakeCpu;

/// A lock as a host program has it.
pub(crate) struct StdLock<T>(pub(crate) Mutex<T>);

impl<T: Send> Lock for StdLock<T> {
    type Value = T;

    fn with<R>(&self, act: impl FnOnce(&mut T) -> R) -> R {
        act(&mut self.0.lock().expect("nobody panicked with the lock"))
    }
}

impl Locks for FakeHal {
    type Lock<T: Send> = StdLock<T>;

    fn lock<T: Send>(value: T) -> StdLock<T> {
        StdLock(Mutex::new(value))
    }
}

/// Memory for DMA that is counted, and that the device may access only while the driver has it.
#[derive(Clone, Default)]
pub(crate) struct FakeHal(Arc<Mutex<Memory>>);

#[derive(Default)]
struct Memory {
    regions: BTreeMap<u64, Dma>,
    next: u64,
    left: Option<usize>,
}

/// Takes the region out of the machine's memory when the driver frees it.
struct Owner(Arc<Mutex<Memory>>, u64);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.lock().unwrap().regions.remove(&self.1);
    }
}

impl FakeHal {
    /// Pieces that the driver has.
    pub(crate) fn pieces(&self) -> usize {
        self.0.lock().unwrap().regions.len()
    }

    /// Whether the driver has the piece that begins at `address`.
    pub(crate) fn has(&self, address: u64) -> bool {
        self.0.lock().unwrap().regions.contains_key(&address)
    }

    /// Gives out so many pieces more, then none.
    #[cfg(test)]
    pub(crate) fn fail_after(&self, pieces: usize) {
        self.0.lock().unwrap().left = Some(pieces);
    }

    fn with<R>(&self, address: u64, len: usize, act: impl FnOnce(&Dma, usize) -> R) -> R {
        let memory = self.0.lock().unwrap();
        let (start, region) = memory.regions.range(..=address).next_back().expect("no such memory");
        let offset = (address - start) as usize;
        assert!(offset + len <= region.len(), "{len} bytes at {address:#x} are not the driver's");
        act(region, offset)
    }

    #[cfg(test)]
    pub(crate) fn read(&self, address: u64, len: usize) -> Vec<u8> {
        self.with(address, len, |region, offset| {
            (offset..offset + len).map(|at| region.u8(at).load(SeqCst)).collect()
        })
    }

    pub(crate) fn write(&self, address: u64, bytes: &[u8]) {
        self.with(address, bytes.len(), |region, offset| {
            bytes.iter().enumerate().for_each(|(at, &byte)| region.u8(offset + at).store(byte, SeqCst));
        });
    }

    pub(crate) fn u16(&self, address: u64) -> u16 {
        self.with(address, 2, |region, offset| region.u16(offset).load(SeqCst))
    }

    pub(crate) fn set_u16(&self, address: u64, value: u16) {
        self.with(address, 2, |region, offset| region.u16(offset).store(value, SeqCst));
    }

    fn u32(&self, address: u64) -> u32 {
        self.with(address, 4, |region, offset| region.u32(offset).load(SeqCst))
    }

    pub(crate) fn set_u32(&self, address: u64, value: u32) {
        self.with(address, 4, |region, offset| region.u32(offset).store(value, SeqCst));
    }

    fn u64(&self, address: u64) -> u64 {
        self.with(address, 8, |region, offset| region.u64(offset).load(SeqCst))
    }
}

impl Hal for FakeHal {
    fn dma(&self, len_bytes: usize) -> Result<Dma, Error> {
        let mut memory = self.0.lock().unwrap();
        if let Some(left) = &mut memory.left {
            *left = left.checked_sub(1).ok_or(Error::NoDmaMemory { len_bytes })?;
        }
        // A gap behind each piece.
        memory.next += 0x1000;
        let address = memory.next;
        memory.next += len_bytes.next_multiple_of(0x1000) as u64;
        let (driver, device) =
            dma::testing::shared(address, len_bytes, Box::new(Owner(self.0.clone(), address)));
        memory.regions.insert(address, device);
        Ok(driver)
    }

    fn device_memory(&self, address: u64, len_bytes: usize) -> Result<Mmio<u8>, Error> {
        Err(Error::NotDeviceMemory { address, len_bytes })
    }
}

/// The registers of a device, which a test looks at and turns.
#[derive(Clone)]
pub(crate) struct FakeDevice(Arc<Mutex<Registers>>);

pub(crate) struct Registers {
    pub(crate) id: DeviceId,
    pub(crate) offers: u64,
    pub(crate) chosen: u64,
    pub(crate) status: Status,
    /// Does not come out of a reset.
    pub(crate) is_stuck: bool,
    /// Does not take the features.
    pub(crate) refuses: bool,
    pub(crate) queue_size: u32,
    /// Queues that it has, and where those that were enabled lie.
    pub(crate) queue_count: u16,
    pub(crate) queues: BTreeMap<u16, Addresses>,
    /// The queue that was notified, and what went with it.
    pub(crate) notifications: Vec<(u16, Option<u16>)>,
    pub(crate) interrupt: Interrupt,
    pub(crate) generation: u32,
    /// The configuration changes at each look.
    pub(crate) is_restless: bool,
    pub(crate) config: Vec<u8>,
    /// Called when a queue was notified.
    pub(crate) reacts: Option<Reaction>,
}

/// What a device does when a queue is notified.
pub(crate) type Reaction = Arc<dyn Fn(&FakeDevice, u16) + Send + Sync>;

impl FakeDevice {
    pub(crate) fn new(id: DeviceId, features: Features, queue_size: u32, config: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Registers {
            id,
            offers: (features | Features::VERSION_1).bits(),
            chosen: 0,
            status: Status::empty(),
            is_stuck: false,
            refuses: false,
            queue_size,
            queue_count: 1,
            queues: BTreeMap::new(),
            notifications: Vec::new(),
            interrupt: Interrupt::QUEUE,
            generation: 0,
            is_restless: false,
            config,
            reacts: None,
        })))
    }

    pub(crate) fn registers(&self) -> MutexGuard<'_, Registers> {
        self.0.lock().unwrap()
    }

    pub(crate) fn transport(&self) -> Box<dyn Transport> {
        Box::new(self.clone())
    }

    /// The same with so many queues.
    pub(crate) fn with_queues(self, count: u16) -> Self {
        self.registers().queue_count = count;
        self
    }

    /// The device's side of its first queue.
    #[cfg(test)]
    pub(crate) fn player(&self, hal: &FakeHal) -> Player {
        self.player_of(hal, 0)
    }

    /// The device's side of queue `index`.
    pub(crate) fn player_of(&self, hal: &FakeHal, index: u16) -> Player {
        let registers = self.registers();
        let addresses = *registers.queues.get(&index).expect("the queue was enabled");
        Player::new(hal, addresses, Features::from_bits_retain(registers.chosen))
    }
}

impl Transport for FakeDevice {
    fn device_id(&self) -> DeviceId {
        self.registers().id
    }

    fn device_features(&mut self) -> u64 {
        self.registers().offers
    }

    fn set_driver_features(&mut self, features: u64) {
        self.registers().chosen = features;
    }

    fn status(&self) -> Status {
        self.registers().status
    }

    fn set_status(&mut self, status: Status) {
        let mut registers = self.registers();
        registers.status = match status {
            status if status.is_empty() && registers.is_stuck => registers.status | Status::DRIVER,
            status if registers.refuses => status - Status::FEATURES_OK,
            status => status,
        };
        if status.is_empty() && !registers.is_stuck {
            registers.queues.clear();
        }
    }

    fn queue_max_size(&mut self, index: u16) -> u32 {
        let registers = self.registers();
        if index < registers.queue_count { registers.queue_size } else { 0 }
    }

    fn enable_queue(&mut self, index: u16, addresses: &Addresses) -> Result<(), Error> {
        self.registers().queues.insert(index, *addresses);
        Ok(())
    }

    fn can_reset_queues(&self) -> bool {
        true
    }

    fn reset_queue(&mut self, index: u16) -> bool {
        let mut registers = self.registers();
        !registers.is_stuck && registers.queues.remove(&index).is_some()
    }

    fn notify(&mut self, index: u16, position: Option<u16>) {
        self.registers().notifications.push((index, position));
        let reacts = self.registers().reacts.clone();
        reacts.into_iter().for_each(|react| react(self, index));
    }

    fn take_interrupt(&mut self) -> Interrupt {
        self.registers().interrupt
    }

    fn config_generation(&self) -> u32 {
        let mut registers = self.registers();
        registers.generation += u32::from(registers.is_restless);
        registers.generation
    }

    fn config_u8(&self, offset: usize) -> Option<u8> {
        self.registers().config.get(offset).copied()
    }

    fn config_u16(&self, offset: usize) -> Option<u16> {
        Some(u16::from_le_bytes(self.registers().config.get(offset..offset + 2)?.try_into().ok()?))
    }

    fn config_u32(&self, offset: usize) -> Option<u32> {
        Some(u32::from_le_bytes(self.registers().config.get(offset..offset + 4)?.try_into().ok()?))
    }

    fn set_config_u32(&mut self, offset: usize, value: u32) {
        if let Some(place) = self.registers().config.get_mut(offset..offset + 4) {
            place.copy_from_slice(&value.to_le_bytes());
        }
    }
}

/// A buffer as the device sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) id: u16,
    /// Address, bytes, whether the device writes.
    pub(crate) parts: Vec<(u64, u32, bool)>,
    /// Descriptors in the ring.
    pub(crate) count: u16,
}

/// The device's side of a virtqueue.
#[derive(Clone)]
pub(crate) struct Player {
    pub(crate) hal: FakeHal,
    pub(crate) at: Addresses,
    pub(crate) packed: bool,
    /// Where the next buffer is taken, and where the next is used: index and wrap counter.
    taken: (u16, bool),
    used: (u16, bool),
}

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

impl Player {
    pub(crate) fn new(hal: &FakeHal, at: Addresses, features: Features) -> Self {
        let packed = features.contains(Features::RING_PACKED);
        Self { hal: hal.clone(), at, packed, taken: (0, true), used: (0, true) }
    }

    fn step(&self, (index, wrap): (u16, bool), count: u16) -> (u16, bool) {
        let next = index + count;
        if next < self.at.size { (next, wrap) } else { (next - self.at.size, !wrap) }
    }

    /// The next buffer that was made available.
    pub(crate) fn take(&mut self) -> Option<Chain> {
        if self.packed { self.take_packed() } else { self.take_split() }
    }

    fn take_split(&mut self) -> Option<Chain> {
        let (hal, at) = (self.hal.clone(), self.at);
        if hal.u16(at.driver + 2) == self.taken.0 {
            return None;
        }
        let id = hal.u16(at.driver + 4 + 2 * u64::from(self.taken.0 % at.size));
        self.taken.0 = self.taken.0.wrapping_add(1);
        let (mut parts, mut count, mut table, mut index) = (Vec::new(), 0, at.descriptors, id);
        let mut size = u32::from(at.size);
        loop {
            assert!(u32::from(index) < size, "descriptor {index} of a table of {size}");
            let descriptor = table + 16 * u64::from(index);
            let (address, len) = (hal.u64(descriptor), hal.u32(descriptor + 8));
            let (flags, next) = (hal.u16(descriptor + 12), hal.u16(descriptor + 14));
            count += u16::from(table == at.descriptors);
            if flags & INDIRECT != 0 {
                assert_eq!(flags, INDIRECT);
                (table, index, size) = (address, 0, len / 16);
                continue;
            }
            parts.push((address, len, flags & WRITE != 0));
            if flags & NEXT == 0 {
                return Some(Chain { id, parts, count });
            }
            index = next;
        }
    }

    fn take_packed(&mut self) -> Option<Chain> {
        let hal = self.hal.clone();
        let (mut parts, mut count) = (Vec::new(), 0);
        loop {
            let (index, wrap) = self.taken;
            let descriptor = self.at.descriptors + 16 * u64::from(index);
            let flags = hal.u16(descriptor + 14);
            if (flags & 0x80 != 0) != wrap || (flags & 0x8000 != 0) == wrap {
                assert_eq!(count, 0, "a buffer is made available as a whole");
                return None;
            }
            let (address, len, id) = (hal.u64(descriptor), hal.u32(descriptor + 8), hal.u16(descriptor + 12));
            self.taken = self.step(self.taken, 1);
            count += 1;
            if flags & INDIRECT != 0 {
                for entry in (address..address + u64::from(len)).step_by(16) {
                    parts.push((hal.u64(entry), hal.u32(entry + 8), hal.u16(entry + 14) & WRITE != 0));
                }
            } else {
                parts.push((address, len, flags & WRITE != 0));
            }
            if flags & NEXT == 0 {
                return Some(Chain { id, parts, count });
            }
        }
    }

    /// Says that a buffer was used: `skipped` descriptors (packed) or entries (split) together, this one the last.
    pub(crate) fn put(&mut self, id: u32, len_bytes: u32, count: u16, skipped: u16) {
        let hal = self.hal.clone();
        if self.packed {
            let (index, wrap) = self.used;
            let descriptor = self.at.descriptors + 16 * u64::from(index);
            hal.set_u32(descriptor + 8, len_bytes);
            hal.set_u16(descriptor + 12, id as u16);
            hal.set_u16(descriptor + 14, if wrap { 0x8080 } else { 0 });
            self.used = self.step(self.used, count);
        } else {
            let entry = self.at.device + 4 + 8 * u64::from(self.used.0 % self.at.size);
            hal.set_u32(entry, id);
            hal.set_u32(entry + 4, len_bytes);
            self.used.0 = self.used.0.wrapping_add(skipped);
            hal.set_u16(self.at.device + 2, self.used.0);
        }
    }

    /// Says that one buffer was used.
    pub(crate) fn finish(&mut self, chain: &Chain, len_bytes: u32) {
        self.put(chain.id.into(), len_bytes, chain.count, 1);
    }
}
