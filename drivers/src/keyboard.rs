//! PS/2 keyboard behind an i8042 controller (IBM PS/2 Hardware Interface Technical Reference, "Keyboard and
//! Auxiliary Device Controller").
//!
//! The controller translates to scan code set 1, crate `pc-keyboard` turns that into keys of a US layout, and
//! [`Keyboard::read`] yields what a terminal would send for them. Neighbours: `hal`, [`class::Input`](Input).
#![forbid(unsafe_code)]

use pc_keyboard::{DecodedKey, HandleControl, KeyCode, PS2Keyboard, ScancodeSet1, layouts::Us104Key};

use crate::{Error, class::Input, hal::PortIo};

const DATA: u16 = 0x60;
const STATUS_COMMAND: u16 = 0x64;

/// Status: a byte waits in the data port.
const OUTPUT_FULL: u8 = 1 << 0;
/// Status: the controller has not yet taken what was written last.
const INPUT_FULL: u8 = 1 << 1;
/// Status: the byte in the data port comes from the second port, the mouse.
const OUTPUT_FROM_MOUSE: u8 = 1 << 5;

const READ_CONFIGURATION: u8 = 0x20;
const WRITE_CONFIGURATION: u8 = 0x60;
const DISABLE_MOUSE: u8 = 0xa7;
const TEST_CONTROLLER: u8 = 0xaa;
const TEST_KEYBOARD_PORT: u8 = 0xab;
const DISABLE_KEYBOARD: u8 = 0xad;
const ENABLE_KEYBOARD: u8 = 0xae;

const KEYBOARD_INTERRUPT: u8 = 1 << 0;
const MOUSE_INTERRUPT: u8 = 1 << 1;
const KEYBOARD_CLOCK_OFF: u8 = 1 << 4;
const TRANSLATE_TO_SET_1: u8 = 1 << 6;

/// To the keyboard: report keys.
const ENABLE_SCANNING: u8 = 0xf4;
const ACKNOWLEDGE: u8 = 0xfa;

/// Reads of the status register, about 1 µs each, that an answer may take.
const ANSWER_READS: u32 = 20_000;
/// Bytes that may wait in the controller: its output buffer and the keyboard's queue of 16.
const STALE_BYTES: usize = 32;

/// A keyboard that types like a terminal.
pub struct Keyboard<P: PortIo> {
    controller: Controller<P>,
    decoder: PS2Keyboard<Us104Key, ScancodeSet1>,
    /// The rest of a key that sends several bytes.
    pending: KeyBytes,
}

impl<P: PortIo> Keyboard<P> {
    /// Tests the controller and its keyboard port and enables the keyboard's interrupt.
    ///
    /// # Errors
    /// [`Error::NoController`], [`Error::ControllerSilent`], [`Error::ControllerAnswer`].
    pub fn probe(ports: P) -> Result<Self, Error> {
        let controller = Controller { ports };
        controller.set_up()?;
        let decoder = PS2Keyboard::new(ScancodeSet1::new(), Us104Key, HandleControl::MapLettersToUnicode);
        Ok(Self { controller, decoder, pending: KeyBytes::default() })
    }

    /// Takes one byte of what was typed. A character comes as UTF-8, backspace as 0x7f, enter as carriage
    /// return, Ctrl with a letter as a control character, an arrow as its ANSI escape sequence.
    pub fn read(&mut self) -> Option<u8> {
        loop {
            if let Some(byte) = self.pending.next() {
                return Some(byte);
            }
            let scan_code = self.controller.take_scan_code()?;
            // A byte that is no scan code was line noise.
            let Ok(Some(event)) = self.decoder.add_byte(scan_code) else { continue };
            if let Some(key) = self.decoder.process_keyevent(event) {
                self.pending = KeyBytes::of(key);
            }
        }
    }
}

impl<P: PortIo + Send> Input for Keyboard<P> {
    fn read(&mut self) -> Option<u8> {
        self.read()
    }
}

/// What a terminal sends for one key: at most four bytes.
#[derive(Clone, Copy, Debug, Default)]
struct KeyBytes {
    bytes: [u8; 4],
    next: u8,
    len: u8,
}

impl KeyBytes {
    fn of(key: DecodedKey) -> Self {
        let mut utf8 = [0; 4];
        let sent: &[u8] = match key {
            DecodedKey::Unicode('\n') => b"\r",
            DecodedKey::Unicode('\x08') => b"\x7f",
            DecodedKey::Unicode(character) => character.encode_utf8(&mut utf8).as_bytes(),
            DecodedKey::RawKey(KeyCode::ArrowUp) => b"\x1b[A",
            DecodedKey::RawKey(KeyCode::ArrowDown) => b"\x1b[B",
            DecodedKey::RawKey(KeyCode::ArrowRight) => b"\x1b[C",
            DecodedKey::RawKey(KeyCode::ArrowLeft) => b"\x1b[D",
            DecodedKey::RawKey(KeyCode::Home) => b"\x1b[H",
            DecodedKey::RawKey(KeyCode::End) => b"\x1b[F",
            DecodedKey::RawKey(_) => b"",
        };
        let mut bytes = [0; 4];
        bytes[..sent.len()].copy_from_slice(sent);
        Self { bytes, next: 0, len: sent.len() as u8 }
    }
}

impl Iterator for KeyBytes {
    type Item = u8;
    fn next(&mut self) -> Option<u8> {
        let byte = self.bytes[..usize::from(self.len)].get(usize::from(self.next)).copied()?;
        self.next += 1;
        Some(byte)
    }
}

/// The i8042.
struct Controller<P> {
    ports: P,
}

impl<P: PortIo> Controller<P> {
    fn set_up(&self) -> Result<(), Error> {
        let status = self.ports.read_u8(STATUS_COMMAND);
        if status == 0xff {
            return Err(Error::NoController { status });
        }
        // Quiet first: a key pressed now would be taken for an answer.
        self.command(DISABLE_KEYBOARD)?;
        self.command(DISABLE_MOUSE)?;
        for _ in 0..STALE_BYTES {
            if self.ports.read_u8(STATUS_COMMAND) & OUTPUT_FULL == 0 {
                break;
            }
            self.ports.read_u8(DATA);
        }

        self.expect(TEST_CONTROLLER, 0x55)?;
        self.expect(TEST_KEYBOARD_PORT, 0x00)?;
        // Read after the test, which some controllers take for a reset.
        self.command(READ_CONFIGURATION)?;
        let configuration = self.answer(READ_CONFIGURATION)?;
        self.command(WRITE_CONFIGURATION)?;
        self.write_data(
            configuration & !(KEYBOARD_CLOCK_OFF | MOUSE_INTERRUPT) | KEYBOARD_INTERRUPT | TRANSLATE_TO_SET_1,
        )?;
        self.command(ENABLE_KEYBOARD)?;

        self.write_data(ENABLE_SCANNING)?;
        check(ENABLE_SCANNING, self.answer(ENABLE_SCANNING)?, ACKNOWLEDGE)
    }

    fn take_scan_code(&self) -> Option<u8> {
        for _ in 0..STALE_BYTES {
            let status = self.ports.read_u8(STATUS_COMMAND);
            if status == 0xff || status & OUTPUT_FULL == 0 {
                return None;
            }
            let byte = self.ports.read_u8(DATA);
            if status & OUTPUT_FROM_MOUSE == 0 {
                return Some(byte);
            }
        }
        None
    }

    fn expect(&self, command: u8, expected: u8) -> Result<(), Error> {
        self.command(command)?;
        check(command, self.answer(command)?, expected)
    }

    fn command(&self, command: u8) -> Result<(), Error> {
        self.wait(command, |status| status & INPUT_FULL == 0)?;
        self.ports.write_u8(STATUS_COMMAND, command);
        Ok(())
    }

    fn write_data(&self, value: u8) -> Result<(), Error> {
        self.wait(value, |status| status & INPUT_FULL == 0)?;
        self.ports.write_u8(DATA, value);
        Ok(())
    }

    fn answer(&self, command: u8) -> Result<u8, Error> {
        self.wait(command, |status| status & OUTPUT_FULL != 0)?;
        Ok(self.ports.read_u8(DATA))
    }

    fn wait(&self, command: u8, ready: impl Fn(u8) -> bool) -> Result<(), Error> {
        (0..ANSWER_READS)
            .any(|_| ready(self.ports.read_u8(STATUS_COMMAND)))
            .then_some(())
            .ok_or(Error::ControllerSilent { command, reads: ANSWER_READS })
    }
}

fn check(command: u8, found: u8, expected: u8) -> Result<(), Error> {
    if found == expected { Ok(()) } else { Err(Error::ControllerAnswer { command, found, expected }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{EmptyBus, FakeController};
    use proptest::prelude::*;

    fn typed(scan_codes: &[u8]) -> Vec<u8> {
        let controller = FakeController::default();
        let mut keyboard = Keyboard::probe(&controller).unwrap();
        controller.press(scan_codes);
        core::iter::from_fn(|| keyboard.read()).collect()
    }

    #[test]
    fn letters_come_as_typed_with_shift() {
        assert_eq!(typed(&[0x23, 0xa3, 0x2a, 0x17, 0x97, 0xaa, 0x02, 0x82]), b"hI1");
    }

    #[test]
    fn control_and_editing_keys_come_as_a_terminal_sends_them() {
        assert_eq!(typed(&[0x1d, 0x2e, 0xae, 0x9d]), b"\x03", "Ctrl-C");
        assert_eq!(typed(&[0x1c, 0x9c]), b"\r", "enter");
        assert_eq!(typed(&[0x0e, 0x8e]), b"\x7f", "backspace");
        assert_eq!(typed(&[0xe0, 0x48, 0xe0, 0xc8]), b"\x1b[A", "arrow up");
        assert_eq!(typed(&[0x3b, 0xbb]), b"", "F1");
    }

    #[test]
    fn probing_enables_the_interrupt_and_the_translation() {
        let controller = FakeController::default();
        assert!(Keyboard::probe(&controller).is_ok());
        assert_eq!(controller.configuration.get(), KEYBOARD_INTERRUPT | TRANSLATE_TO_SET_1);
    }

    #[test]
    fn keys_pressed_before_probing_are_not_taken_for_answers() {
        let controller = FakeController::default();
        controller.press(&[0x1e, 0x9e]);
        assert!(Keyboard::probe(&controller).is_ok());
    }

    #[test]
    fn an_absent_controller_is_an_error() {
        assert_eq!(Keyboard::probe(&EmptyBus).err(), Some(Error::NoController { status: 0xff }));
    }

    #[test]
    fn a_failing_or_silent_controller_is_an_error() {
        let controller = FakeController::default();
        controller.self_test.set(Some(0xfc));
        let failed = Error::ControllerAnswer { command: TEST_CONTROLLER, found: 0xfc, expected: 0x55 };
        assert_eq!(Keyboard::probe(&controller).err(), Some(failed));
        controller.self_test.set(None);
        let silent = Error::ControllerSilent { command: TEST_CONTROLLER, reads: ANSWER_READS };
        assert_eq!(Keyboard::probe(&controller).err(), Some(silent));
    }

    #[test]
    fn a_controller_without_a_keyboard_is_an_error() {
        let controller = FakeController::default();
        controller.keyboard_answer.set(None);
        let silent = Error::ControllerSilent { command: ENABLE_SCANNING, reads: ANSWER_READS };
        assert_eq!(Keyboard::probe(&controller).err(), Some(silent));
    }

    proptest! {
        #[test]
        fn any_bytes_from_the_device_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            typed(&bytes);
        }
    }
}
