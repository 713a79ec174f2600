//! What the kernel sees of a device, whatever drives it.
#![forbid(unsafe_code)]

/// Something that shows text, and may take some.
pub trait Console: Send {
    /// A short name for log lines, such as `serial`.
    fn name(&self) -> &'static str;

    /// Shows `bytes`: UTF-8 text whose lines end in `\n`; the driver adds the carriage return where its device
    /// needs one. Bytes that the device does not take in a bounded time are dropped.
    fn write(&mut self, bytes: &[u8]);

    /// Waits, for a bounded time, until everything written has left the device.
    fn flush(&mut self) {}

    /// Takes one byte that the device has received, if there is one. Never waits.
    fn read(&mut self) -> Option<u8> {
        None
    }
}

/// Something that only yields text: a keyboard.
pub trait Input: Send {
    /// Takes one byte of what was typed, if there is one. Never waits.
    fn read(&mut self) -> Option<u8>;
}
