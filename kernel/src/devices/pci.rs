//! The PCI bus: how this machine shows its configuration space, and who drives what is found there.
#![forbid(unsafe_code)]

use alloc::{boxed::Box, format};

use drivers::{
    hal::Hal,
    pci::{self, ConfigAccess, Ecam, Function, Message, MsiX, Ports},
    virtio::transport::pci::{PciTransport, device_id},
};

use super::{Failure, failure, virtio};
use crate::{acpi, cpu::port::PciPorts, irq, platform::Platform};

/// The MSI-X entry by which every queue of a device interrupts.
const VECTOR: u16 = 0;

static PORTS: Ports<PciPorts> = Ports(PciPorts::new());

/// Walks the bus, if there is one, and brings up what can be driven.
pub(super) fn probe() {
    let functions = match ecam() {
        Some((access, last_bus)) => pci::functions(access, last_bus),
        None => pci::functions(&PORTS, u8::MAX),
    };
    log::debug!("PCI: {} functions", functions.len());
    for function in functions {
        let (vendor, device) = function.id();
        log::debug!("PCI {}: {vendor:04x}:{device:04x}", function.address());
        if device_id(vendor, device).is_some()
            && let Err(error) = virtio(&function)
        {
            function.disable();
            log::warn!("virtio {}: {error}: not used", function.address());
        }
    }
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

fn virtio(function: &Function<'_>) -> Result<(), Failure> {
    function.enable();
    let msix = MsiX::enable(function, &Platform).map_err(failure)?;
    let mut msix = msix.ok_or_else(|| failure("it has no MSI-X"))?;
    let transport = PciTransport::probe(function, &Platform, VECTOR).map_err(failure)?;
    let place = format!("{}", function.address());
    virtio::bring_up(Box::new(transport), &place, |name, handler| {
        // What the device has to say meanwhile stays pending in the masked entry.
        let irq::Message { address, data } = irq::message(name, handler)?;
        msix.set(VECTOR, Message { address, data });
        Ok(())
    })
}
