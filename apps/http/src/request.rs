//! What a client asks (RFC 9112 §3, §6, §9).
#![forbid(unsafe_code)]

use alloc::{string::String, vec::Vec};

use crate::response::Status;

/// Fields that a request may have.
const MOST_FIELDS: usize = 48;

/// A request that can be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// Only the head of the answer is wanted.
    pub(crate) is_head: bool,
    /// The path, decoded; without the query.
    pub(crate) path: String,
    /// The value of `Range`.
    pub(crate) range: Option<String>,
    /// The connection goes on after the answer.
    pub(crate) keeps_alive: bool,
    /// Bytes of the request.
    pub(crate) len: usize,
}

/// What was found in the bytes that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A request.
    Request(Request),
    /// The beginning of one.
    Partial,
    /// What cannot be answered but by this; then the connection ends.
    Bad(Status),
}

/// Looks for a request at the beginning of `bytes`.
pub(crate) fn find(bytes: &[u8]) -> Found {
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let len = match request.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Found::Partial,
        Err(httparse::Error::TooManyHeaders) => return Found::Bad(Status::FieldsTooLarge),
        Err(httparse::Error::Version) => return Found::Bad(Status::VersionNotSupported),
        Err(_) => return Found::Bad(Status::BadRequest),
    };
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Found::Bad(Status::BadRequest);
    };
    let fields = &*request.headers;
    let values = |name: &'static str| {
        let named = fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
        named.map(|field| core::str::from_utf8(field.value).unwrap_or("").trim())
    };
    // A request of version 1.1 names exactly one host (RFC 9112 §3.2).
    if values("host").count() > 1 || (version >= 1 && values("host").next().is_none()) {
        return Found::Bad(Status::BadRequest);
    }
    let has_body =
        values("transfer-encoding").next().is_some() || values("content-length").any(|len| len != "0");
    if !matches!(method, "GET" | "HEAD") {
        return Found::Bad(Status::MethodNotAllowed);
    }
    if has_body {
        return Found::Bad(Status::ContentTooLarge);
    }
    let says = |word: &str| {
        values("connection")
            .flat_map(|value| value.split(','))
            .any(|said| said.trim().eq_ignore_ascii_case(word))
    };
    let Some(path) = path(target) else { return Found::Bad(Status::BadRequest) };
    Found::Request(Request {
        is_head: method == "HEAD",
        path,
        range: values("range").next().filter(|_| method == "GET").map(String::from),
        keeps_alive: if version >= 1 { !says("close") } else { says("keep-alive") },
        len,
    })
}

/// The path in a request's target, decoded (RFC 3986 §2.1); `None` if it is none, or goes up.
fn path(target: &str) -> Option<String> {
    // The absolute form, as for proxies (RFC 9112 §3.2.2).
    let target = match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => target,
    };
    let encoded = target.split(['?', '#']).next()?;
    if !encoded.starts_with('/') {
        return None;
    }
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
    let path = String::from_utf8(decoded).ok()?;
    (!path.split('/').any(|part| part == "..")).then_some(path)
}
