//! Requests of a disk as the device reads them: header, range, status byte (VirtIO 1.3 §5.2.6).
#![forbid(unsafe_code)]

use core::sync::atomic::Ordering::Relaxed;

use crate::{
    class::{BlockRequest, SECTOR_BYTES},
    dma::DmaBuffer,
    error::Error,
    virtio::{Token, requests::Requests},
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

/// A request's own memory: header (type, reserved, sector), range for discard and write zeroes (sector, count,
/// flags), status.
pub(super) mod area {
    use core::ops::Range;
    pub(in crate::virtio::block) const HEADER: Range<usize> = 0..16;
    pub(in crate::virtio::block) const RANGE: Range<usize> = 16..32;
    pub(in crate::virtio::block) const STATUS: Range<usize> = 32..33;
}
/// Flag of a range (§5.2.6).
#[doc(alias = "VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP")]
const UNMAP: u32 = 1;

/// Bytes of a device's name (§5.2.6).
pub(super) const ID_BYTES: usize = 20;
/// A request without its buffer.
pub(super) struct Head {
    kind: Type,
    sector: u64,
    count: u32,
    flags: u32,
}

impl Head {
    pub(super) fn of(request: &BlockRequest) -> Self {
        let (kind, sector, count, flags) = match *request {
            BlockRequest::Read { sector, .. } => (Type::In, sector, 0, 0),
            BlockRequest::Write { sector, .. } => (Type::Out, sector, 0, 0),
            BlockRequest::Flush => (Type::Flush, 0, 0, 0),
            BlockRequest::GetId { .. } => (Type::GetId, 0, 0, 0),
            BlockRequest::Discard { sector, count } => (Type::Discard, sector, count, 0),
            BlockRequest::WriteZeroes { sector, count, may_unmap } => {
                (Type::WriteZeroes, sector, count, if may_unmap { UNMAP } else { 0 })
            }
        };
        Self { kind, sector, count, flags }
    }

    /// Writes header, range and a status that no device writes to the request's own memory.
    pub(super) fn write(&self, requests: &Requests, token: &Token) {
        let memory = requests.area_memory();
        let at = |offset| requests.area_offset(token, offset);
        // Two fields at a time: all is little-endian, as the CPU is. The second one is reserved.
        memory.u64(at(0)).store(self.kind as u64, Relaxed);
        let is_range = matches!(self.kind, Type::Discard | Type::WriteZeroes);
        memory.u64(at(8)).store(if is_range { 0 } else { self.sector }, Relaxed);
        if is_range {
            memory.u64(at(area::RANGE.start)).store(self.sector, Relaxed);
            let fields = u64::from(self.count) | u64::from(self.flags) << 32;
            memory.u64(at(area::RANGE.start + 8)).store(fields, Relaxed);
        }
        memory.u8(at(area::STATUS.start)).store(status::NONE, Relaxed);
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

pub(super) fn into_buffer(request: BlockRequest) -> Option<DmaBuffer> {
    match request {
        BlockRequest::Read { buffer, .. }
        | BlockRequest::Write { buffer, .. }
        | BlockRequest::GetId { buffer } => Some(buffer),
        BlockRequest::Flush | BlockRequest::Discard { .. } | BlockRequest::WriteZeroes { .. } => None,
    }
}

pub(super) fn sectors(buffer: &DmaBuffer) -> Result<u32, Error> {
    let is_whole = buffer.len().is_multiple_of(SECTOR_BYTES);
    let sectors = u32::try_from(buffer.len() / SECTOR_BYTES).ok().filter(|_| is_whole);
    sectors.ok_or(Error::Request("the buffer is not whole sectors"))
}
