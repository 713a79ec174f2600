//! What a client asks (RFC 9112 §3, §6, §9).
#![forbid(unsafe_code)]

use alloc::{borrow::Cow, string::String, vec::Vec};

use crate::response::Status;

/// Fields that a request may have.
const MOST_FIELDS: usize = 48;

/// A request that can be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    /// Only the head of the answer is wanted.
    pub(crate) is_head: bool,
    /// The path, decoded; without the query.
    pub(crate) path: Cow<'a, str>,
    /// The value of `Range`.
    pub(crate) range: Option<&'a str>,
    /// The connection goes on after the answer.
    pub(crate) keeps_alive: bool,
    /// Bytes of the request.
    pub(crate) len: usize,
}

/// What was found in the bytes that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found<'a> {
    /// A request.
    Request(Request<'a>),
    /// The beginning of one.
    Partial,
    /// What cannot be answered but by this; then the connection ends.
    Bad(Status),
}

/// What the fields of a request say, as far as it matters here.
#[derive(Default)]
struct Fields<'a> {
    hosts: usize,
    has_body: bool,
    says_close: bool,
    says_keep_alive: bool,
    range: Option<&'a str>,
}

impl<'a> Fields<'a> {
    fn read(fields: &[httparse::Header<'a>]) -> Self {
        let mut read = Self::default();
        for field in fields {
            let is = |name: &str| field.name.eq_ignore_ascii_case(name);
            let value = || core::str::from_utf8(field.value).unwrap_or("").trim();
            // Most names are told apart by their length.
            match field.name.len() {
                4 if is("host") => read.hosts += 1,
                5 if is("range") => read.range = read.range.or_else(|| Some(value())),
                10 if is("connection") => {
                    for said in value().split(',') {
                        read.says_close |= said.trim().eq_ignore_ascii_case("close");
                        read.says_keep_alive |= said.trim().eq_ignore_ascii_case("keep-alive");
                    }
                }
                14 if is("content-length") => read.has_body |= value() != "0",
                17 if is("transfer-encoding") => read.has_body = true,
                _ => {}
            }
        }
        read
    }
}

/// Looks for a request at the beginning of `bytes`.
pub(crate) fn find(bytes: &[u8]) -> Found<'_> {
    let mut fields = [const { core::mem::MaybeUninit::uninit() }; MOST_FIELDS];
    let mut request = httparse::Request::new(&mut []);
    let len = match request.parse_with_uninit_headers(bytes, &mut fields) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Found::Partial,
        Err(httparse::Error::TooManyHeaders) => return Found::Bad(Status::FieldsTooLarge),
        Err(httparse::Error::Version) => return Found::Bad(Status::VersionNotSupported),
        Err(_) => return Found::Bad(Status::BadRequest),
    };
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Found::Bad(Status::BadRequest);
    };
    let said = Fields::read(request.headers);
    // A request of version 1.1 names exactly one host (RFC 9112 §3.2).
    if said.hosts > 1 || (version >= 1 && said.hosts == 0) {
        return Found::Bad(Status::BadRequest);
    }
    if !matches!(method, "GET" | "HEAD") {
        return Found::Bad(Status::MethodNotAllowed);
    }
    if said.has_body {
        return Found::Bad(Status::ContentTooLarge);
    }
    let Some(path) = path(target) else { return Found::Bad(Status::BadRequest) };
    Found::Request(Request {
        is_head: method == "HEAD",
        path,
        range: said.range.filter(|_| method == "GET"),
        keeps_alive: if version >= 1 { !said.says_close } else { said.says_keep_alive },
        len,
    })
}

/// The path in a request's target, decoded (RFC 3986 §2.1); `None` if it is none, or goes up.
fn path(target: &str) -> Option<Cow<'_, str>> {
    // The absolute form, as for proxies (RFC 9112 §3.2.2).
    let target = match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => target,
    };
    if !target.starts_with('/') {
        return None;
    }
    let (mut end, mut is_encoded, mut may_go_up, mut last) = (target.len(), false, false, 0);
    for (at, byte) in target.bytes().enumerate() {
        match byte {
            b'?' | b'#' => {
                end = at;
                break;
            }
            b'%' => is_encoded = true,
            b'.' => may_go_up |= last == b'.',
            _ => {}
        }
        last = byte;
    }
    let encoded = &target[..end];
    let path = if is_encoded { Cow::Owned(decode(encoded)?) } else { Cow::Borrowed(encoded) };
    let goes_up = (is_encoded || may_go_up) && path.split('/').any(|part| part == "..");
    (!goes_up).then_some(path)
}

fn decode(encoded: &str) -> Option<String> {
    let mut bytes = encoded.bytes();
    let mut decoded = Vec::with_capacity(encoded.len());
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => {
                let mut digit = || (bytes.next()? as char).to_digit(16);
                (digit()? << 4 | digit()?) as u8
            }
            byte => byte,
        };
        if byte == 0 {
            return None;
        }
        decoded.push(byte);
    }
    String::from_utf8(decoded).ok()
}
