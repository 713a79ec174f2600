//! Where the parts of a virtqueue lie in its memory, and what a descriptor looks like (VirtIO 1.3 §2.7, §2.8).
#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::dma::{Direction, Segment};

/// Bytes of a descriptor, of either format (§2.7.5, §2.8.13).
pub const DESCRIPTOR_BYTES: usize = 16;

/// The buffer goes on in the next descriptor.
#[doc(alias = "VIRTQ_DESC_F_NEXT")]
pub const NEXT: u16 = 1;
/// The device writes, else it reads.
#[doc(alias = "VIRTQ_DESC_F_WRITE")]
pub const WRITE: u16 = 2;
/// The descriptor points to a table of descriptors.
#[doc(alias = "VIRTQ_DESC_F_INDIRECT")]
pub const INDIRECT: u16 = 4;

/// Offsets of the three areas of a virtqueue in one piece of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Descriptor area: at 0.
    pub descriptors: usize,
    /// Driver area: what the driver tells.
    pub driver: usize,
    /// Device area: what the device tells.
    pub device: usize,
    /// Bytes of all.
    pub len_bytes: usize,
}

impl Layout {
    /// Of a split virtqueue of `size` descriptors (§2.7): table, available ring, used ring.
    pub fn split(size: u16) -> Self {
        let size = usize::from(size);
        let driver = size * DESCRIPTOR_BYTES;
        // Flags, index, entries of two bytes, used_event; then, aligned to 4, flags and index, and so that they are aligned to 8,
        // entries of eight bytes.
        let device = (driver + 6 + 2 * size + 4).next_multiple_of(8) - 4;
        Self { descriptors: 0, driver, device, len_bytes: device + 4 + 8 * size + 8 }
    }

    /// Of a packed virtqueue of `size` descriptors (§2.8): ring, driver and device event suppression.
    pub fn packed(size: u16) -> Self {
        let driver = usize::from(size) * DESCRIPTOR_BYTES;
        Self { descriptors: 0, driver, device: driver + 4, len_bytes: driver + 8 }
    }
}

/// Flag of a descriptor for `segment`.
pub(super) fn direction_flag(segment: &Segment) -> u16 {
    match segment.direction() {
        Direction::ToDevice => 0,
        Direction::FromDevice => WRITE,
    }
}

/// Writes the descriptor of these two words: address, length, and the two 16-bit fields behind (all is little-endian, as the
/// CPU is).
#[inline]
pub(super) fn write_descriptor(
    [low, high]: &[AtomicU64; 2],
    (address, len_bytes): (u64, u32),
    [first, second]: [u16; 2],
) {
    let fields = u64::from(first) << 32 | u64::from(second) << 48;
    low.store(address, Relaxed);
    high.store(u64::from(len_bytes) | fields, Relaxed);
}

/// Bytes of `segments` that the device may write.
pub(super) fn writable_bytes(segments: &[Segment]) -> u32 {
    let written = segments.iter().filter(|segment| segment.direction() == Direction::FromDevice);
    written.fold(0, |sum, segment| sum.saturating_add(segment.len_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// §2.7: alignments 16, 2 and 4, and the sizes of the table there.
    #[test]
    fn the_parts_of_a_split_queue_are_aligned_and_do_not_overlap() {
        for size in (0..16).map(|shift| 1u16 << shift) {
            let Layout { driver, device, len_bytes, .. } = Layout::split(size);
            let size = usize::from(size);
            assert!(driver >= 16 * size && driver % 2 == 0);
            assert!(device >= driver + 6 + 2 * size && device % 4 == 0);
            assert_eq!((device + 4) % 8, 0, "an entry can be read at once");
            assert!(len_bytes >= device + 6 + 8 * size);
        }
    }
}
