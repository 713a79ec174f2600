//! Where the high precision event timer is (IA-PC HPET Specification 1.0a §3.2.4).
//! Neighbours: `time::hpet` (which reads its counter).
#![forbid(unsafe_code)]

use super::{Error, fadt::GenericAddress, fadt::Register, sdt::Header, sdt::Table};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned, little_endian as le};

/// A timer block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hpet {
    /// Physical address of its registers; 0 if the table names none that can be used.
    pub address: u64,
}

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Fixed {
    header: Header,
    block_id: le::U32,
    address: GenericAddress,
    number: u8,
    minimum_tick: le::U16,
    attributes: u8,
}

impl Hpet {
    /// Reads the table.
    pub fn parse(table: &Table) -> Result<Self, Error> {
        let (fixed, _) = table.fixed::<Fixed>()?;
        let address = match fixed.address.register() {
            Some(Register::Memory(address)) if address.is_multiple_of(8) => address,
            _ => 0,
        };
        Ok(Self { address })
    }
}
