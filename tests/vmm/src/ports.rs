//! The ports that are there: COM1, the exit port, and what switches off and resets.

use anyhow::Result;

use crate::messages::{self, Messages};
use crate::report::End;
use crate::serial::Com1;

/// QEMU's `isa-debug-exit`.
const EXIT_PORT: u16 = 0xf4;
/// The sleep control register (ACPI 6.5 §4.8.3.7), and the sleep type that switches off.
pub(crate) const SLEEP_PORT: u16 = 0x600;
pub(crate) const SLEEP_TYPE: u8 = 5;
const SLEEP_ENABLE: u8 = 1 << 5;
/// The FADT's reset register.
pub(crate) const RESET_PORT: u16 = 0x602;
pub(crate) const RESET_VALUE: u8 = 1;
/// The keyboard controller's command port, of which only "pulse the CPU's reset line" is there.
const I8042_COMMAND: u16 = 0x64;
const I8042_RESET: u8 = 0xfe;
/// The reset control register of PC chipsets; bit 2 resets.
const CHIPSET_RESET: u16 = 0xcf9;
/// What a port answers that nobody listens at.
pub(crate) const NOBODY: u8 = 0xff;

/// The machine's ports.
pub(crate) struct Ports {
    com1: Com1,
    messages: Option<Messages>,
}

impl Ports {
    pub(crate) fn new(com1: Com1, messages: Option<Messages>) -> Self {
        Self { com1, messages }
    }

    /// A guest writes `data` to `port`; the end of the guest if that is what it means.
    ///
    /// # Errors
    /// The serial line is broken.
    pub(crate) fn write(&self, port: u16, data: &[u8]) -> Result<Option<End>> {
        let value = data.first().copied().unwrap_or_default();
        if let Some(register) = Com1::register(port) {
            for byte in data {
                self.com1.write(register, *byte)?;
            }
            return Ok(None);
        }
        if let Some(messages) = self.messages.as_ref().filter(|_| Messages::is_at(port)) {
            return messages.write(port, value).map(|()| None);
        }
        Ok(match (port, value) {
            (EXIT_PORT, status) => Some(End::Status(status)),
            (SLEEP_PORT, value) if value & SLEEP_ENABLE != 0 && value >> 2 & 7 == SLEEP_TYPE => {
                Some(End::PowerOff)
            }
            (RESET_PORT, RESET_VALUE) | (I8042_COMMAND, I8042_RESET) => Some(End::Reset),
            (CHIPSET_RESET, value) if value & 1 << 2 != 0 => Some(End::Reset),
            _ => None,
        })
    }

    /// A guest reads `port`.
    pub(crate) fn read(&self, port: u16, data: &mut [u8]) {
        data.fill(NOBODY);
        if let Some(register) = Com1::register(port) {
            data.iter_mut().for_each(|byte| *byte = self.com1.read(register));
        } else if self.messages.is_some() && Messages::is_at(port) {
            data.fill(messages::PRESENT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_apart() {
        let ports = Ports::new(Com1::new(crate::serial::Out::default()).unwrap(), None);
        let end = |port, byte| ports.write(port, &[byte]).unwrap();
        assert_eq!(end(0xf4, 16), Some(End::Status(16)));
        assert_eq!(end(0x600, 5 << 2 | 1 << 5), Some(End::PowerOff));
        assert_eq!([end(0x602, 1), end(0x64, 0xfe), end(0xcf9, 6)], [const { Some(End::Reset) }; 3]);
        assert_eq!([end(0x600, 5 << 2), end(0x602, 0), end(0x64, 0xff), end(0x80, 0)], [const { None }; 4]);
    }

    #[test]
    fn nobody_answers_with_ones() {
        let ports = Ports::new(Com1::new(crate::serial::Out::default()).unwrap(), None);
        let mut data = [0; 4];
        ports.read(0xcfc, &mut data);
        assert_eq!(data, [0xff; 4]);
    }
}
