//! The PCI bus: how this machine shows its configuration space, and who drives what is found there.
#![forbid(unsafe_code)]

use alloc::{boxed::Box, format, string::String, vec::Vec};

use drivers::{
    hal::Hal,
    pci::{self, ConfigAccess, Ecam, Function, MsiX, Ports},
    virtio::transport::pci::{PciTransport, Vectors, device_id},
};

use super::{
    Failure, failure, virtio,
    wiring::{Connect, Messages, Wires},
};
use crate::{acpi, cpu::port::PciPorts, irq::Irq, platform::Platform};

static PORTS: Ports<PciPorts> = Ports(PciPorts::new());

/// A virtio device on the bus.
pub(super) struct Found(Function<'static>);

/// The virtio devices on the bus, if there is one.
pub(super) fn walk() -> Vec<virtio::Found> {
    let functions = match ecam() {
        Some((access, last_bus)) => pci::functions(access, last_bus),
        None => pci::functions(&PORTS, u8::MAX),
    };
    log::debug!("PCI: {} functions", functions.len());
    let known = functions.into_iter().filter_map(|function| {
        let (vendor, device) = function.id();
        log::debug!("PCI {}: {vendor:04x}:{device:04x}", function.address());
        let kind = device_id(vendor, device)?;
        let place = format!("{}", function.address());
        Some(virtio::Found { kind, place, way: virtio::Way::Pci(Found(function)) })
    });
    known.collect()
}

/// The configuration space in memory, for the first segment, if the firmware tells of it.
fn ecam() -> Option<(&'static dyn ConfigAccess, u8)> {
    let segment = acpi::tables().mcfg.iter().find(|segment| segment.group == 0 && segment.first_bus == 0)?;
    let len = (usize::from(segment.last_bus) + 1) * Ecam::BUS_BYTES;
    match Platform.device_memory(segment.address, len) {
        Ok(memory) => Some((Box::leak(Box::new(Ecam::new(segment.first_bus, memory))), segment.last_bus)),
        Err(error) => {
            log::warn!("PCI: configuration space: {error}: ports are used");
            None
        }
    }
}

impl Found {
    /// The registers of the device, which does not interrupt.
    pub(super) fn bare(self) -> Result<PciTransport, Failure> {
        self.0.enable();
        PciTransport::probe(&self.0, &Platform, Vectors::Line).map_err(failure)
    }

    /// Brings the device up by its driver.
    pub(super) fn bring_up(
        self,
        messages: Messages,
        name: String,
        bring_up: virtio::BringUp,
    ) -> Result<(), Failure> {
        let Self(function) = self;
        function.enable();
        let up = attach(&function, messages)
            .and_then(|(transport, wires)| bring_up(Box::new(transport), name, Connect::new(wires)));
        if up.is_err() {
            function.disable();
        }
        up
    }
}

/// The registers of a device, and what it interrupts by.
fn attach(function: &Function<'_>, messages: Messages) -> Result<(PciTransport, Wires), Failure> {
    let (vectors, wires) = match MsiX::enable(function, &Platform).map_err(failure)? {
        Some(table) => {
            let vectors = Vectors::of(table.entries(), messages.count());
            let queue_entries = if let Vectors::Queues(count) = vectors { count.get() } else { 0 };
            (vectors, Wires::Messages { table, queue_entries, of_each: messages.of_each })
        }
        // Firmware has routed the device's pin to a line of the legacy controller, which a PC's I/O APIC has too.
        None => match function.interrupt_line() {
            Some(line) => {
                function.enable_interrupt_line();
                (Vectors::Line, Wires::Line(Irq::Isa(line)))
            }
            None => (Vectors::Line, Wires::None),
        },
    };
    Ok((PciTransport::probe(function, &Platform, vectors).map_err(failure)?, wires))
}
