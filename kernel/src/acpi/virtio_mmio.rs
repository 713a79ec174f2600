//! Virtio devices without a bus, as the firmware's tables name them: devices whose `_HID` is "LNRO0005", each with a
//! range of memory and an interrupt among its resources (ACPI 6.5 §6.4.3).
//!
//! AML is not interpreted here: the bytes of the name are looked for, and those of the two resources behind it, which
//! is how QEMU's microvm and other small machines write them. Neighbours: `power` (the same way to `_S5_`).
#![forbid(unsafe_code)]

use super::{madt::Signal, sdt::find_word};
use alloc::vec::Vec;

/// Where a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Physical address of its registers.
    pub address: u64,
    /// Bytes of its registers.
    pub len_bytes: u32,
    /// Its interrupt, by its number among all I/O APICs' lines.
    pub gsi: u32,
    /// How that signals.
    pub signal: Signal,
}

const HARDWARE_ID: &[u8] = b"LNRO0005\0";
/// 32-bit fixed memory range descriptor: tag, length 9 (§6.4.3.4).
const MEMORY: [u8; 3] = [0x86, 9, 0];
/// Extended interrupt descriptor: tag; its length depends on the number of interrupts (§6.4.3.6).
const INTERRUPT: u8 = 0x89;
const EDGE: u8 = 1 << 1;
const ACTIVE_LOW: u8 = 1 << 2;
/// Bytes behind the name within which the resources lie.
const REACH: usize = 96;
/// Devices believed at most.
const MAX_PLACES: usize = 64;

/// The devices that `aml` names.
pub fn find(aml: &[u8]) -> Vec<Place> {
    let mut places = Vec::new();
    let mut next = behind_id(aml, 0);
    while let Some(start) = next
        && places.len() < MAX_PLACES
    {
        next = behind_id(aml, start);
        // The next device's resources are not this one's.
        let end = next.map_or(aml.len(), |next| next - HARDWARE_ID.len()).min(start + REACH);
        places.extend(aml.get(start..end).and_then(decode));
    }
    places
}

/// The first place behind a hardware ID that stands at or behind `from`.
fn behind_id(aml: &[u8], mut from: usize) -> Option<usize> {
    loop {
        let at = find_word(aml, from, b"LNRO")?;
        if aml[at..].starts_with(HARDWARE_ID) {
            return Some(at + HARDWARE_ID.len());
        }
        from = at + 1;
    }
}

fn decode(bytes: &[u8]) -> Option<Place> {
    let at = bytes.windows(MEMORY.len()).position(|window| window == MEMORY)?;
    // Tag and length, writable or not, base, bytes.
    let (memory, rest) = bytes.get(at + MEMORY.len()..)?.split_at_checked(9)?;
    let word = |at: usize| Some(u32::from_le_bytes(memory.get(at..at + 4)?.try_into().ok()?));
    // Tag, length of two bytes, flags, number of interrupts, the first of them.
    let [INTERRUPT, _, _, flags, count, gsi @ ..] = rest else { return None };
    if *count == 0 {
        return None;
    }
    let gsi = u32::from_le_bytes(*gsi.first_chunk()?);
    let signal = Signal { level: flags & EDGE == 0, active_low: flags & ACTIVE_LOW != 0 };
    Some(Place { address: word(1)?.into(), len_bytes: word(5)?, gsi, signal })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(resources: &[u8]) -> Vec<u8> {
        [b"\x08_HID\x0dLNRO0005\0\x08_UID\0\x08_CCA\x01\x08_CRS\x11\x1a\x0a\x17", resources].concat()
    }

    const RESOURCES: &[u8] =
        &[0x86, 9, 0, 1, 0, 2, 0xb0, 0xfe, 0, 2, 0, 0, 0x89, 6, 0, 3, 1, 17, 0, 0, 0, 0x79, 0];

    #[test]
    fn memory_and_interrupt_of_each_device_are_found() {
        let aml = [device(RESOURCES), device(&[0x79, 0]), device(RESOURCES)].concat();
        let place = Place {
            address: 0xfeb0_0200,
            len_bytes: 0x200,
            gsi: 17,
            signal: Signal { level: false, active_low: false },
        };
        assert_eq!(find(&aml), [place, place]);
    }

    #[test]
    fn a_cut_table_has_no_device() {
        let aml = device(RESOURCES);
        for len in 0..aml.len() - 2 {
            assert_eq!(find(&aml[..len]), [], "{len} bytes");
        }
    }
}
