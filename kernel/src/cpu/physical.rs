//! Reading physical memory byte by byte, wherever it is: RAM, ROM or what the firmware left.
//! Neighbours: `acpi` (whose tables are read so), `mm::map` (which makes the mappings).

use crate::{
    acpi::PhysicalReader,
    mm::{
        layout::PAGE_SIZE,
        map::{self, Caching},
    },
};

/// The machine's physical memory.
#[derive(Clone, Copy, Debug)]
pub struct PhysicalMemory;

impl PhysicalReader for PhysicalMemory {
    /// Copies page by page: a table may begin in RAM and end outside.
    fn read(&self, mut address: u64, mut buffer: &mut [u8]) -> Option<()> {
        address.checked_add(buffer.len() as u64)?;
        while !buffer.is_empty() {
            let in_page = (PAGE_SIZE - address % PAGE_SIZE) as usize;
            let (chunk, rest) = buffer.split_at_mut(in_page.min(buffer.len()));
            let mapping = map::mapping(address, chunk.len() as u64, Caching::WriteBack).ok()?;
            let source = mapping.as_ptr();
            for (offset, byte) in chunk.iter_mut().enumerate() {
                // SAFETY:
                // 1. `mapping` maps `chunk.len()` bytes and lives until the end of this turn.
                // 2. The bytes may be changed by the firmware or the host at any time: hence volatile.
                *byte = unsafe { source.add(offset).read_volatile() };
            }
            address += chunk.len() as u64;
            buffer = rest;
        }
        Some(())
    }
}
