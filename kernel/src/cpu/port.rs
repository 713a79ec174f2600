//! I/O ports of the legacy devices that drivers reach: which ports, and that reaching them is safe.
//! Neighbours: `crate::platform` (lends them to the drivers), `pv_ops` (the instructions).

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

    fn check(self, port: u16) {
        let Self { first, last } = self;
        assert!((first..=last).contains(&port), "port {port:#x} is not one of {first:#x} to {last:#x}");
    }
}
