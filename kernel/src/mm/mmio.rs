//! Device memory for drivers: physical ranges as checked, volatile words.
//! Neighbours: `map` (the mapping), `drivers::mmio` (what drivers see).

use drivers::mmio::Mmio;

use super::map::{self, Caching, MapError};

/// Maps `len_bytes` bytes of a device from the physical address `phys`, for ever.
///
/// # Errors
/// As [`map::device`]; [`MapError::OverlapsRam`] for any RAM.
pub fn device(phys: u64, len_bytes: usize, caching: Caching) -> Result<Mmio<u8>, MapError> {
    let len = len_bytes as u64;
    if caching == Caching::WriteBack {
        // That would be the direct map, where the program's own objects lie.
        return Err(MapError::OverlapsRam { phys, len_bytes: len });
    }
    let first = map::device(phys, len, caching)?;
    // SAFETY:
    // 1. `map::device` has mapped `len_bytes` bytes, for ever, in the part of the tables that all CPUs share.
    // 2. It maps no RAM with this caching, and objects lie in RAM only.
    // 3. That a device does not write to RAM by itself when its memory is accessed is what being handed out as
    //    plain device memory, by loader or specification, means; devices that do have drivers of their own kind.
    Ok(unsafe { Mmio::new(first, len_bytes) })
}
