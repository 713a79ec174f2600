//! Virtio devices: where they are, and how the driver of a kind takes those of its kind.
//!
//! The buses are walked once, and what is there is noted. A device is brought up when somebody first asks for one of its
//! kind, so that an app carries the drivers of the kinds that it uses and no others.
//! Neighbours: `pci` (those on the bus), `wiring` (how a device interrupts), `block` and the other kinds (who takes them).
#![forbid(unsafe_code)]

use alloc::{boxed::Box, format, string::String, vec::Vec};

use boot::CommandLine;
use drivers::{
    hal::Hal,
    virtio::{
        DeviceId, Features,
        transport::{Transport, mmio::MmioTransport},
    },
};

use super::{
    Failure, failure, pci,
    wiring::{Connect, Messages, Wires},
};
use crate::{
    acpi::{self, virtio_mmio::Place},
    irq::{self, Irq, Signal},
    platform::Platform,
    sync::IrqMutex,
};

/// The command line's key for a device without a bus: `virtio_mmio=512@0xfeb00e00:23`, as Linux has it.
const KEY: &str = "virtio_mmio";

/// A device that nobody drives yet.
pub(super) struct Found {
    pub(super) kind: DeviceId,
    /// Where, for people.
    pub(super) place: String,
    pub(super) way: Way,
}

/// How it is reached.
pub(super) enum Way {
    Pci(pci::Found),
    Mmio(MmioTransport, Irq),
}

static FOUND: IrqMutex<Vec<Found>> = IrqMutex::new(Vec::new());

/// Brings a device up: its registers, its name, and what connects its interrupts.
pub(super) type BringUp = fn(Box<dyn Transport>, String, Connect) -> Result<(), Failure>;

/// Brings up all devices of `kind` that nobody has taken yet. Of their queues as many as `messages` says get an interrupt of
/// their own, where they can.
pub(super) fn take(kind: DeviceId, messages: Messages, bring_up: BringUp) {
    super::walk_buses();
    let taken: Vec<Found> = FOUND.lock().extract_if(.., |found| found.kind == kind).collect();
    for Found { place, way, .. } in taken {
        let name = format!("virtio-{} {place}", kind.name());
        let result = match way {
            Way::Pci(found) => found.bring_up(messages, name.clone(), bring_up),
            Way::Mmio(transport, irq) => {
                bring_up(Box::new(transport), name.clone(), Connect::new(Wires::Line(irq)))
            }
        };
        if let Err(error) = result {
            log::warn!("{name}: {error}: not used");
        }
    }
}

/// The registers of the last device of `kind` that nobody has taken, which does not interrupt.
pub(super) fn bare(kind: DeviceId) -> Option<Box<dyn Transport>> {
    super::walk_buses();
    let mut found = FOUND.lock();
    let last = found.iter().rposition(|found| found.kind == kind)?;
    match found.remove(last).way {
        Way::Pci(found) => found.bare().ok().map(|transport| Box::new(transport) as Box<dyn Transport>),
        Way::Mmio(transport, _) => Some(Box::new(transport)),
    }
}

/// Notes what is on the PCI bus, and what has no bus.
pub(super) fn walk() {
    let mut found = pci::walk();
    found.extend(without_bus(crate::app::cmdline()));
    FOUND.lock().append(&mut found);
}

/// The devices without a bus that the firmware or the command line names.
fn without_bus(cmdline: &CommandLine) -> Vec<Found> {
    let told = cmdline.values(KEY).filter_map(|text| {
        let place = parse(text);
        if place.is_none() {
            log::warn!("{KEY}={text}: expected SIZE@ADDRESS:INTERRUPT");
        }
        place
    });
    let mut places: Vec<Place> = acpi::tables().virtio_mmio.clone();
    places.extend(told);
    let mut found = Vec::new();
    for (number, place) in places.iter().enumerate() {
        // Firmware and command line may name the same one.
        if places[..number].iter().any(|earlier| earlier.address == place.address) {
            continue;
        }
        match probe(place) {
            Ok(device) => found.extend(device),
            Err(error) => log::warn!("virtio-mmio at {:#x}: {error}: not used", place.address),
        }
    }
    found
}

fn probe(place: &Place) -> Result<Option<Found>, Failure> {
    let registers = Platform.device_memory(place.address, place.len_bytes as usize).map_err(failure)?;
    let Some(transport) = MmioTransport::probe(registers).map_err(failure)? else { return Ok(None) };
    let irq = irq::Irq::Gsi(place.gsi, place.signal);
    let (kind, place) = (transport.device_id(), format!("{:#x}", place.address));
    Ok(Some(Found { kind, place, way: Way::Mmio(transport, irq) }))
}

/// `SIZE@ADDRESS:INTERRUPT`, the size with K, M or G behind it, numbers in decimal or with 0x; what may follow a second
/// colon is not needed.
fn parse(text: &str) -> Option<Place> {
    let (size, rest) = text.split_once('@')?;
    let (address, rest) = rest.split_once(':')?;
    let gsi = rest.split(':').next()?;
    let (size, shift) = match size.as_bytes().last()? {
        b'K' | b'k' => (&size[..size.len() - 1], 10),
        b'M' | b'm' => (&size[..size.len() - 1], 20),
        b'G' | b'g' => (&size[..size.len() - 1], 30),
        _ => (size, 0),
    };
    let len_bytes = u32::try_from(number(size)?.checked_mul(1 << shift)?).ok()?;
    let gsi = u32::try_from(number(gsi)?).ok()?;
    // The line stays up until the cause is acknowledged (VirtIO 1.3 §4.2.2).
    let signal = Signal { level: true, active_low: false };
    Some(Place { address: number(address)?, len_bytes, gsi, signal })
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// How the rings work, for a log line.
pub(super) fn rings(features: Features) -> String {
    features.ring_names().fold(String::new(), |text, name| text + ", " + name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_names_devices_as_for_linux() {
        let place = |len_bytes, address, gsi| {
            let signal = Signal { level: true, active_low: false };
            Some(Place { address, len_bytes, gsi, signal })
        };
        assert_eq!(parse("512@0xfeb00e00:12"), place(512, 0xfeb0_0e00, 12));
        assert_eq!(parse("1K@4096:5:3"), place(1024, 4096, 5));
        for bad in ["", "512", "512@1", "@:", "K@1:1", "512@x:1", "9999999999G@1:1", "1@1:99999999999"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
