//! An interrupt's road: device line → I/O APIC → local APIC → vector → entry stub → [`dispatch`] → handler → end
//! of interrupt.
//!
//! [`register`] is what a driver calls; [`init`] sets all of it up. Who sends, who ends and who masks are
//! pv-ops or stand behind [`controller::Controller`]. A hypervisor's events come by one vector of the same road
//! ([`event_channel`]).

pub mod apic;
pub mod controller;
pub mod dispatch;
pub mod entry;
pub mod event_channel;
pub mod exceptions;
mod idt;
pub mod ioapic;
mod page_ready;
mod pic;
mod tests;
pub mod vectors;

pub use controller::Signal;
pub use dispatch::{Count, counts};

use crate::{
    acpi::{self, madt::Madt},
    cpu, hypervisor,
    sync::IrqMutex,
};
use alloc::{boxed::Box, vec::Vec};
use controller::Controller;
use core::sync::atomic::{AtomicBool, Ordering};
use ioapic::IoApic;

/// What raises an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Irq {
    /// An interrupt of the ISA bus by its old number, 0 to 15.
    Isa(u8),
    /// A line by its number among all I/O APICs' (global system interrupt).
    Gsi(u32, Signal),
}

/// Why an interrupt cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No controller has this line.
    #[error("no interrupt controller has line {0}")]
    NoLine(u32),
    /// All vectors are taken.
    #[error("all {} device vectors are taken", vectors::DEVICES.len())]
    OutOfVectors,
    /// No local APIC that a message can be sent to.
    #[error("no local APIC that takes messages")]
    NoMessages,
    /// Another device on the line signals in another way.
    #[error("line {0} is in use with another trigger or polarity")]
    Signal(u32),
}

/// A line with a handler.
#[derive(Clone, Copy)]
pub struct Line {
    controller: &'static dyn Controller,
    number: u32,
    vector: u8,
}

impl Line {
    /// Holds it back.
    pub fn mask(&self) {
        self.controller.mask(self.number);
    }

    /// Lets it through.
    pub fn unmask(&self) {
        self.controller.unmask(self.number);
    }

    /// Its number among all I/O APICs' lines.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The vector it raises.
    pub fn vector(&self) -> u8 {
        self.vector
    }
}

struct Routes {
    controllers: Vec<&'static dyn Controller>,
    lines: Vec<(Line, Signal)>,
}

static ROUTES: IrqMutex<Routes> = IrqMutex::new(Routes { controllers: Vec::new(), lines: Vec::new() });

/// Brings interrupts up, no line let through, and enables them on this CPU.
pub fn init(info: &boot::Info) {
    exceptions::init_stacks();
    let madt = acpi::tables().madt.as_ref();
    page_ready::init();
    event_channel::init(info.cmdline.get("xen.events"));
    match apic::init(madt) {
        Ok(apic) => {
            dispatch::handle(vectors::APIC_ERROR, "APIC error", || {
                log::warn!("local APIC: error status {:#x}", apic.take_errors());
            });
            init_io_apics(madt);
            let routes = ROUTES.lock();
            let lines: usize = routes.controllers.iter().map(|controller| controller.lines().len()).sum();
            let count = routes.controllers.len();
            log::info!("{} {}, {lines} lines on {count} I/O APIC{}", apic.mode(), apic.id(), plural(count));
        }
        Err(error) if event_channel::is_up() => log::debug!("local APIC: {error}"),
        Err(error) => log::error!("local APIC: {error}: no device interrupts and no timer; apps must poll"),
    }
    // Where no table tells, a PC may have them.
    if madt.is_none_or(|madt| madt.has_pic) {
        pic::disable(apic::local().is_some());
    }
    if let Err(error) = event_channel::bind_requests(0) {
        log::error!("event channel of CPU 0: {error}: no other CPU can reach it");
    }
    pv_ops::irq_enable();
}

/// Lets a further CPU handle its exceptions: as early as it has its own data and segments.
pub(crate) fn cpu_up_exceptions() {
    exceptions::cpu_up();
}

/// Lets a further CPU take interrupts, once they are enabled there.
pub(crate) fn cpu_up() {
    apic::cpu_up(acpi::tables().madt.as_ref());
    event_channel::cpu_up();
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn init_io_apics(madt: Option<&Madt>) {
    let assumed = [acpi::madt::IoApic { id: 0, address: ioapic::DEFAULT_ADDRESS, first_gsi: 0 }];
    let told = madt.map_or(assumed.as_slice(), |madt| &madt.io_apics);
    for place in told {
        match IoApic::probe(place.address, place.first_gsi) {
            Ok(io_apic) => {
                log::debug!("{}: lines {:?}", io_apic.name(), io_apic.lines());
                ROUTES.lock().controllers.push(Box::leak(Box::new(io_apic)));
            }
            Err(error) => {
                log::warn!("I/O APIC at {:#x}: {error}: its devices have no interrupts", place.address)
            }
        }
    }
}

/// Nobody handles this vector: the firmware has left a line unmasked. All that are not in use are masked, once.
fn silence(vector: u8) {
    static SILENT: AtomicBool = AtomicBool::new(false);
    if !SILENT.swap(true, Ordering::Relaxed) {
        log::warn!("interrupt {vector:#x} is nobody's: all lines that nobody uses are masked");
        ROUTES.lock().controllers.iter().for_each(|controller| controller.silence());
    }
}

/// Calls `handler` whenever `irq` is raised, with interrupts disabled. Several may share a line. `name` is shown in
/// [`counts`].
pub fn register(
    irq: Irq,
    name: &'static str,
    handler: impl Fn() + Send + Sync + 'static,
) -> Result<Line, Error> {
    let (number, signal) = match irq {
        Irq::Isa(number) => match &acpi::tables().madt {
            Some(madt) => madt.isa_line(number),
            None => (number.into(), Signal::default()),
        },
        Irq::Gsi(number, signal) => (number, signal),
    };
    let mut routes = ROUTES.lock();
    if let Some((line, in_use)) = routes.lines.iter().find(|(line, _)| line.number == number) {
        if *in_use != signal {
            return Err(Error::Signal(number));
        }
        dispatch::handle(line.vector, name, handler);
        return Ok(*line);
    }
    let controller = routes.controllers.iter().find(|controller| controller.lines().contains(&number));
    let controller = *controller.ok_or(Error::NoLine(number))?;
    let vector = dispatch::allocate()?;
    dispatch::handle(vector, name, handler);
    let line = Line { controller, number, vector };
    routes.lines.push((line, signal));
    controller.route(number, signal, vector, boot_apic_id());
    controller.unmask(number);
    Ok(line)
}

/// Calls `handler` whenever the returned vector is raised, by a message (MSI) or by [`send`].
pub fn allocate(name: &'static str, handler: impl Fn() + Send + Sync + 'static) -> Result<u8, Error> {
    let vector = dispatch::allocate()?;
    dispatch::handle(vector, name, handler);
    Ok(vector)
}

/// What a device writes, and where to, to raise an interrupt (Intel SDM vol. 3 §11.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Physical address.
    pub address: u64,
    /// The word.
    pub data: u32,
}

/// Calls `handler` on `cpu` whenever a device writes the returned message.
///
/// # Errors
/// No vector is left, or there is no local APIC that a message can name.
pub fn message(
    cpu: &cpu::PerCpu,
    name: &'static str,
    handler: impl Fn() + Send + Sync + 'static,
) -> Result<Message, Error> {
    let id = cpu.apic_id();
    // A message has eight bits for the destination, and seven more where the host says so.
    let bits = if (hypervisor::services().has_long_message_ids)() { 15 } else { 8 };
    if apic::local().is_none() || id >> bits != 0 {
        return Err(Error::NoMessages);
    }
    let vector = allocate(name, handler)?;
    Ok(Message { address: message_address(id), data: vector.into() })
}

/// The address that names the CPU with this APIC ID: bits 0 to 7 of it from bit 12 on, 8 to 14 from bit 5 on.
fn message_address(apic_id: u32) -> u64 {
    const ADDRESS: u64 = 0xfee0_0000;
    ADDRESS | u64::from(apic_id & 0xff) << 12 | u64::from(apic_id >> 8 & 0x7f) << 5
}

/// Devices interrupt the boot CPU, which never goes down.
fn boot_apic_id() -> u32 {
    cpu::percpu::by_id(0).map_or(0, cpu::PerCpu::apic_id)
}

/// Raises `vector` on `cpu`: one that [`allocate`] gave.
pub fn send(cpu: &cpu::PerCpu, vector: u8) {
    if vectors::DEVICES.contains(&vector) && apic::local().is_some() {
        apic::send(cpu.apic_id(), vector);
    }
}

impl core::fmt::Debug for Line {
    fn fmt(&self, out: &mut core::fmt::Formatter) -> core::fmt::Result {
        write!(out, "line {} of {} as vector {:#x}", self.number, self.controller.name(), self.vector)
    }
}

#[cfg(test)]
mod unit_tests {
    /// As a host with KVM_FEATURE_MSI_EXT_DEST_ID reads it.
    #[test]
    fn a_message_names_its_cpu_by_fifteen_bits() {
        assert_eq!(super::message_address(3), 0xfee0_3000);
        assert_eq!(super::message_address(300), 0xfee2_c020);
    }
}
