//! MSI-X: interrupts that are memory writes, by a table in the function's memory (PCI §6.8.2).
#![forbid(unsafe_code)]

use super::{Function, MSI_X};
use crate::{error::Error, hal::Hal, mmio::Mmio};

/// Message control, the upper half of the capability's first word.
const ENABLE: u32 = 1 << 31;
const FUNCTION_MASK: u32 = 1 << 30;
const ENTRY_BYTES: usize = 16;
/// Vector control of an entry.
const MASKED: u32 = 1;

/// What a function writes, and where to, to interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Address.
    pub address: u64,
    /// Data.
    pub data: u32,
}

/// The table of a function.
#[derive(Debug)]
pub struct MsiX {
    table: Mmio<u8>,
    entries: u16,
}

impl MsiX {
    /// The table of `function`, all entries masked, with MSI-X enabled; `Ok(None)` if it has none.
    ///
    /// # Errors
    /// The table is not where device memory is.
    pub fn enable(function: &Function<'_>, hal: &dyn Hal) -> Result<Option<Self>, Error> {
        let Some(capability) = function.capabilities().find(|capability| capability.id == MSI_X) else {
            return Ok(None);
        };
        let control = function.read(capability.offset);
        let place = function.read(capability.offset + 4);
        let entries = (control >> 16 & 0x7ff) as u16 + 1;
        let len = usize::from(entries) * ENTRY_BYTES;
        let bar = function.memory_bar((place & 7) as u8);
        let address = bar.and_then(|bar| bar.part((place & !7).into(), len as u64));
        let table = hal.device_memory(address.ok_or(Error::NoCapability { what: "MSI-X table" })?, len)?;
        let mut msix = Self { table, entries };
        (0..entries).for_each(|entry| msix.write(entry, 12, MASKED));
        function.write(capability.offset, (control | ENABLE) & !FUNCTION_MASK);
        Ok(Some(msix))
    }

    /// Entries of the table.
    pub fn entries(&self) -> u16 {
        self.entries
    }

    /// Lets entry `entry` send `message`.
    pub fn set(&mut self, entry: u16, message: Message) {
        self.write(entry, 12, MASKED);
        self.write(entry, 0, message.address as u32);
        self.write(entry, 4, (message.address >> 32) as u32);
        self.write(entry, 8, message.data);
        self.write(entry, 12, 0);
    }

    fn write(&mut self, entry: u16, offset: usize, value: u32) {
        let _ = self.table.write_at(usize::from(entry) * ENTRY_BYTES + offset, value);
    }
}
