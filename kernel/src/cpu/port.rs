//! I/O ports of the legacy devices that drivers reach: which ports, and that reaching them is safe.
//! Neighbours: `crate::platform` (lends them to the drivers), `pv_ops` (the instructions).

use crate::sync::IrqMutex;
use core::ops::RangeInclusive;

/// The ports of one device, which can harm nothing but that device.
///
/// There is one constant for each device that qualifies, and no other way to make a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    first: u16,
    last: u16,
}

impl Ports {
    /// The UART that PCs call COM1: moves bytes over a line, knows no memory.
    pub const COM1: Self = Self::new(0x3f8..=0x3ff);
    /// The i8042's data and command ports. Its outputs can reset the CPU, which ends the program, and on old PCs
    /// switch address line 20 off; `drivers::keyboard` writes neither, and nobody else is lent these ports.
    pub const I8042: Self = Self::new(0x60..=0x64);
    /// Index and data of the CMOS clock: a few bytes of its own memory.
    pub const CMOS: Self = Self::new(0x70..=0x71);
    /// The registers of a VGA, which has memory of its own only.
    pub const VGA: Self = Self::new(0x3c0..=0x3df);
    /// Where firmware shows how far it has come; a display at most.
    pub const PROGRESS: Self = Self::new(0x80..=0x80);

    /// The device of our own machine monitor that sends messages where the guest wants them: it interrupts, no more.
    #[cfg(all(feature = "self-test", target_os = "none"))]
    pub(crate) const MESSAGES: Self = Self::new(0x608..=0x60c);

    const fn new(ports: RangeInclusive<u16>) -> Self {
        Self { first: *ports.start(), last: *ports.end() }
    }

    /// Reads a byte. Without a device the value is 0xff.
    ///
    /// # Panics
    /// If `port` is none of these ports.
    pub fn read_u8(self, port: u16) -> u8 {
        self.check(port);
        // SAFETY: The port belongs to a device that can harm nothing but itself: every constant says why, and
        // there are no other values.
        unsafe { pv_ops::port_in8(port) }
    }

    /// Writes a byte.
    ///
    /// # Panics
    /// If `port` is none of these ports.
    pub fn write_u8(self, port: u16, value: u8) {
        self.check(port);
        // SAFETY: As in `read_u8`.
        unsafe { pv_ops::port_out8(port, value) }
    }

    /// Writes `bytes` to one port, one after the other.
    ///
    /// # Panics
    /// If `port` is none of these ports.
    pub fn write_bytes(self, port: u16, bytes: &[u8]) {
        self.check(port);
        // SAFETY: As in `read_u8`; the bytes are a slice's.
        unsafe { pv_ops::port_out8_many(port, bytes.as_ptr(), bytes.len() as u64) }
    }

    fn check(self, port: u16) {
        let Self { first, last } = self;
        assert!((first..=last).contains(&port), "port {port:#x} is not one of {first:#x} to {last:#x}");
    }
}

/// The ports of PCI configuration mechanism #1, 0xcf8 and 0xcfc, and nothing else.
///
/// Who writes a function's configuration decides which memory it answers in and whether it accesses memory; drivers
/// are trusted with that, as they are with the addresses that they tell their devices.
#[derive(Debug)]
pub struct PciPorts(IrqMutex<()>);

impl PciPorts {
    /// The machine's only pair of them.
    pub const fn new() -> Self {
        Self(IrqMutex::new(()))
    }

    /// Selects a register by `address`, then reads it, or writes `value` to it.
    pub fn exchange(&self, address: u32, value: Option<u32>) -> u32 {
        const CONFIG_ADDRESS: u16 = 0xcf8;
        const CONFIG_DATA: u16 = 0xcfc;
        let _pair = self.0.lock();
        // SAFETY: the address port only selects what the data port stands for.
        unsafe { pv_ops::port_out32(CONFIG_ADDRESS, address) };
        match value {
            // SAFETY: reading the configuration has no effect.
            None => unsafe { pv_ops::port_in32(CONFIG_DATA) },
            Some(value) => {
                // SAFETY: see the type: what a driver writes to its function is its own affair.
                unsafe { pv_ops::port_out32(CONFIG_DATA, value) };
                value
            }
        }
    }
}

impl Default for PciPorts {
    fn default() -> Self {
        Self::new()
    }
}
