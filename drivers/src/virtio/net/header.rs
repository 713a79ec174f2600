//! The header before each frame, both ways (VirtIO 1.3 §5.1.6).
#![forbid(unsafe_code)]

use crate::class::net::{ChecksumPlace, Segments, SendOffload};

/// Bytes of it: `flags`, `gso_type`, `hdr_len`, `gso_size`, `csum_start`, `csum_offset`, `num_buffers`.
#[doc(alias = "virtio_net_hdr")]
pub(super) const BYTES: usize = 12;

/// The checksum is to be computed, or, in a received frame, need not be (`flags`).
#[doc(alias = "VIRTIO_NET_HDR_F_NEEDS_CSUM")]
const NEEDS_CSUM: u8 = 1;
/// The device has checked the checksum (`flags`).
#[doc(alias = "VIRTIO_NET_HDR_F_DATA_VALID")]
const DATA_VALID: u8 = 2;
/// A TCP segment to be cut, over IPv4 or IPv6 (`gso_type`).
#[doc(alias = "VIRTIO_NET_HDR_GSO_TCPV4")]
const GSO_TCPV4: u8 = 1;
#[doc(alias = "VIRTIO_NET_HDR_GSO_TCPV6")]
const GSO_TCPV6: u8 = 4;

/// What is of interest in the header of a received frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Received {
    /// Nobody need check the checksum.
    pub(super) checksum_is_good: bool,
    /// Buffers over which the frame is spread; any number, for the device wrote it.
    pub(super) num_buffers: u16,
}

impl Received {
    /// Reads it; `None` if there are not enough bytes.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let header: &[u8; BYTES] = bytes.get(..BYTES)?.try_into().ok()?;
        Some(Self {
            checksum_is_good: header[0] & (NEEDS_CSUM | DATA_VALID) != 0,
            num_buffers: u16::from_le_bytes([header[10], header[11]]),
        })
    }
}

/// The header of a frame to be sent.
pub(super) fn write(offload: &SendOffload) -> [u8; BYTES] {
    let mut header = [0; BYTES];
    let mut put = |at: usize, value: u16| header[at..at + 2].copy_from_slice(&value.to_le_bytes());
    if let Some(Segments { data_bytes, header_bytes, .. }) = offload.segments {
        put(2, header_bytes);
        put(4, data_bytes);
    }
    if let Some(ChecksumPlace { start, offset }) = offload.checksum {
        put(6, start);
        put(8, offset);
        header[0] = NEEDS_CSUM;
    }
    header[1] = match offload.segments {
        None => 0,
        Some(Segments { is_ipv6: false, .. }) => GSO_TCPV4,
        Some(Segments { is_ipv6: true, .. }) => GSO_TCPV6,
    };
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_that_of_the_standard() {
        let checksum = Some(ChecksumPlace { start: 34, offset: 16 });
        let segments = Some(Segments { data_bytes: 1448, header_bytes: 66, is_ipv6: false });
        assert_eq!(write(&SendOffload { checksum, segments }), [1, 1, 66, 0, 0xa8, 5, 34, 0, 16, 0, 0, 0]);
        let segments = Some(Segments { data_bytes: 1, header_bytes: 2, is_ipv6: true });
        assert_eq!(write(&SendOffload { checksum, segments })[1], 4);
        assert_eq!(write(&SendOffload::default()), [0; BYTES]);
    }

    #[test]
    fn a_received_header_tells_whether_the_checksum_is_good() {
        let read = |flags, bytes: usize| Received::read(&[flags, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 1][..bytes]);
        let is_good = |flags| read(flags, 12).map(|header| header.checksum_is_good);
        assert_eq!([0, 1, 2, 4].map(is_good), [Some(false), Some(true), Some(true), Some(false)]);
        assert_eq!(read(0, 12).map(|header| header.num_buffers), Some(0x103));
        assert_eq!(read(0, 11), None);
    }
}
