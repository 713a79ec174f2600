//! Requests and responses of the block protocol as bytes (io/blkif.h), in the layout `x86_64-abi`.
//! Neighbours: `mod` (sends and receives them).
#![forbid(unsafe_code)]

use super::super::{GrantRef, page::PAGE_BYTES};
use crate::class::SECTOR_BYTES;

/// Bytes of a slot: those of a request, which is the longer one.
pub(super) const SLOT_BYTES: usize = 112;
/// Bytes of a response.
pub(super) const RESPONSE_BYTES: usize = 16;
/// Pages of a request at most.
#[doc(alias = "BLKIF_MAX_SEGMENTS_PER_REQUEST")]
pub(super) const MAX_SEGMENTS: usize = 11;
/// The name of this layout, for the backend.
pub(super) const PROTOCOL: &str = "x86_64-abi";

const SEGMENTS: usize = 24;
const _: () = assert!(SEGMENTS + MAX_SEGMENTS * 8 == SLOT_BYTES);

/// What is asked (`BLKIF_OP_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Operation {
    #[doc(alias = "BLKIF_OP_READ")]
    Read = 0,
    #[doc(alias = "BLKIF_OP_WRITE")]
    Write = 1,
    #[doc(alias = "BLKIF_OP_FLUSH_DISKCACHE")]
    Flush = 3,
}

/// A request (`struct blkif_request`): `len_bytes`, whole sectors, from `sector` on, in the pages from their beginning.
pub(super) struct Request<'a> {
    pub(super) operation: Operation,
    pub(super) handle: u16,
    pub(super) id: u64,
    pub(super) sector: u64,
    pub(super) pages: &'a [GrantRef],
    pub(super) len_bytes: usize,
}

impl Request<'_> {
    /// As bytes for a slot.
    #[doc(alias = "blkif_request")]
    pub(super) fn emit(&self) -> [u8; SLOT_BYTES] {
        let mut bytes = [0; SLOT_BYTES];
        bytes[0] = self.operation as u8;
        bytes[1] = self.pages.len() as u8;
        bytes[2..4].copy_from_slice(&self.handle.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.id.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.sector.to_le_bytes());
        let pieces = (0..self.len_bytes).step_by(PAGE_BYTES).map(|at| (self.len_bytes - at).min(PAGE_BYTES));
        let segments = bytes[SEGMENTS..].chunks_exact_mut(8);
        for ((segment, grant), piece) in segments.zip(self.pages).zip(pieces) {
            segment[..4].copy_from_slice(&grant.0.to_le_bytes());
            // First sector 0, and the last one.
            segment[5] = (piece / SECTOR_BYTES - 1) as u8;
        }
        bytes
    }
}

/// A response (`struct blkif_response`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Response {
    /// Of the request.
    pub(super) id: u64,
    /// 0 is success.
    pub(super) status: i16,
}

/// `BLKIF_RSP_OKAY`, `BLKIF_RSP_EOPNOTSUPP`.
pub(super) const OKAY: i16 = 0;
pub(super) const NOT_SUPPORTED: i16 = -2;

impl Response {
    #[doc(alias = "blkif_response")]
    pub(super) fn parse(bytes: &[u8; RESPONSE_BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h, _, _, low, high, ..] = *bytes;
        Self { id: u64::from_le_bytes([a, b, c, d, e, f, g, h]), status: i16::from_le_bytes([low, high]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_its_fields_where_the_header_has_them() {
        let pages = [GrantRef(0x0102_0304), GrantRef(9)];
        let request = Request {
            operation: Operation::Write,
            handle: 51712,
            id: 7,
            sector: 0x1_0000_0001,
            pages: &pages,
            len_bytes: 4096 + 1024,
        };
        let bytes = request.emit();
        assert_eq!(bytes[..4], [1, 2, 0x00, 0xca]);
        assert_eq!((bytes[8], bytes[16], bytes[20]), (7, 1, 1));
        assert_eq!(bytes[24..40], [4, 3, 2, 1, 0, 7, 0, 0, 9, 0, 0, 0, 0, 1, 0, 0]);
        assert!(bytes[40..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn a_response_is_read_from_where_the_header_has_it() {
        let bytes = [5, 0, 0, 0, 0, 0, 0, 0x80, 1, 0xaa, 0xfe, 0xff, 0, 0, 0, 0];
        assert_eq!(Response::parse(&bytes), Response { id: 0x8000_0000_0000_0005, status: NOT_SUPPORTED });
    }
}
