//! PCI: the functions of a machine, found on its buses (PCI Local Bus Specification 3.0, "PCI" here; PCI Express Base
//! Specification 5.0, "PCIe").
//!
//! [`functions`] walks the buses over [`ConfigAccess`], which a machine answers by I/O ports or by memory (`config`).
//! A [`Function`] tells what it is, where its memory lies (`bar`), and what it can do (`capability`, `msix`). All that
//! it tells is the device's word: walks are bounded, and ranges are checked before anybody maps them.
//!
//! Crate `pci_types` is not used: its access trait is unsafe to implement and to call, and its walk over the
//! capabilities goes on for as long as a device likes.
#![forbid(unsafe_code)]

mod bar;
mod capability;
mod config;
#[cfg(test)]
mod fake;
mod msix;

use alloc::{vec, vec::Vec};
use core::fmt;

pub use self::{
    bar::MemoryBar,
    capability::{Capabilities, Capability, MSI_X, VENDOR_SPECIFIC},
    config::{ConfigPorts, Ecam, Ports},
    msix::{Message, MsiX},
};

/// Where a function sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// Bus.
    pub bus: u8,
    /// Device on the bus, 0 to 31.
    pub device: u8,
    /// Function of the device, 0 to 7.
    pub function: u8,
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:02x}:{:02x}.{}", self.bus, self.device, self.function)
    }
}

/// The configuration space of all functions of a segment, in words of 32 bits.
pub trait ConfigAccess: Sync {
    /// The word at `offset`, a multiple of 4; all ones where nothing answers.
    fn read(&self, address: Address, offset: u16) -> u32;

    /// Writes the word at `offset`.
    fn write(&self, address: Address, offset: u16, value: u32);
}

/// Registers of the configuration header (PCI §6.1).
mod register {
    pub(super) const ID: u16 = 0x00;
    pub(super) const COMMAND: u16 = 0x04;
    pub(super) const HEADER_TYPE: u16 = 0x0c;
    pub(super) const FIRST_BAR: u16 = 0x10;
    pub(super) const BUS_NUMBERS: u16 = 0x18;
    pub(super) const CAPABILITIES: u16 = 0x34;
    pub(super) const INTERRUPT_LINE: u16 = 0x3c;
}

/// Command register (PCI §6.2.2), and status above it (§6.2.3).
const MEMORY_SPACE: u32 = 1 << 1;
const BUS_MASTER: u32 = 1 << 2;
const INTX_DISABLE: u32 = 1 << 10;
const HAS_CAPABILITIES: u32 = 1 << 20;
/// Status bits are cleared by writing ones, so zeroes are written to leave them alone.
const COMMAND_BITS: u32 = 0xffff;

/// One function of a PCI device.
#[derive(Clone, Copy)]
pub struct Function<'a> {
    access: &'a dyn ConfigAccess,
    address: Address,
}

impl fmt::Debug for Function<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (vendor, device) = self.id();
        write!(out, "PCI function {} ({vendor:04x}:{device:04x})", self.address)
    }
}

impl<'a> Function<'a> {
    /// The function at `address`, whether there is one or not.
    pub fn new(access: &'a dyn ConfigAccess, address: Address) -> Self {
        Self { access, address }
    }

    /// Where it sits.
    pub fn address(&self) -> Address {
        self.address
    }

    /// Vendor and device ID.
    pub fn id(&self) -> (u16, u16) {
        let id = self.read(register::ID);
        (id as u16, (id >> 16) as u16)
    }

    /// The word of the configuration space at `offset`, a multiple of 4.
    pub fn read(&self, offset: u16) -> u32 {
        self.access.read(self.address, offset & !3)
    }

    fn write(&self, offset: u16, value: u32) {
        self.access.write(self.address, offset & !3, value);
    }

    fn update_command(&self, set: u32, clear: u32) {
        let command = self.read(register::COMMAND) & COMMAND_BITS;
        self.write(register::COMMAND, (command | set) & !clear);
    }

    /// Lets the function answer in memory and access memory by itself, and keeps its interrupt line quiet.
    pub fn enable(&self) {
        self.update_command(MEMORY_SPACE | BUS_MASTER | INTX_DISABLE, 0);
    }

    /// The number of its interrupt at the PC's legacy controller, as the firmware has routed it, if it has an interrupt
    /// pin and a number was noted (PCI §6.2.4: on a PC 0 to 15).
    pub fn interrupt_line(&self) -> Option<u8> {
        let [line, pin, ..] = self.read(register::INTERRUPT_LINE).to_le_bytes();
        (pin != 0 && (1..16).contains(&line)).then_some(line)
    }

    /// Lets the function raise its interrupt line.
    pub fn enable_interrupt_line(&self) {
        self.update_command(0, INTX_DISABLE);
    }

    /// Keeps it from accessing memory.
    pub fn disable(&self) {
        self.update_command(0, BUS_MASTER);
    }

    fn header(&self) -> u8 {
        (self.read(register::HEADER_TYPE) >> 16) as u8
    }
}

/// Bits of the header type (PCI §6.1).
const MULTI_FUNCTION: u8 = 0x80;
const BRIDGE: u8 = 1;

/// The functions of the segment, bus 0 first, then what lies behind each bridge. `last_bus` is the last one that can
/// be reached.
pub fn functions(access: &dyn ConfigAccess, last_bus: u8) -> Vec<Function<'_>> {
    let mut seen = [false; 256];
    let mut buses = vec![0u8];
    let mut found = Vec::new();
    // A bus is looked at once, whatever the bridges say: the walk ends.
    while let Some(bus) = buses.pop() {
        if bus > last_bus || core::mem::replace(&mut seen[usize::from(bus)], true) {
            continue;
        }
        for device in 0..32 {
            let first = Function::new(access, Address { bus, device, function: 0 });
            if first.id().0 == NOBODY {
                continue;
            }
            let count = if first.header() & MULTI_FUNCTION != 0 { 8 } else { 1 };
            for function in
                (0..count).map(|function| Function::new(access, Address { bus, device, function }))
            {
                if function.id().0 == NOBODY {
                    continue;
                }
                if function.header() & !MULTI_FUNCTION == BRIDGE {
                    // Primary, secondary, subordinate bus.
                    buses.push((function.read(register::BUS_NUMBERS) >> 8) as u8);
                }
                found.push(function);
            }
        }
    }
    found
}

/// The vendor where there is no function.
const NOBODY: u16 = 0xffff;

#[cfg(test)]
mod tests {
    use super::{fake::FakeConfig, *};
    use std::format;

    #[test]
    fn functions_behind_bridges_are_found_once() {
        let config = FakeConfig::default();
        config.add(Address { bus: 0, device: 3, function: 0 }, 0x1af4, 0x1042);
        let bridge = Address { bus: 0, device: 4, function: 0 };
        config.add(bridge, 0x1b36, 1);
        config.set(bridge, 0x0c, 0x0001_0000);
        config.set(bridge, 0x18, 0x0001_0100);
        let behind = Address { bus: 1, device: 0, function: 0 };
        config.add(behind, 0x1af4, 0x1041);
        // A bridge that leads back to where the walk came from.
        config.set(behind, 0x0c, 0x0001_0000);
        config.set(behind, 0x18, 0x0000_0001);
        let found = functions(&config, 255);
        let found: Vec<_> = found.iter().map(|function| format!("{}", function.address())).collect();
        assert_eq!(found, ["00:03.0", "00:04.0", "01:00.0"]);
    }

    #[test]
    fn further_functions_are_looked_for_where_the_first_says_so() {
        let config = FakeConfig::default();
        for function in [0, 5] {
            config.add(Address { bus: 0, device: 1, function }, 1, 2);
        }
        assert_eq!(functions(&config, 255).len(), 1);
        config.set(Address { bus: 0, device: 1, function: 0 }, 0x0c, 0x0080_0000);
        assert_eq!(functions(&config, 255).len(), 2);
    }

    #[test]
    fn only_a_line_that_the_firmware_routed_is_believed() {
        let config = FakeConfig::default();
        let address = Address { bus: 0, device: 3, function: 0 };
        config.add(address, 1, 2);
        let function = Function::new(&config, address);
        for (register, line) in
            [(0x010b, Some(11)), (0x000b, None), (0x01ff, None), (0x0100, None), (0x0110, None)]
        {
            config.set(address, 0x3c, register);
            assert_eq!(function.interrupt_line(), line, "{register:#x}");
        }
        function.enable();
        function.enable_interrupt_line();
        assert_eq!(config.read(address, 4) & INTX_DISABLE, 0);
    }

    #[test]
    fn status_bits_are_left_alone_when_the_command_changes() {
        let config = FakeConfig::default();
        let address = Address { bus: 0, device: 3, function: 0 };
        config.add(address, 1, 2);
        config.set(address, 4, 0xf900_0001);
        Function::new(&config, address).enable();
        assert_eq!(config.read(address, 4), 0x0407);
    }
}
