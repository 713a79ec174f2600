//! Reading physical memory byte by byte, wherever it is: RAM, ROM or what the firmware left.
//! Neighbours: `acpi` (whose tables are read so), `mm::map` (which makes the mappings).

use core::cell::RefCell;

use crate::{
    acpi::PhysicalReader,
    mm::{
        layout::{PAGE_SIZE, align_down},
        map::{self, Caching, MapError, Mapping},
    },
};

/// What is mapped at a time, where no RAM of the guest is among it: tables lie close together.
const BLOCK: u64 = 16 * PAGE_SIZE;

/// The machine's physical memory. What was read last stays mapped.
#[derive(Debug, Default)]
pub struct PhysicalMemory {
    last: RefCell<Option<(u64, Mapping)>>,
}

impl PhysicalMemory {
    /// Maps the block around `address`, or else the rest of its page; calls `act` with where the mapping begins, and it.
    fn with<R>(&self, address: u64, act: impl FnOnce(u64, &Mapping) -> R) -> Result<R, MapError> {
        let mut last = self.last.borrow_mut();
        let holds =
            |&(start, ref mapping): &(u64, Mapping)| (start..start + mapping.len_bytes()).contains(&address);
        if !last.as_ref().is_some_and(holds) {
            // What was mapped goes first.
            *last = None;
            let block = align_down(address, BLOCK);
            let mapped = map::mapping(block, BLOCK, Caching::WriteBack).map(|mapping| (block, mapping));
            let page = |_| {
                let len_bytes = PAGE_SIZE - address % PAGE_SIZE;
                map::mapping(address, len_bytes, Caching::WriteBack).map(|mapping| (address, mapping))
            };
            *last = Some(mapped.or_else(page)?);
        }
        last.as_ref()
            .map(|(start, mapping)| act(*start, mapping))
            .ok_or(MapError::NotMapped { virt: address })
    }
}

impl PhysicalReader for PhysicalMemory {
    /// Copies in pieces: a table may begin in RAM and end outside.
    fn read(&self, mut address: u64, mut buffer: &mut [u8]) -> Option<()> {
        address.checked_add(buffer.len() as u64)?;
        while !buffer.is_empty() {
            let copied = self.with(address, |start, mapping| {
                let offset = (address - start) as usize;
                let len = buffer.len().min(mapping.len_bytes() as usize - offset);
                // SAFETY: `with` gives a mapping that holds `address`.
                let source = unsafe { mapping.as_ptr().add(offset) };
                let (words, bytes) = buffer[..len].as_chunks_mut::<8>();
                let rest = words.len() * 8;
                for (index, word) in words.iter_mut().enumerate() {
                    // SAFETY: eight of the `len` bytes from `source`, which are mapped until the end of this call at least.
                    let from = unsafe { source.cast::<[u8; 8]>().add(index) };
                    // SAFETY: as above. They may be changed by the firmware or the host at any time: hence volatile.
                    *word = unsafe { from.read_volatile() };
                }
                for (offset, byte) in bytes.iter_mut().enumerate() {
                    // SAFETY: as above.
                    *byte = unsafe { source.add(rest + offset).read_volatile() };
                }
                len
            });
            let copied = copied.ok()?;
            address += copied as u64;
            buffer = &mut buffer[copied..];
        }
        Some(())
    }
}
