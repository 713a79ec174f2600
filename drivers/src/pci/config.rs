//! Two ways to the configuration space: I/O ports, and memory.
#![forbid(unsafe_code)]

use spin::Mutex;

use super::{Address, ConfigAccess};
use crate::mmio::Mmio;

/// Configuration mechanism #1 (PCI §3.2.2.3.2).
const ENABLE: u32 = 1 << 31;

/// The address port 0xcf8 and the data port 0xcfc. A machine has one pair, which the implementation locks.
pub trait ConfigPorts: Sync {
    /// Writes `address` to the address port, then reads the data port, or writes `value` to it.
    fn exchange(&self, address: u32, value: Option<u32>) -> u32;
}

/// The configuration space behind I/O ports: 256 bytes a function.
#[derive(Debug)]
pub struct Ports<P>(pub P);

impl<P: ConfigPorts> Ports<P> {
    fn exchange(&self, address: Address, offset: u16, value: Option<u32>) -> u32 {
        if offset > 0xff {
            return u32::MAX;
        }
        let Address { bus, device, function } = address;
        let select = ENABLE
            | u32::from(bus) << 16
            | u32::from(device & 31) << 11
            | u32::from(function & 7) << 8
            | u32::from(offset & !3);
        self.0.exchange(select, value)
    }
}

impl<P: ConfigPorts> ConfigAccess for Ports<P> {
    fn read(&self, address: Address, offset: u16) -> u32 {
        self.exchange(address, offset, None)
    }

    fn write(&self, address: Address, offset: u16, value: u32) {
        self.exchange(address, offset, Some(value));
    }
}

/// The configuration space in memory (PCIe §7.2.2, ECAM): 4 KiB a function.
#[derive(Debug)]
pub struct Ecam {
    first_bus: u8,
    memory: Mutex<Mmio<u8>>,
}

impl Ecam {
    /// Bytes of a bus.
    pub const BUS_BYTES: usize = 1 << 20;

    /// The space of the buses from `first_bus` on, as many as `memory` holds.
    pub fn new(first_bus: u8, memory: Mmio<u8>) -> Self {
        Self { first_bus, memory: Mutex::new(memory) }
    }

    fn offset(&self, address: Address, offset: u16) -> Option<usize> {
        let bus = usize::from(address.bus.checked_sub(self.first_bus)?);
        let (device, function) = (usize::from(address.device & 31), usize::from(address.function & 7));
        Some(bus << 20 | device << 15 | function << 12 | usize::from(offset & 0xffc))
    }
}

impl ConfigAccess for Ecam {
    fn read(&self, address: Address, offset: u16) -> u32 {
        self.offset(address, offset).and_then(|offset| self.memory.lock().read_at(offset)).unwrap_or(u32::MAX)
    }

    fn write(&self, address: Address, offset: u16, value: u32) {
        if let Some(offset) = self.offset(address, offset) {
            let _ = self.memory.lock().write_at(offset, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mmio::testing::leaked;
    use std::sync::Mutex as StdMutex;

    #[derive(Default)]
    struct Record(StdMutex<Vec<(u32, Option<u32>)>>);

    impl ConfigPorts for Record {
        fn exchange(&self, address: u32, value: Option<u32>) -> u32 {
            self.0.lock().unwrap().push((address, value));
            7
        }
    }

    #[test]
    fn ports_select_bus_device_function_and_register() {
        let ports = Ports(Record::default());
        let address = Address { bus: 2, device: 31, function: 7 };
        assert_eq!(ports.read(address, 0xfc), 7);
        assert_eq!(ports.read(address, 0x100), u32::MAX, "extended space is not behind the ports");
        assert_eq!(*ports.0.0.lock().unwrap(), [(0x8002_fffc, None)]);
    }

    #[test]
    fn memory_ends_where_the_buses_end() {
        let (memory, _) = leaked(std::vec![0; 0x2000]);
        let ecam = Ecam::new(1, memory);
        let at = |bus, function| Address { bus, device: 0, function };
        ecam.write(at(1, 1), 8, 5);
        assert_eq!((ecam.read(at(1, 1), 8), ecam.read(at(1, 0), 8)), (5, 0));
        assert_eq!((ecam.read(at(0, 0), 0), ecam.read(at(1, 2), 0), ecam.read(at(9, 0), 0)), (!0, !0, !0));
    }
}
