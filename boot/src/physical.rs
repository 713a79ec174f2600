//! How the readers see physical memory: through one question, so that tests can answer it from an array.
//! Neighbours: `entry` answers it from the direct map; `pvh`, `multiboot2` and `bootloader` ask.
#![forbid(unsafe_code)]

use crate::cmdline;

/// Physical memory that may be read.
pub trait PhysicalMemory {
    /// The `len_bytes` bytes at physical `address`, or `None` if not all of them may be read.
    fn bytes(&self, address: u64, len_bytes: u64) -> Option<&[u8]>;
}

/// The bytes of a NUL-terminated text at `address`, as many as a [`cmdline::CommandLine`] may want: the text
/// may end just before unreadable memory, and where no NUL comes, the slice ends all the same.
pub(crate) fn text(memory: &dyn PhysicalMemory, address: u64) -> Option<&[u8]> {
    let most = cmdline::MAX_LEN as u64 + 1;
    let in_first_page = 4096 - address % 4096;
    let first = memory.bytes(address, most.min(in_first_page))?;
    if first.contains(&0) { Some(first) } else { memory.bytes(address, most).or(Some(first)) }
}
