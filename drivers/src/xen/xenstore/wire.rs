//! Messages of xenstore as bytes (io/xs_wire.h): a header of four words, then a payload of at most 4096 bytes.
//! Neighbours: `connection` (sends and receives them).
#![forbid(unsafe_code)]

use super::Error;
use alloc::{string::String, vec::Vec};

/// Bytes of a header.
pub const HEADER_BYTES: usize = 16;
/// Bytes of a payload at most; a longer one breaks the connection.
#[doc(alias = "XENSTORE_PAYLOAD_MAX")]
pub const PAYLOAD_MAX: usize = 4096;

/// What a message is (`enum xsd_sockmsg_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[doc(alias = "xsd_sockmsg_type")]
pub enum Kind {
    /// The names below a node.
    #[doc(alias = "XS_DIRECTORY")]
    Directory = 1,
    /// The value of a node.
    #[doc(alias = "XS_READ")]
    Read = 2,
    /// Tell of changes below a node.
    #[doc(alias = "XS_WATCH")]
    Watch = 4,
    /// No more of them.
    #[doc(alias = "XS_UNWATCH")]
    Unwatch = 5,
    /// Begins a transaction.
    #[doc(alias = "XS_TRANSACTION_START")]
    TransactionStart = 6,
    /// Ends it, to be kept or not.
    #[doc(alias = "XS_TRANSACTION_END")]
    TransactionEnd = 7,
    /// Sets the value of a node, which comes to be.
    #[doc(alias = "XS_WRITE")]
    Write = 11,
    /// Removes a node and all below.
    #[doc(alias = "XS_RM")]
    Remove = 13,
    /// From the server: something changed below a watched node.
    #[doc(alias = "XS_WATCH_EVENT")]
    WatchEvent = 15,
    /// From the server: the request failed; the payload names the error.
    #[doc(alias = "XS_ERROR")]
    Error = 16,
}

/// The fixed part of a message (`struct xsd_sockmsg`). The kind stays a number: the other side may write any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(alias = "xsd_sockmsg")]
pub struct Header {
    /// One of [`Kind`], or something unknown.
    pub kind: u32,
    /// Chosen by who asks, repeated in the answer; 0 in watch events.
    pub request: u32,
    /// The transaction, 0 for none.
    pub transaction: u32,
    /// Bytes of payload that follow.
    pub len_bytes: u32,
}

impl Header {
    /// From the bytes on the ring.
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Self {
        let mut words =
            bytes.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
        let mut next = || words.next().unwrap_or(0);
        Self { kind: next(), request: next(), transaction: next(), len_bytes: next() }
    }

    /// As bytes for the ring.
    pub fn emit(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let words = [self.kind, self.request, self.transaction, self.len_bytes];
        for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}

/// A message whose payload is not longer than it may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The header as it came.
    pub header: Header,
    /// As many bytes as the header says.
    pub payload: Vec<u8>,
}

/// A header with a payload that no message has. Where the next message begins is unknown from there on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong(pub u32);

/// Puts messages together from bytes that come in pieces.
#[derive(Debug, Default)]
pub struct Assembler {
    bytes: Vec<u8>,
}

impl Assembler {
    /// Bytes that it wants next: the rest of a header or of a payload.
    pub fn wants(&self) -> Result<usize, TooLong> {
        let Some(header) = self.header()? else { return Ok(HEADER_BYTES - self.bytes.len()) };
        Ok(HEADER_BYTES + header.len_bytes as usize - self.bytes.len())
    }

    fn header(&self) -> Result<Option<Header>, TooLong> {
        let Some(bytes) = self.bytes.first_chunk() else { return Ok(None) };
        let header = Header::parse(bytes);
        if header.len_bytes as usize > PAYLOAD_MAX {
            return Err(TooLong(header.len_bytes));
        }
        Ok(Some(header))
    }

    /// Takes at most as many bytes as it [`wants`](Self::wants), and gives a message once it is complete.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<Message>, TooLong> {
        self.bytes.extend_from_slice(bytes);
        match self.header()? {
            Some(header) if self.bytes.len() >= HEADER_BYTES + header.len_bytes as usize => {
                let payload = self.bytes.split_off(HEADER_BYTES);
                self.bytes.clear();
                Ok(Some(Message { header, payload }))
            }
            _ => Ok(None),
        }
    }
}

/// What the server refused a request with: the error's name is the payload (`xsd_errors`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of errno.h")]
pub enum Refusal {
    EINVAL,
    EACCES,
    EEXIST,
    EISDIR,
    ENOENT,
    ENOMEM,
    ENOSPC,
    EIO,
    ENOTEMPTY,
    ENOSYS,
    EROFS,
    EBUSY,
    EAGAIN,
    EISCONN,
    E2BIG,
    EPERM,
    /// One that this guest does not know.
    Unknown,
}

impl Refusal {
    const NAMED: [(&[u8], Self); 16] = [
        (b"EINVAL", Self::EINVAL),
        (b"EACCES", Self::EACCES),
        (b"EEXIST", Self::EEXIST),
        (b"EISDIR", Self::EISDIR),
        (b"ENOENT", Self::ENOENT),
        (b"ENOMEM", Self::ENOMEM),
        (b"ENOSPC", Self::ENOSPC),
        (b"EIO", Self::EIO),
        (b"ENOTEMPTY", Self::ENOTEMPTY),
        (b"ENOSYS", Self::ENOSYS),
        (b"EROFS", Self::EROFS),
        (b"EBUSY", Self::EBUSY),
        (b"EAGAIN", Self::EAGAIN),
        (b"EISCONN", Self::EISCONN),
        (b"E2BIG", Self::E2BIG),
        (b"EPERM", Self::EPERM),
    ];

    /// From the payload of an error message.
    pub fn parse(payload: &[u8]) -> Self {
        let name = payload.split(|&byte| byte == 0).next().unwrap_or_default();
        Self::NAMED.iter().find(|(named, _)| *named == name).map_or(Self::Unknown, |&(_, refusal)| refusal)
    }
}

/// A payload of strings that each end with a zero byte. A last one without it counts too: values come so.
pub fn strings(payload: &[u8]) -> Result<Vec<String>, Error> {
    let payload = payload.strip_suffix(&[0]).unwrap_or(payload);
    if payload.is_empty() {
        return Ok(Vec::new());
    }
    let parse = |bytes: &[u8]| core::str::from_utf8(bytes).map(String::from).map_err(|_| Error::Nonsense);
    payload.split(|&byte| byte == 0).map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_header_survives_the_ring(kind: u32, request: u32, transaction: u32, len_bytes: u32) {
            let header = Header { kind, request, transaction, len_bytes };
            prop_assert_eq!(Header::parse(&header.emit()), header);
        }

        /// However the bytes are cut, the same messages come out.
        #[test]
        fn messages_are_put_together_from_any_pieces(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..8),
            cuts in prop::collection::vec(1..50_usize, 1..40),
        ) {
            let mut bytes = Vec::new();
            for (request, payload) in payloads.iter().enumerate() {
                let len_bytes = payload.len() as u32;
                bytes.extend(Header { kind: 2, request: request as u32, transaction: 0, len_bytes }.emit());
                bytes.extend(payload);
            }
            let mut assembler = Assembler::default();
            let (mut rest, mut cuts, mut found) = (&bytes[..], cuts.iter().cycle(), Vec::new());
            while !rest.is_empty() {
                let taken = assembler.wants().unwrap().min(*cuts.next().unwrap()).min(rest.len());
                found.extend(assembler.push(&rest[..taken]).unwrap());
                rest = &rest[taken..];
            }
            prop_assert_eq!(found.len(), payloads.len());
            for (request, (message, payload)) in found.iter().zip(&payloads).enumerate() {
                prop_assert_eq!(message.header.request as usize, request);
                prop_assert_eq!(&message.payload, payload);
            }
        }

        #[test]
        fn no_bytes_at_all_make_it_panic_or_grow(bytes in prop::collection::vec(any::<u8>(), 0..6000)) {
            let mut assembler = Assembler::default();
            for piece in bytes.chunks(97) {
                let mut rest = piece;
                while let Ok(wants) = assembler.wants() {
                    let taken = wants.min(rest.len());
                    if taken == 0 || assembler.push(&rest[..taken]).is_err() {
                        break;
                    }
                    rest = &rest[taken..];
                }
                prop_assert!(assembler.bytes.len() <= HEADER_BYTES + PAYLOAD_MAX);
            }
        }

        #[test]
        fn any_payload_is_strings_or_nonsense(payload in prop::collection::vec(any::<u8>(), 0..200)) {
            match strings(&payload) {
                Ok(found) => prop_assert!(found.iter().all(|string| !string.contains('\0'))),
                Err(error) => prop_assert_eq!(error, Error::Nonsense),
            }
        }
    }

    #[test]
    fn strings_end_with_zero_bytes() {
        assert_eq!(strings(b"vbd\0vif\0"), Ok(["vbd", "vif"].map(String::from).to_vec()));
        assert_eq!(strings(b"one"), Ok([String::from("one")].to_vec()));
        assert_eq!(strings(b""), Ok(Vec::new()));
        assert_eq!(strings(b"\xff\0"), Err(Error::Nonsense));
    }

    #[test]
    fn errors_go_by_their_names() {
        assert_eq!(Refusal::parse(b"EAGAIN\0"), Refusal::EAGAIN);
        assert_eq!(Refusal::parse(b"E2BIG"), Refusal::E2BIG);
        assert_eq!(Refusal::parse(b"EAGAINST\0"), Refusal::Unknown);
        assert_eq!(Refusal::parse(b""), Refusal::Unknown);
    }
}
