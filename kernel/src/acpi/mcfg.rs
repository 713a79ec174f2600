//! PCI Express memory-mapped configuration space (PCI Firmware Specification 3.3 §4.1.2).
#![forbid(unsafe_code)]

use super::{Error, sdt::Header, sdt::Table};
use alloc::vec::Vec;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned, little_endian as le};

/// The configuration window of a range of buses: 1 MiB each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Physical address of bus 0's configuration space, even if `first_bus` is not 0.
    pub address: u64,
    /// PCI segment group.
    pub group: u16,
    /// First bus of the range.
    pub first_bus: u8,
    /// Last bus of the range.
    pub last_bus: u8,
}

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Fixed {
    header: Header,
    reserved: [u8; 8],
}

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Entry {
    address: le::U64,
    group: le::U16,
    first_bus: u8,
    last_bus: u8,
    reserved: [u8; 4],
}

/// Segments kept at most.
const MAX_SEGMENTS: usize = 64;

/// Reads the table. A window that makes no sense or overlaps an earlier one is skipped.
pub fn parse(table: &Table) -> Result<Vec<Segment>, Error> {
    let (_, mut rest) = table.fixed::<Fixed>()?;
    let mut segments: Vec<Segment> = Vec::new();
    while let Ok((entry, tail)) = Entry::read_from_prefix(rest) {
        rest = tail;
        let segment = Segment {
            address: entry.address.get(),
            group: entry.group.get(),
            first_bus: entry.first_bus,
            last_bus: entry.last_bus,
        };
        if !segment.is_sane() || segments.iter().any(|other| other.overlaps(&segment)) {
            log::warn!("ACPI: MCFG window {segment:x?}: ignored");
        } else if segments.len() < MAX_SEGMENTS {
            segments.push(segment);
        }
    }
    Ok(segments)
}

impl Segment {
    fn is_sane(&self) -> bool {
        self.first_bus <= self.last_bus
            && self.address != 0
            && self.address.trailing_zeros() >= 20
            && self.address < (1 << 52) - (256 << 20)
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.group == other.group && self.first_bus <= other.last_bus && other.first_bus <= self.last_bus
    }
}
