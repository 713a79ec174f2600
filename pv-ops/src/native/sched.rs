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
const LINE_CONTROL: u16 = COM1 + 3;
const MODEM_CONTROL: u16 = COM1 + 4;
const LINE_STATUS: u16 = COM1 + 5;
const SCRATCH: u16 = COM1 + 7;
const TRANSMITTER_EMPTY: u8 = 1 << 5;
/// Bochs' and QEMU's debug port; reads as its own number where it is there.
const DEBUG_PORT: u16 = 0xe9;
/// Polls of the line status before a byte is given up and the port with it: far above the 87 us of a byte.
const PATIENCE_POLLS: u32 = 200_000;

/// Which console was found: `UNKNOWN` until the first text.
static CONSOLE: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = 0;
const NONE: u8 = 1;
const SERIAL: u8 = 2;
const DEBUG: u8 = 3;

/// # Safety
/// `text` is valid for `len_bytes` bytes.
pub(super) unsafe extern "sysv64" fn console_write(text: *const u8, len_bytes: u64) {
    // SAFETY: the caller's promise.
    let text = unsafe { core::slice::from_raw_parts(text, len_bytes as usize) };
    if CONSOLE.load(Ordering::Relaxed) == UNKNOWN {
        CONSOLE.store(find_console(), Ordering::Relaxed);
    }
    for byte in text {
        match CONSOLE.load(Ordering::Relaxed) {
            SERIAL => send(*byte),
            DEBUG => write8(DEBUG_PORT, *byte),
            _ => return,
        }
    }
}

/// Sends a byte over the serial line; a line feed with the carriage return that a terminal needs before it.
fn send(byte: u8) {
    let with_return = [b'\r', byte];
    for &byte in if byte == b'\n' { &with_return[..] } else { &with_return[1..] } {
        if !transmitter_is_empty() {
            return CONSOLE.store(NONE, Ordering::Relaxed);
        }
        write8(COM1, byte);
    }
}

/// A serial port keeps what is written to its scratch register; where there is none, ports read as all ones.
/// The FIFO stays as it is: to switch it would throw away what somebody typed before there was a driver.
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
        SERIAL
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

/// Only for the exit port.
fn write32(port: u16, value: u32) {
    // SAFETY: ends the guest, as was asked for, or goes to no device.
    unsafe { crate::port_out32(port, value) }
}
