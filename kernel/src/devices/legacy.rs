//! The emulated hardware of a PC: serial line, screen, keyboard, clock.
//!
//! Each is missing on some machine, so "absent" is an ordinary answer, told at level debug. What is found is told in
//! one sentence. Neighbours: `drivers` (how each is driven), `console`, `cpu::port`, `mm::mmio`.
#![forbid(unsafe_code)]

use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, Ordering};

use drivers::{
    class::Console,
    keyboard::Keyboard,
    rtc::{self, DateTime},
    serial::{COM1, Serial},
    text::{CrtController, Format, Framebuffer, Surface, TextConsole, VGA_MEMORY, VgaText},
};

use super::{Failure, failure};
use crate::{
    acpi::{self, fadt::BootFlags},
    console::{self, Kind},
    cpu::port::Ports,
    irq::{self, Irq},
    mm::{Caching, mmio},
    xen,
};

/// The interrupts of COM1 and of the keyboard on the ISA bus, by PC convention.
const COM1_IRQ: u8 = 4;
const KEYBOARD_IRQ: u8 = 1;

fn boot_flags() -> BootFlags {
    acpi::tables().fadt.as_ref().map(|fadt| fadt.boot_flags).unwrap_or_default()
}

/// Finds the screen, unless the command line does not want it. Until somebody reads, text needs no more than that and the
/// early console.
pub(super) fn probe(info: &boot::Info) {
    xen::probe();
    if console::is_chosen(Kind::Screen) {
        match info.framebuffer {
            // The loader said that there is one, so that it cannot be used is worth a warning.
            Some(told) => framebuffer(told).unwrap_or_else(|error| log::warn!("no screen: {error}")),
            None if boot_flags().contains(BootFlags::NO_VGA) => {
                log::debug!("no screen: ACPI says there is no VGA")
            }
            None => vga().unwrap_or_else(|error| log::debug!("no screen: {error}")),
        }
    }
}

/// Brings up, once, the serial line and the keyboard of the consoles that the command line wants: their set-up is dozens of
/// exits in a guest, which one that only writes does without.
pub(super) fn bring_up_inputs() {
    static DONE: AtomicBool = AtomicBool::new(false);
    if DONE.swap(true, Ordering::Relaxed) {
        return;
    }
    if console::is_chosen(Kind::Serial)
        && let Err(error) = serial()
    {
        log::debug!("no serial console: {error}");
    }
    if console::is_chosen(Kind::Screen) {
        keyboard().unwrap_or_else(|error| log::debug!("no keyboard: {error}"));
    }
    // Bytes that came before their interrupt was let through raise no second one.
    console::on_receive();
}

/// Sets the wall clock, once, if there is a clock chip.
pub(super) fn read_clock() {
    static DONE: AtomicBool = AtomicBool::new(false);
    if DONE.swap(true, Ordering::Relaxed) {
        return;
    }
    if boot_flags().contains(BootFlags::NO_CMOS_RTC) {
        log::debug!("no clock: ACPI says there is no CMOS clock");
    } else {
        clock().unwrap_or_else(|error| log::debug!("no clock: {error}"));
    }
}

fn serial() -> Result<(), Failure> {
    let mut serial = Serial::probe(Ports::COM1, COM1, "serial").map_err(failure)?;
    let input = receive_interrupt(COM1_IRQ, "serial");
    if input {
        serial.enable_receive_interrupt();
    }
    console::register(Box::new(serial), Kind::Serial);
    let direction = if input { "in and out" } else { "out only" };
    log::info!("serial: 16550 at port {COM1:#x}, 115200 baud, {direction}");
    Ok(())
}

fn framebuffer(told: boot::Framebuffer) -> Result<(), Failure> {
    let boot::Framebuffer { address, width, height, pitch_bytes, bytes_per_pixel, rgb_shift } = told;
    let format = Format { width, height, pitch_bytes, bytes_per_pixel, rgb_shift };
    let len_bytes = format.len_bytes().map_err(failure)?;
    let memory = mmio::device(address, len_bytes, Caching::WriteCombining).map_err(failure)?;
    let framebuffer = Framebuffer::new(memory, format).map_err(failure)?;
    let (columns, rows) = framebuffer.size();
    screen(Box::new(framebuffer))?;
    log::info!(
        "framebuffer at {address:#x}: {width} x {height} pixels of {} bits, {columns} x {rows} characters",
        bytes_per_pixel * 8
    );
    Ok(())
}

fn vga() -> Result<(), Failure> {
    let controller = CrtController::probe(Ports::VGA).map_err(failure)?;
    let (address, len_bytes) = VGA_MEMORY;
    let memory = mmio::device(address, len_bytes, Caching::Uncached).map_err(failure)?;
    let vga = VgaText::new(memory, controller).map_err(failure)?;
    let (columns, rows) = vga.size();
    screen(Box::new(vga))?;
    log::info!("vga at {address:#x}: text mode, {columns} x {rows} characters");
    Ok(())
}

fn screen(surface: Box<dyn Surface>) -> Result<(), Failure> {
    let console: Box<dyn Console> = Box::new(TextConsole::new(surface).map_err(failure)?);
    console::register(console, Kind::Screen);
    Ok(())
}

fn keyboard() -> Result<(), Failure> {
    let keyboard = Keyboard::probe(Ports::I8042).map_err(failure)?;
    console::register_keyboard(Box::new(keyboard));
    if receive_interrupt(KEYBOARD_IRQ, "keyboard") {
        log::info!("keyboard: i8042 at port 0x60, PS/2, US layout");
    }
    Ok(())
}

/// Lets a device's interrupt fetch what it has received; false if it has none.
fn receive_interrupt(number: u8, name: &'static str) -> bool {
    match irq::register(Irq::Isa(number), name, console::on_receive) {
        Ok(_) => true,
        Err(error) => {
            log::warn!("{name}: no input: interrupt {number}: {error}");
            false
        }
    }
}

/// Sets the wall clock from the CMOS clock.
fn clock() -> Result<(), Failure> {
    let century = acpi::tables().fadt.and_then(|fadt| fadt.century);
    let now: DateTime = rtc::read(&Ports::CMOS, century).map_err(failure)?;
    pv_ops::native::time::set_wall(now.to_unix() * 1_000_000_000);
    log::info!("clock: CMOS says {now} UTC");
    Ok(())
}

crate::kernel_test! {
    /// The whole road of a byte: UART, I/O APIC, handler, queue, task. The UART's loop-back mode plays the sender
    /// (PC16550D §8.6.6).
    async fn a_byte_from_the_serial_line_comes_by_interrupt() {
        const TRANSMIT: u16 = COM1;
        const MODEM_CONTROL: u16 = COM1 + 4;
        const LOOP_BACK: u8 = 1 << 4;
        bring_up_inputs();
        if !irq::counts().any(|count| count.name == "serial") {
            crate::skip!("no serial interrupt");
        }
        let modem_control = Ports::COM1.read_u8(MODEM_CONTROL);
        console::silently(|| {
            Ports::COM1.write_u8(MODEM_CONTROL, modem_control | LOOP_BACK);
            Ports::COM1.write_u8(TRANSMIT, b'!');
            Ports::COM1.write_u8(MODEM_CONTROL, modem_control);
        });
        let until_it_comes = async { while console::read_byte().await != b'!' {} };
        assert!(crate::task::timeout(core::time::Duration::from_secs(1), until_it_comes).await.is_ok());
    }
}

crate::kernel_test! {
    /// The clock chip was read, and the date lies after the one on which this was written.
    fn the_wall_clock_shows_a_date_of_this_century() {
        let Some(now) = crate::time::wall() else { crate::skip!("this machine has no clock") };
        assert!(now.as_secs() > DateTime { year: 2026, month: 11, day: 1, hour: 0, minute: 0, second: 0 }.to_unix());
        assert!(now.as_secs() < DateTime { year: 2100, month: 1, day: 1, hour: 0, minute: 0, second: 0 }.to_unix());
    }
}
