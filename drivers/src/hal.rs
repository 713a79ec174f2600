//! What a driver asks of its caller: access to I/O ports.
#![forbid(unsafe_code)]

/// Byte access to the I/O ports of one device.
///
/// An implementation reaches the ports of the device it was made for and no others, so a driver that holds one
/// can do to the machine what that device can do, and no more.
pub trait PortIo {
    /// Reads a byte from `port`. Where no device answers, a PC reads 0xff.
    #[doc(alias = "inb")]
    fn read_u8(&self, port: u16) -> u8;

    /// Writes `value` to `port`.
    #[doc(alias = "outb")]
    fn write_u8(&self, port: u16, value: u8);
}

impl<P: PortIo + ?Sized> PortIo for &P {
    fn read_u8(&self, port: u16) -> u8 {
        (**self).read_u8(port)
    }

    fn write_u8(&self, port: u16, value: u8) {
        (**self).write_u8(port, value);
    }
}
