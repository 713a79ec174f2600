//! What the firmware says about interrupt controllers, PCI, timers and power (ACPI 6.5 §5.2).
//!
//! Pure parsers over a [`PhysicalReader`]: every table is copied, checked once and turned into plain values.
//! A bad table costs one warning and is ignored. Neighbours: `irq` (MADT), `time` (HPET, FADT), `power` (FADT).
#![forbid(unsafe_code)]

pub mod fadt;
pub mod hpet;
pub mod madt;
pub mod mcfg;
pub mod power;
pub mod rsdp;
pub mod sdt;
#[cfg(test)]
mod tests;
pub mod virtio_mmio;

use crate::sync::OnceCell;
use alloc::vec::Vec;
use fadt::Fadt;
use hpet::Hpet;
use madt::Madt;
use power::Power;
use sdt::{Address, Table};

/// Physical memory as the parsers see it. Addresses come from the firmware and may be anything.
pub trait PhysicalReader {
    /// Copies `buffer.len()` bytes from `address`, or says that they cannot be read.
    fn read(&self, address: u64, buffer: &mut [u8]) -> Option<()>;
}

/// Why a table is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The range is not memory that can be read.
    #[error("{len} bytes at {address:#x} are not readable")]
    Unreadable {
        /// First byte.
        address: u64,
        /// Number of bytes.
        len: usize,
    },
    /// No root pointer at the given address or in the BIOS areas.
    #[error("no root pointer (RSDP)")]
    NoRootPointer,
    /// The first bytes are not those of the table that was asked for.
    #[error("signature {found:02x?}, expected {expected:02x?}")]
    Signature {
        /// What is there.
        found: [u8; 4],
        /// What should be there.
        expected: [u8; 4],
    },
    /// The length field is out of bounds.
    #[error("length {found} bytes, expected {min} to {max}")]
    Length {
        /// The table's length field.
        found: usize,
        /// Smallest length that holds the table's fixed part.
        min: usize,
        /// Largest length that is believed.
        max: usize,
    },
    /// The bytes do not add up to zero.
    #[error("checksum off by {0:#04x}")]
    Checksum(u8),
    /// The heap is too small for a copy.
    #[error("no memory for a copy of {0} bytes")]
    OutOfMemory(usize),
}

/// Everything that the kernel takes from ACPI, as plain values.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tables {
    /// Interrupt controllers (§5.2.12).
    pub madt: Option<Madt>,
    /// PCI Express configuration windows (PCI Firmware Specification 3.3 §4.1.2).
    pub mcfg: Vec<mcfg::Segment>,
    /// Fixed hardware and boot flags (§5.2.9).
    pub fadt: Option<Fadt>,
    /// High precision event timer (IA-PC HPET Specification 1.0a §3.2.4).
    pub hpet: Option<Hpet>,
    /// Virtio devices without a bus.
    pub virtio_mmio: Vec<virtio_mmio::Place>,
    /// How to switch off and to reset.
    pub power: Power,
}

/// Tables followed from one root table at most.
const MAX_TABLES: usize = 256;

impl Tables {
    /// Reads what is there. `rsdp` is the root pointer's address if the loader told it; else the BIOS areas
    /// are searched. Without usable tables the result is the empty `Tables::default()`.
    pub fn read(memory: &impl PhysicalReader, rsdp: Option<u64>) -> Self {
        let root = match rsdp::find(memory, rsdp) {
            Ok(root) => root,
            Err(error) => {
                log::warn!("ACPI: {error}: going on without tables");
                return Self::default();
            }
        };
        let addresses = match sdt::root_entries(memory, &root) {
            Ok(addresses) => addresses,
            Err(error) => {
                log::warn!("ACPI: no root table: {error}: going on without tables");
                return Self::default();
            }
        };
        let mut tables = Self::default();
        let mut aml = Vec::new();
        for address in addresses.into_iter().take(MAX_TABLES) {
            tables.take(memory, address, &mut aml);
        }
        if let Some(fadt) = &tables.fadt {
            if let Some(dsdt) = fadt.dsdt {
                match Table::load(memory, dsdt, Some(*b"DSDT")) {
                    Ok(table) => aml.insert(0, table),
                    Err(error) => log::warn!("ACPI: DSDT at {dsdt:#x}: {error}: ignored"),
                }
            }
            let sleep = aml.iter().find_map(|table| power::find_s5(table.body()));
            tables.virtio_mmio = aml.iter().flat_map(|table| virtio_mmio::find(table.body())).collect();
            tables.power = Power::new(fadt, sleep);
        }
        tables
    }

    /// Takes over one table if it is of a known kind and the first of its kind.
    fn take(&mut self, memory: &impl PhysicalReader, address: Address, aml: &mut Vec<Table>) {
        let result = sdt::signature(memory, address).and_then(|signature| {
            match &signature {
                b"APIC" if self.madt.is_none() => {
                    self.madt = Some(Madt::parse(&Table::load(memory, address, None)?)?);
                }
                b"MCFG" if self.mcfg.is_empty() => {
                    self.mcfg = mcfg::parse(&Table::load(memory, address, None)?)?;
                }
                b"FACP" if self.fadt.is_none() => {
                    self.fadt = Some(Fadt::parse(&Table::load(memory, address, None)?)?);
                }
                b"HPET" if self.hpet.is_none() => {
                    self.hpet = Some(Hpet::parse(&Table::load(memory, address, None)?)?);
                }
                b"SSDT" if aml.len() < MAX_AML => aml.push(Table::load(memory, address, None)?),
                _ => {}
            }
            Ok(())
        });
        if let Err(error) = result {
            log::warn!("ACPI: table at {address:#x}: {error}: ignored");
        }
    }
}

/// SSDTs searched for `_S5_` at most.
const MAX_AML: usize = 8;

static TABLES: OnceCell<Tables> = OnceCell::uninit();

/// Reads the machine's tables, once. `rsdp` is what the loader told.
pub fn init(memory: &impl PhysicalReader, rsdp: Option<u64>) -> &'static Tables {
    let _ = TABLES.try_init_once(|| {
        let tables = Tables::read(memory, rsdp);
        tables.log();
        tables
    });
    self::tables()
}

/// The machine's tables; empty before [`init`].
pub fn tables() -> &'static Tables {
    static NONE: Tables = Tables {
        madt: None,
        mcfg: Vec::new(),
        fadt: None,
        hpet: None,
        virtio_mmio: Vec::new(),
        power: Power::NONE,
    };
    TABLES.try_get().unwrap_or(&NONE)
}

/// How to switch this machine off and how to reset it.
pub fn power() -> &'static Power {
    &tables().power
}

impl Tables {
    fn log(&self) {
        if let Some(madt) = &self.madt {
            log::debug!(
                "ACPI: {} CPUs, {} I/O APICs, {} PCI segments, HPET {}, power off {}, reset {}",
                madt.processors.len(),
                madt.io_apics.len(),
                self.mcfg.len(),
                if self.hpet.is_some() { "yes" } else { "no" },
                if self.power.off.is_empty() { "no" } else { "yes" },
                if self.power.reset.is_some() { "yes" } else { "no" },
            );
        }
    }
}
