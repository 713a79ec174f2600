//! Requests of a disk as the device reads them: header, range, status byte (VirtIO 1.3 §5.2.6).
#![forbid(unsafe_code)]

use core::{ops::Range, sync::atomic::Ordering::Relaxed};

use crate::{
    class::{BlockRequest, SECTOR_BYTES},
    dma::{Direction, DmaBuffer},
    error::Error,
    virtio::requests::{Area, STATUS_WORD},
};

/// Request types (§5.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Type {
    In = 0,
    Out = 1,
    Flush = 4,
    GetId = 8,
    Discard = 11,
    WriteZeroes = 13,
}

/// Status bytes (§5.2.6).
pub(super) mod status {
    pub(in crate::virtio::block) const OK: u8 = 0;
    pub(in crate::virtio::block) const IOERR: u8 = 1;
    pub(in crate::virtio::block) const UNSUPP: u8 = 2;
    /// No device writes this one: it says that none was written.
    pub(in crate::virtio::block) const NONE: u8 = 0xff;
}

/// In a request's own memory: header (type, reserved, sector), range for discard and write zeroes (sector, count,
/// flags), status.
pub(super) const HEADER: Range<usize> = 0..16;
pub(super) const RANGE: Range<usize> = 16..32;
pub(super) const STATUS: Range<usize> = 8 * STATUS_WORD..8 * STATUS_WORD + 1;

/// Flag of a range (§5.2.6).
#[doc(alias = "VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP")]
const UNMAP: u32 = 1;

/// Bytes of a device's name (§5.2.6).
pub(super) const ID_BYTES: usize = 20;
/// A request without its buffer.
pub(super) struct Head {
    pub(super) kind: Type,
    pub(super) sector: u64,
    pub(super) count: u32,
    flags: u32,
}

impl Head {
    /// Takes the buffer, if there is one, out of `request`.
    #[inline]
    pub(super) fn split(request: BlockRequest) -> (Self, Option<DmaBuffer>) {
        let (kind, sector, count, flags, buffer) = match request {
            BlockRequest::Read { sector, buffer } => (Type::In, sector, 0, 0, Some(buffer)),
            BlockRequest::Write { sector, buffer } => (Type::Out, sector, 0, 0, Some(buffer)),
            BlockRequest::Flush => (Type::Flush, 0, 0, 0, None),
            BlockRequest::GetId { buffer } => (Type::GetId, 0, 0, 0, Some(buffer)),
            BlockRequest::Discard { sector, count } => (Type::Discard, sector, count, 0, None),
            BlockRequest::WriteZeroes { sector, count, may_unmap } => {
                (Type::WriteZeroes, sector, count, if may_unmap { UNMAP } else { 0 }, None)
            }
        };
        (Self { kind, sector, count, flags }, buffer)
    }

    /// A request to read or write, and its buffer.
    #[inline]
    pub(super) fn of_transfer(request: &BlockRequest) -> Option<(Self, &DmaBuffer)> {
        let (kind, sector, buffer) = match request {
            BlockRequest::Read { sector, buffer } => (Type::In, *sector, buffer),
            BlockRequest::Write { sector, buffer } => (Type::Out, *sector, buffer),
            _ => return None,
        };
        Some((Self { kind, sector, count: 0, flags: 0 }, buffer))
    }

    /// Who writes the data, if it is a request to read or write.
    #[inline]
    pub(super) fn direction(&self) -> Direction {
        if self.kind == Type::Out { Direction::ToDevice } else { Direction::FromDevice }
    }

    /// Bytes of `buffer` that the device is to fill then.
    #[inline]
    pub(super) fn data_bytes(&self, buffer: &DmaBuffer) -> usize {
        if self.kind == Type::Out { 0 } else { buffer.len() }
    }

    /// Whether it is about a range that it tells beside its header.
    pub(super) fn has_range(&self) -> bool {
        matches!(self.kind, Type::Discard | Type::WriteZeroes)
    }

    /// Writes header, range and a status that no device writes.
    #[inline(always)]
    pub(super) fn write(&self, area: Area<'_>) {
        // Two fields at a time: all is little-endian, as the CPU is. The second one is reserved.
        let put = |offset: usize, value| area.words()[offset / 8].store(value, Relaxed);
        put(HEADER.start, self.kind as u64);
        put(HEADER.start + 8, if self.has_range() { 0 } else { self.sector });
        if self.has_range() {
            put(RANGE.start, self.sector);
            put(RANGE.start + 8, u64::from(self.count) | u64::from(self.flags) << 32);
        }
        put(STATUS.start, status::NONE.into());
    }

    /// The request again, with the buffer that came back.
    pub(super) fn into_request(self, buffer: Option<DmaBuffer>) -> BlockRequest {
        let Self { kind, sector, count, flags } = self;
        match (kind, buffer) {
            (Type::In, Some(buffer)) => BlockRequest::Read { sector, buffer },
            (Type::Out, Some(buffer)) => BlockRequest::Write { sector, buffer },
            (Type::GetId, Some(buffer)) => BlockRequest::GetId { buffer },
            (Type::Discard, _) => BlockRequest::Discard { sector, count },
            (Type::WriteZeroes, _) => {
                BlockRequest::WriteZeroes { sector, count, may_unmap: flags & UNMAP != 0 }
            }
            (Type::Flush, _) => BlockRequest::Flush,
            (Type::In | Type::Out | Type::GetId, None) => unreachable!("what was not sent keeps its buffer"),
        }
    }
}

/// Sectors of so many bytes.
pub(super) fn sectors(bytes: usize) -> Result<u32, Error> {
    let is_whole = bytes.is_multiple_of(SECTOR_BYTES);
    let sectors = u32::try_from(bytes / SECTOR_BYTES).ok().filter(|_| is_whole);
    sectors.ok_or(Error::Request("the buffer is not whole sectors"))
}
