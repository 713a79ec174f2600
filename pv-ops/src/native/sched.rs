//! The end of the guest, and the console that needs no driver.
//! Neighbours: the kernel's `power` (ACPI) and serial driver, which take over where this ends.

use crate::word::{Answer, Shutdown};
use core::sync::atomic::{AtomicU8, Ordering};

/// QEMU's `isa-debug-exit` device: a write of v ends QEMU with status 2 v + 1.
const DEBUG_EXIT: u16 = 0xf4;
/// Added to the guest's status, so that success is not a status that QEMU itself ends with.
const DEBUG_EXIT_BASE: u32 = 16;
/// Reset control register of PCI chipsets (ICH9 datasheet §13.7.5): bit 1 full reset, bit 2 on its rising edge.
const RESET_CONTROL: u16 = 0xcf9;
/// Command port of the keyboard controller; command 0xfe pulses the reset line.
const KEYBOARD_COMMAND: u16 = 0x64;

pub(super) extern "sysv64" fn shutdown(how: u64) {
    match Shutdown::from_word(how) {
        Shutdown::PowerOff => {}
        Shutdown::Exit(status) => debug_exit(status),
        Shutdown::Reboot => {
            write8(RESET_CONTROL, 0x02);
            write8(RESET_CONTROL, 0x06);
            write8(KEYBOARD_COMMAND, 0xfe);
        }
    }
}

/// Ends QEMU with this status, where it has the device.
pub(crate) fn debug_exit(status: u8) {
    write32(DEBUG_EXIT, DEBUG_EXIT_BASE + u32::from(status));
}

/// First serial port, 16550 (its registers are offsets from here).
const COM1: u16 = 0x3f8;
const INTERRUPT_ENABLE: u16 = COM1 + 1;
/// Written: FIFO control; read: interrupt identification, whose upper two bits are set while there are FIFOs.
const FIFO_CONTROL: u16 = COM1 + 2;
const FIFOS: u8 = 0xc0;
const LINE_CONTROL: u16 = COM1 + 3;
const MODEM_CONTROL: u16 = COM1 + 4;
const LINE_STATUS: u16 = COM1 + 5;
const SCRATCH: u16 = COM1 + 7;
const DATA_READY: u8 = 1 << 0;
const TRANSMITTER_EMPTY: u8 = 1 << 5;
/// Bytes handed to an empty FIFO of 16: two are left for one that is emptier than it says, as some emulations are.
const BURST: usize = 14;
/// Bochs' and QEMU's debug port; reads as its own number where it is there.
const DEBUG_PORT: u16 = 0xe9;
/// Polls of the line status before a byte is given up and the port with it: far above the 87 us of a byte.
const PATIENCE_POLLS: u32 = 200_000;

/// Which console was found: `UNKNOWN` until the first text.
static CONSOLE: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = 0;
const NONE: u8 = 1;
const SERIAL: u8 = 2;
const SERIAL_WITH_FIFO: u8 = 3;
const DEBUG: u8 = 4;

/// # Safety
/// `text` is valid for `len_bytes` bytes.
pub(super) unsafe extern "sysv64" fn console_write(text: *const u8, len_bytes: u64) {
    // SAFETY: the caller's promise.
    let text = unsafe { core::slice::from_raw_parts(text, len_bytes as usize) };
    if CONSOLE.load(Ordering::Relaxed) == UNKNOWN {
        CONSOLE.store(find_console(), Ordering::Relaxed);
    }
    match CONSOLE.load(Ordering::Relaxed) {
        SERIAL => send(text, 1),
        SERIAL_WITH_FIFO => send(text, BURST),
        DEBUG => write_many(DEBUG_PORT, text),
        _ => {}
    }
}

/// Sends text over the serial line, `burst` bytes at a time; a line feed with the carriage return that a terminal needs
/// before it.
fn send(text: &[u8], burst: usize) {
    let mut bytes = [0; BURST];
    let mut len = 0;
    let mut rest = text.iter().copied();
    let mut next = rest.next();
    let mut returned = false;
    while let Some(byte) = next {
        returned = byte == b'\n' && !returned;
        bytes[len] = if returned { b'\r' } else { byte };
        len += 1;
        if !returned {
            next = rest.next();
        }
        if len == burst || next.is_none() {
            if !transmitter_is_empty() {
                return CONSOLE.store(NONE, Ordering::Relaxed);
            }
            write_many(COM1, &bytes[..len]);
            len = 0;
        }
    }
}

/// A serial port keeps what is written to its scratch register; where there is none, ports read as all ones.
/// The FIFO is not switched on, which empties it, when somebody has typed before there was a driver.
fn find_console() -> u8 {
    write8(SCRATCH, 0x5a);
    let first = read8(SCRATCH);
    write8(SCRATCH, 0xa5);
    if (first, read8(SCRATCH)) == (0x5a, 0xa5) {
        write8(INTERRUPT_ENABLE, 0);
        write8(LINE_CONTROL, 0x80); // divisor latch
        write8(COM1, 1); // 115200 baud
        write8(INTERRUPT_ENABLE, 0);
        write8(LINE_CONTROL, 0x03); // 8 bits, no parity, 1 stop bit
        write8(MODEM_CONTROL, 0x03); // DTR, RTS
        if read8(LINE_STATUS) & DATA_READY == 0 {
            write8(FIFO_CONTROL, 1);
        }
        if read8(FIFO_CONTROL) & FIFOS == FIFOS { SERIAL_WITH_FIFO } else { SERIAL }
    } else if read8(DEBUG_PORT) == DEBUG_PORT as u8 {
        DEBUG
    } else {
        NONE
    }
}

fn transmitter_is_empty() -> bool {
    (0..PATIENCE_POLLS).any(|_| read8(LINE_STATUS) & TRANSMITTER_EMPTY != 0)
}

/// Only for the ports above.
fn read8(port: u16) -> u8 {
    // SAFETY: status and scratch registers of a serial port, and a debug port: reading changes nothing.
    unsafe { crate::port_in8(port) }
}

/// Only for the ports above.
fn write8(port: u16, value: u8) {
    // SAFETY: a serial port without DMA or interrupts, a debug port, or the reset that was asked for.
    unsafe { crate::port_out8(port, value) }
}

/// Only for the ports above.
fn write_many(port: u16, bytes: &[u8]) {
    // SAFETY: a serial port or a debug port; the bytes are a slice's.
    unsafe { crate::port_out8_many(port, bytes.as_ptr(), bytes.len() as u64) }
}

/// Only for the exit port.
fn write32(port: u16, value: u32) {
    // SAFETY: ends the guest, as was asked for, or goes to no device.
    unsafe { crate::port_out32(port, value) }
}
