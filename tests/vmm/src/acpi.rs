//! The ACPI tables: CPUs, the I/O APIC, how to switch off and to reset (ACPI 6.5 §5.2).
//!
//! A machine of "reduced hardware" as QEMU's microvm: no timer, no fixed registers, power off by the sleep control register.

use acpi_tables::Aml;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use anyhow::{Result, ensure};

use crate::memory::{self, ACPI, HIGH_START, Memory};
use crate::ports::{RESET_PORT, RESET_VALUE, SLEEP_PORT, SLEEP_TYPE};

const OEM: [u8; 6] = *b"PLIANT";
const OEM_TABLE: [u8; 8] = *b"VMM     ";
const LOCAL_APIC: u32 = 0xfee0_0000;
const IO_APIC: u32 = 0xfec0_0000;
/// The largest APIC ID that a Processor Local APIC entry can hold; 255 addresses all.
const XAPIC_MAX: u32 = 254;
const ENABLED: u32 = 1;

/// Offsets in the FADT (§5.2.9), and its length.
mod fadt {
    pub(super) const BYTES: u32 = 276;
    pub(super) const BOOT_ARCHITECTURE: usize = 109;
    pub(super) const FLAGS: usize = 112;
    pub(super) const RESET_REGISTER: usize = 116;
    pub(super) const RESET_VALUE: usize = 128;
    pub(super) const X_DSDT: usize = 140;
    pub(super) const SLEEP_CONTROL: usize = 244;
    /// No VGA, no CMOS clock; devices such as the serial line are there.
    pub(super) const DEVICES_BUT_NO_VGA_NO_CLOCK: u16 = 1 | 1 << 2 | 1 << 5;
    /// The reset register is there; reduced hardware.
    pub(super) const RESET_AND_REDUCED: u32 = 1 << 10 | 1 << 20;
}

/// Writes the tables to the guest's memory; returns the address of the first, the RSDP.
///
/// # Errors
/// There are too many CPUs.
pub(crate) fn write(memory: &Memory, apic_ids: &[u32]) -> Result<u64> {
    let mut at = ACPI + Rsdp::len().next_multiple_of(16) as u64;
    let mut place = |table: &Sdt| -> Result<u64> {
        let here = at;
        at += table.as_slice().len().next_multiple_of(16) as u64;
        ensure!(at <= HIGH_START, "no room for the ACPI tables of so many CPUs");
        memory::write(memory, here, table.as_slice())?;
        Ok(here)
    };
    let dsdt = place(&dsdt())?;
    let tables = [place(&fadt(dsdt))?, place(&madt(apic_ids))?];
    let mut xsdt = table(*b"XSDT", 36, 1);
    tables.iter().for_each(|address| xsdt.append_slice(&address.to_le_bytes()));
    let xsdt = place(&xsdt)?;
    let mut rsdp = Vec::new();
    Rsdp::new(OEM, xsdt).to_aml_bytes(&mut rsdp);
    memory::write(memory, ACPI, &rsdp)?;
    Ok(ACPI)
}

fn table(signature: [u8; 4], bytes: u32, revision: u8) -> Sdt {
    Sdt::new(signature, bytes, revision, OEM, OEM_TABLE, 1)
}

/// Its one object is the package `_S5_`: the sleep type that switches off (§7.4.2).
fn dsdt() -> Sdt {
    let mut dsdt = table(*b"DSDT", 36, 2);
    // Name (_S5_, Package (2) { SLEEP_TYPE, 0 })
    dsdt.append_slice(&[0x08, b'_', b'S', b'5', b'_', 0x12, 5, 2, 0x0a, SLEEP_TYPE, 0]);
    dsdt
}

fn fadt(dsdt: u64) -> Sdt {
    let mut table = table(*b"FACP", fadt::BYTES, 6);
    table.write_u16(fadt::BOOT_ARCHITECTURE, fadt::DEVICES_BUT_NO_VGA_NO_CLOCK);
    table.write_u32(fadt::FLAGS, fadt::RESET_AND_REDUCED);
    table.write_bytes(fadt::RESET_REGISTER, &port(RESET_PORT));
    table.write_u8(fadt::RESET_VALUE, RESET_VALUE);
    table.write_u64(fadt::X_DSDT, dsdt);
    table.write_bytes(fadt::SLEEP_CONTROL, &port(SLEEP_PORT));
    table
}

/// A Generic Address Structure for a port of one byte (§5.2.3.2).
fn port(port: u16) -> [u8; 12] {
    let mut structure = [1, 8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    structure[4..6].copy_from_slice(&port.to_le_bytes());
    structure
}

/// CPUs by their APIC IDs, and one I/O APIC for lines 0 to 23 (§5.2.12).
fn madt(apic_ids: &[u32]) -> Sdt {
    let mut madt = table(*b"APIC", 36, 5);
    madt.append_slice(&LOCAL_APIC.to_le_bytes());
    // No PC-compatible pair of 8259s.
    madt.append_slice(&[0; 4]);
    for (uid, id) in (0_u32..).zip(apic_ids) {
        match u8::try_from(*id) {
            Ok(small) if *id <= XAPIC_MAX => {
                madt.append_slice(&[0, 8, uid as u8, small]);
                madt.append_slice(&ENABLED.to_le_bytes());
            }
            _ => {
                madt.append_slice(&[9, 16, 0, 0]);
                [*id, ENABLED, uid].iter().for_each(|field| madt.append_slice(&field.to_le_bytes()));
            }
        }
    }
    madt.append_slice(&[1, 12, 0, 0]);
    [IO_APIC, 0].iter().for_each(|field| madt.append_slice(&field.to_le_bytes()));
    madt
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(table: &Sdt) -> u8 {
        table.as_slice().iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    #[test]
    fn tables_have_their_length_and_checksum() {
        for table in [dsdt(), fadt(0x1234), madt(&[0, 1, 300])] {
            let bytes = table.as_slice();
            assert_eq!(u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize, bytes.len());
            assert_eq!(sum(&table), 0);
        }
    }

    #[test]
    fn a_large_apic_id_gets_the_large_entry() {
        let bytes = madt(&[0, 300]).as_slice().to_vec();
        assert_eq!(bytes[44..52], [0, 8, 0, 0, 1, 0, 0, 0]);
        assert_eq!(bytes[52..68], [9, 16, 0, 0, 0x2c, 1, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(bytes[68..], [1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]);
    }
}
