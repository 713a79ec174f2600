//! The table of CPUs from before ACPI (Intel MultiProcessor Specification 1.4 §4), which small machines still have.
//! Neighbours: `acpi::rsdp` (searches the same areas), `topology` (asks where there is no MADT).
#![forbid(unsafe_code)]

use crate::acpi::{PhysicalReader, madt::Processor, rsdp::search_bios, sdt};
use alloc::vec::Vec;

/// The floating pointer structure (§4.1): signature, address of the table, length in 16 bytes, revision, checksum.
const POINTER: &[u8] = b"_MP_";
const POINTER_LEN: usize = 16;
/// The table's header (§4.2), without its entries.
const SIGNATURE: &[u8] = b"PCMP";
const HEADER_LEN: usize = 44;
/// An entry of a CPU (§4.3.1) and of anything else, in bytes; entries of CPUs come first.
const CPU_ENTRY: u8 = 0;
const CPU_ENTRY_LEN: usize = 20;
/// CPU flags: may be used.
const ENABLED: u8 = 1;

/// The CPUs of the first sound table, in its order; none where there is none.
pub(super) fn processors(memory: &impl PhysicalReader) -> Vec<Processor> {
    let mut processors = Vec::new();
    search_bios(memory, POINTER, &mut |address| {
        let found = read(memory, address);
        if found.is_none() {
            log::warn!("MP table: the one that {address:#x} leads to is broken: ignored");
        }
        processors = found.unwrap_or_default();
        !processors.is_empty()
    });
    processors
}

/// The CPUs of the table that the pointer at `address` leads to.
fn read(memory: &impl PhysicalReader, address: u64) -> Option<Vec<Processor>> {
    let mut pointer = [0; POINTER_LEN];
    memory.read(address, &mut pointer)?;
    sdt::checksum(&pointer).ok()?;
    let table = u64::from(u32::from_le_bytes(*pointer[4..].first_chunk()?));
    let mut header = [0; HEADER_LEN];
    memory.read(table, &mut header)?;
    let len = usize::from(u16::from_le_bytes(*header[4..].first_chunk()?));
    if !header.starts_with(SIGNATURE) || len < HEADER_LEN {
        return None;
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).ok()?;
    bytes.resize(len, 0);
    memory.read(table, &mut bytes)?;
    sdt::checksum(&bytes).ok()?;
    let entries = bytes[HEADER_LEN..].chunks_exact(CPU_ENTRY_LEN);
    let cpus = entries.take_while(|entry| entry[0] == CPU_ENTRY);
    Some(cpus.map(|entry| Processor { apic_id: entry[1].into(), enabled: entry[3] & ENABLED != 0 }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The BIOS ROM.
    struct Rom(Vec<u8>);
    const START: u64 = 0xe_0000;
    const PLACE: usize = 0x1_5a80;
    const TABLE: usize = 0x1_5a90;

    impl PhysicalReader for Rom {
        fn read(&self, address: u64, buffer: &mut [u8]) -> Option<()> {
            let start = usize::try_from(address.checked_sub(START)?).ok()?;
            buffer.copy_from_slice(self.0.get(start..start.checked_add(buffer.len())?)?);
            Some(())
        }
    }

    fn repair(bytes: &mut [u8], place: usize) {
        bytes[place] = 0;
        bytes[place] = bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_sub(*byte));
    }

    /// As SeaBIOS makes it: CPUs, then a bus.
    fn rom(apic_ids: &[(u8, u8)]) -> Rom {
        let mut rom = vec![0; 0x2_0000];
        rom[PLACE..PLACE + 4].copy_from_slice(POINTER);
        rom[PLACE + 4..PLACE + 8].copy_from_slice(&(START as u32 + TABLE as u32).to_le_bytes());
        rom[PLACE + 8..PLACE + 10].copy_from_slice(&[1, 4]);
        repair(&mut rom[PLACE..PLACE + POINTER_LEN], 10);
        let mut table = [SIGNATURE, &[0; HEADER_LEN - 4]].concat();
        for &(apic_id, flags) in apic_ids {
            table.extend([0, apic_id, 0x14, flags]);
            table.extend([0; CPU_ENTRY_LEN - 4]);
        }
        table.extend(*b"\x01\x00ISA   ");
        let len = table.len() as u16;
        table[4..6].copy_from_slice(&len.to_le_bytes());
        repair(&mut table, 7);
        rom[TABLE..TABLE + table.len()].copy_from_slice(&table);
        Rom(rom)
    }

    #[test]
    fn every_cpu_of_the_table_is_told() {
        let processors = processors(&rom(&[(0, 3), (1, 1), (7, 0)]));
        assert_eq!(processors.iter().map(|cpu| cpu.apic_id).collect::<Vec<_>>(), [0, 1, 7]);
        assert_eq!(processors.iter().map(|cpu| cpu.enabled).collect::<Vec<_>>(), [true, true, false]);
        assert!(super::processors(&Rom(vec![0; 0x2_0000])).is_empty());
    }

    proptest! {
        #[test]
        fn a_table_with_a_flipped_bit_is_no_table(bit in 0..8 * (POINTER_LEN + HEADER_LEN + 2 * CPU_ENTRY_LEN + 8)) {
            let mut rom = rom(&[(0, 3), (1, 1)]);
            rom.0[PLACE + bit / 8] ^= 1 << (bit % 8);
            prop_assert!(processors(&rom).is_empty());
        }
    }
}
