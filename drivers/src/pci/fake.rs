//! A configuration space that a test fills.
#![forbid(unsafe_code)]

use std::{collections::HashMap, sync::Mutex};

use super::{Address, ConfigAccess};

#[derive(Debug, Default)]
pub(crate) struct FakeConfig {
    words: Mutex<HashMap<(u32, u16), u32>>,
    /// Bits of a word that can be written; all, if not said.
    writable: Mutex<HashMap<(u32, u16), u32>>,
}

fn key(address: Address, offset: u16) -> (u32, u16) {
    let Address { bus, device, function } = address;
    (u32::from(bus) << 8 | u32::from(device) << 3 | u32::from(function), offset)
}

impl FakeConfig {
    pub(crate) fn add(&self, address: Address, vendor: u16, device: u16) {
        self.set(address, 0, u32::from(device) << 16 | u32::from(vendor));
        (4..64).step_by(4).for_each(|offset| self.set(address, offset, 0));
    }

    pub(crate) fn set(&self, address: Address, offset: u16, value: u32) {
        self.words.lock().unwrap().insert(key(address, offset), value);
    }

    /// A BAR register of `value`, of which only the bits `mask` keep what is written.
    pub(crate) fn set_bar(&self, address: Address, offset: u16, value: u32, mask: u32) {
        self.set(address, offset, value);
        self.writable.lock().unwrap().insert(key(address, offset), mask);
    }
}

impl ConfigAccess for FakeConfig {
    fn read(&self, address: Address, offset: u16) -> u32 {
        self.words.lock().unwrap().get(&key(address, offset)).copied().unwrap_or(u32::MAX)
    }

    fn write(&self, address: Address, offset: u16, value: u32) {
        let mask = self.writable.lock().unwrap().get(&key(address, offset)).copied().unwrap_or(u32::MAX);
        let old = self.read(address, offset);
        self.set(address, offset, old & !mask | value & mask);
    }
}
