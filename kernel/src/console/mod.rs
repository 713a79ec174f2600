//! The console: text out to every console device, text in from every keyboard and line.
//!
//! Output works from the first instruction on: until a serial device is registered it goes to the early console
//! of pv-ops, which needs nothing. What was written is kept in a ring of 8 KiB, so that a device which is found
//! later, a screen, shows how the guest started. Input is pushed by interrupt handlers, and awaited.
//!
//! Nothing here waits for a lock for ever: who cannot have it, a panic or a handler inside a write, writes to
//! the early console past it. Neighbours: `log` (lines), `devices` (registers what it finds), `drivers::class`.
#![forbid(unsafe_code)]

mod input;
mod line;
mod output;

use alloc::boxed::Box;
use core::{
    fmt::{self, Write},
    sync::atomic::{AtomicU32, Ordering},
};

use drivers::class::{Console, Input};

pub use input::{ReadByte, listen, lost, read_byte};
pub use line::{ReadLineError, read_line};
pub use output::Kind;
use output::{KINDS, Outputs};

use crate::{
    cpu::{this_cpu, tlb},
    sync::{IrqMutex, IrqState},
};

/// Devices that take or yield text.
static OUTPUTS: IrqMutex<Outputs> = IrqMutex::new(Outputs::new());
static KEYBOARDS: IrqMutex<Option<Box<dyn Input>>> = IrqMutex::new(None);

/// Bytes taken from one device in one interrupt: four times the FIFO of a 16550. A device that goes on for ever
/// does not hold up the CPU.
const READ_BURST: usize = 64;

/// Tries to get the lock that a write makes before it goes past it, and how long it waits for another CPU's write.
const PATIENCE: u32 = 100_000;
const PATIENCE_NS: u64 = 1_000_000_000;
/// The number of the CPU that writes, plus one; 0 if none does.
static WRITER: AtomicU32 = AtomicU32::new(0);

/// Takes the choice of consoles from the command line: `console=serial`, `vga`, `hvc`, `none` or `all`, several
/// with commas or several times. Whatever is not chosen stays silent from here on.
pub fn init(cmdline: &boot::CommandLine) {
    let mut chosen = None;
    for word in cmdline.values("console").flat_map(|value| value.split(',')) {
        let kinds: &[Kind] = match word {
            "serial" => &[Kind::Serial],
            "vga" => &[Kind::Screen],
            "hvc" => &[Kind::Hypervisor],
            "all" => &[Kind::Serial, Kind::Screen, Kind::Hypervisor],
            "none" => &[],
            _ => {
                log::warn!("console={word} is unknown, expected serial, vga, hvc, none or all: ignored");
                continue;
            }
        };
        chosen.get_or_insert([false; KINDS]);
        if let Some(chosen) = &mut chosen {
            kinds.iter().for_each(|&kind| chosen[kind as usize] = true);
        }
    }
    if let Some(chosen) = chosen {
        OUTPUTS.lock().choose(chosen);
    }
}

/// Whether the command line wants devices of this kind.
pub fn is_chosen(kind: Kind) -> bool {
    OUTPUTS.lock().is_chosen(kind)
}

/// Adds a device. A serial device takes over from the early console, the others show what has been written so far.
pub fn register(console: Box<dyn Console>, kind: Kind) {
    OUTPUTS.lock().add(console, kind);
}

/// Adds the keyboard.
pub fn register_keyboard(keyboard: Box<dyn Input>) {
    *KEYBOARDS.lock() = Some(keyboard);
}

/// Writes UTF-8 text to every console as one piece. Lines end in `\n`.
pub fn write_bytes(bytes: &[u8]) {
    // A write of this CPU's own that was cut off would not end, one of another's does.
    let _here = IrqState::disable();
    let this = this_cpu() + 1;
    let start_ns = pv_ops::monotonic_ns();
    let waited = |tries| match WRITER.load(Ordering::Relaxed) {
        writer if writer == this => tries > PATIENCE,
        _ if tries < PATIENCE => false,
        // Before there is a clock, tries must do.
        _ => tries > 100 * PATIENCE || pv_ops::monotonic_ns().saturating_sub(start_ns) > PATIENCE_NS,
    };
    for tries in 0_u32.. {
        if let Some(mut outputs) = OUTPUTS.try_lock() {
            WRITER.store(this, Ordering::Relaxed);
            outputs.write(bytes);
            WRITER.store(0, Ordering::Relaxed);
            return;
        }
        if waited(tries) {
            break;
        }
        tlb::poll();
        core::hint::spin_loop();
    }
    pv_ops::console_write(bytes);
}

/// Writes past every lock, for a panic: to the early console, and to what that does not reach if it is free. Never waits.
pub fn write_emergency(bytes: &[u8]) {
    pv_ops::console_write(bytes);
    if let Some(mut outputs) = OUTPUTS.try_lock() {
        outputs.write_past_early(bytes);
    }
}

/// Waits, for a bounded time, until everything written has left the devices.
pub fn flush() {
    if let Some(mut outputs) = OUTPUTS.try_lock() {
        outputs.flush();
    }
}

/// Runs `test` while nothing is written, and nothing is on its way out.
#[cfg(all(feature = "self-test", target_os = "none"))]
pub(crate) fn silently(test: impl FnOnce()) {
    let mut outputs = OUTPUTS.lock();
    outputs.flush();
    test();
}

/// Writes formatted text: what [`print!`](crate::print) calls.
pub fn print(text: fmt::Arguments<'_>) {
    let mut pieces = Pieces { bytes: [0; PIECE_BYTES], len: 0 };
    // Its `write_str` does not fail, and what a `Display` returns is not ours to report.
    let _ = pieces.write_fmt(text);
    pieces.send();
}

/// Prints formatted text on the console.
#[macro_export]
macro_rules! print {
    ($($text:tt)*) => { $crate::console::print(format_args!($($text)*)) };
}

/// Prints formatted text and a line end on the console.
#[macro_export]
macro_rules! println {
    () => { $crate::console::print(format_args!("\n")) };
    ($($text:tt)*) => { $crate::console::print(format_args!("{}\n", format_args!($($text)*))) };
}

/// Called by the interrupt handlers of serial devices and keyboards: takes what they have received.
pub fn on_receive() {
    let mut received = heapless::Vec::<u8, { 2 * READ_BURST }>::new();
    OUTPUTS.lock().read(&mut received, READ_BURST);
    if let Some(keyboard) = &mut *KEYBOARDS.lock() {
        received.extend(core::iter::from_fn(|| keyboard.read()).take(READ_BURST));
    }
    input::push(&received);
}

/// Bytes gathered before they are written: a line of ordinary length comes out whole.
const PIECE_BYTES: usize = 256;

/// Gathers what a formatter hands over in crumbs.
struct Pieces {
    bytes: [u8; PIECE_BYTES],
    len: usize,
}

impl Pieces {
    fn send(&mut self) {
        if self.len > 0 {
            write_bytes(&self.bytes[..self.len]);
            self.len = 0;
        }
    }
}

impl Write for Pieces {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            if self.len == PIECE_BYTES {
                self.send();
            }
            self.bytes[self.len] = byte;
            self.len += 1;
        }
        Ok(())
    }
}
