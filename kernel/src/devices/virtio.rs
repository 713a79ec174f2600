//! Virtio devices: those without a bus are looked for here, those on PCI come from `pci`; all are brought up alike.
#![forbid(unsafe_code)]

use alloc::{boxed::Box, format, string::String, vec::Vec};

use boot::CommandLine;
use drivers::{
    class::SECTOR_BYTES,
    hal::Hal,
    virtio::{
        DeviceId, Features,
        block::Block,
        entropy::Entropy,
        net::Net,
        transport::{Transport, mmio::MmioTransport},
    },
};

use super::{
    Failure,
    block::Disk,
    entropy::Source,
    failure,
    net::{self, Card},
};
use crate::{
    acpi::{self, virtio_mmio::Place},
    irq::{self, Irq, Signal},
    platform::Platform,
};

/// The command line's key for a device without a bus: `virtio_mmio=512@0xfeb00e00:23`, as Linux has it.
const KEY: &str = "virtio_mmio";

/// Called when the device interrupts.
pub(super) type Handler = Box<dyn Fn() + Send + Sync>;

/// Brings up the devices without a bus that the firmware or the command line names.
pub(super) fn probe(cmdline: &CommandLine) {
    let told = cmdline.values(KEY).filter_map(|text| {
        let place = parse(text);
        if place.is_none() {
            log::warn!("{KEY}={text}: expected SIZE@ADDRESS:INTERRUPT");
        }
        place
    });
    let mut places: Vec<Place> = acpi::tables().virtio_mmio.clone();
    places.extend(told);
    for (number, place) in places.iter().enumerate() {
        // Firmware and command line may name the same one.
        if places[..number].iter().any(|earlier| earlier.address == place.address) {
            continue;
        }
        if let Err(error) = mmio(place) {
            log::warn!("virtio-mmio at {:#x}: {error}: not used", place.address);
        }
    }
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

fn mmio(place: &Place) -> Result<(), Failure> {
    let registers = Platform.device_memory(place.address, place.len_bytes as usize).map_err(failure)?;
    let Some(transport) = MmioTransport::probe(registers).map_err(failure)? else { return Ok(()) };
    bring_up(Box::new(transport), &format!("{:#x}", place.address), |name, handler| {
        irq::register(Irq::Gsi(place.gsi, place.signal), name, handler).map(|_| ())
    })
}

/// Brings up the device behind `transport`, found at `place`; `connect` lets it interrupt.
pub(super) fn bring_up(
    transport: Box<dyn Transport>,
    place: &str,
    connect: impl FnOnce(&'static str, Handler) -> Result<(), irq::Error>,
) -> Result<(), Failure> {
    match transport.device_id() {
        DeviceId::BLOCK => {
            let block = Block::probe(transport, &Platform).map_err(failure)?;
            let (info, features) = (block.info(), block.features());
            let disk = Disk::new(format!("virtio-blk {place}"), block);
            let handler = disk.clone();
            connect("virtio-blk", Box::new(move || handler.interrupt())).map_err(failure)?;
            log::info!(
                "{}: {} KiB, blocks of {} bytes, {}{}",
                disk.name(),
                info.sectors / (1024 / SECTOR_BYTES as u64),
                info.block_bytes,
                if info.read_only { "read-only" } else { "read-write" },
                rings(features)
            );
            disk.register();
        }
        DeviceId::ENTROPY => {
            let entropy = Entropy::probe(transport, &Platform).map_err(failure)?;
            let features = entropy.features();
            let source = Source::new(format!("virtio-rng {place}"), entropy);
            let handler = source.clone();
            connect("virtio-rng", Box::new(move || handler.interrupt())).map_err(failure)?;
            log::info!("{}: random bytes{}", source.name(), rings(features));
            source.register();
        }
        DeviceId::NET => {
            let net = Net::probe(transport, &Platform, net::sizes(), net::some_address()).map_err(failure)?;
            let card = Card::new(format!("virtio-net {place}"), net);
            let handler = card.clone();
            connect("virtio-net", Box::new(move || handler.interrupt())).map_err(failure)?;
            let (info, features) = (card.info(), card.features());
            let link = if info.link_up { "up" } else { "down" };
            log::info!("{}: {}, link {link}{}", card.name(), info.mac, rings(features));
            log::debug!("{}: features {:#x}, {:?}", card.name(), features.bits(), info.offloads);
            card.register();
        }
        id => log::info!("virtio-{} {place}: no driver for kind {}", id.name(), id.0),
    }
    Ok(())
}

/// How the rings work, for a log line.
fn rings(features: Features) -> String {
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
