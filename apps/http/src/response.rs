//! The heads of answers (RFC 9110 §15, RFC 9112 §4).
#![forbid(unsafe_code)]

use alloc::{string::String, vec::Vec};
use core::{fmt::Write, ops::Range};

/// How a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Here it is.
    Ok,
    /// Here is the part of it.
    PartialContent,
    /// This is no request.
    BadRequest,
    /// There is no such file.
    NotFound,
    /// Files can be got, and nothing else.
    MethodNotAllowed,
    /// The client took too long.
    RequestTimeout,
    /// No request here has content.
    ContentTooLarge,
    /// The file has no such part.
    RangeNotSatisfiable,
    /// The request has more fields than there is room for.
    FieldsTooLarge,
    /// The disk failed.
    InternalServerError,
    /// A version of HTTP that is not spoken here.
    VersionNotSupported,
}

impl Status {
    /// Code and reason.
    fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::PartialContent => "206 Partial Content",
            Self::BadRequest => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::RequestTimeout => "408 Request Timeout",
            Self::ContentTooLarge => "413 Content Too Large",
            Self::RangeNotSatisfiable => "416 Range Not Satisfiable",
            Self::FieldsTooLarge => "431 Request Header Fields Too Large",
            Self::InternalServerError => "500 Internal Server Error",
            Self::VersionNotSupported => "505 HTTP Version Not Supported",
        }
    }
}

/// What an answer says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Head<'a> {
    /// How the request ended.
    pub(crate) status: Status,
    /// What the content is.
    pub(crate) content_type: &'a str,
    /// Bytes of the file, of which `bytes` are sent.
    pub(crate) file_len: u64,
    /// Which bytes of the file are sent.
    pub(crate) bytes: Range<u64>,
    /// The connection goes on.
    pub(crate) keeps_alive: bool,
}

/// Writes the head of an answer to `out`.
pub(crate) fn write_head(out: &mut Vec<u8>, head: &Head<'_>) {
    let mut text = String::new();
    let length = head.bytes.end - head.bytes.start;
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "HTTP/1.1 {}\r\nServer: Pliant\r\nContent-Type: {}\r\nContent-Length: {length}\r\n",
        head.status.line(),
        head.content_type,
    );
    let _ = match head.status {
        Status::PartialContent => {
            let Range { start, end } = head.bytes;
            write!(text, "Content-Range: bytes {start}-{}/{}\r\n", end.saturating_sub(1), head.file_len)
        }
        Status::RangeNotSatisfiable => write!(text, "Content-Range: bytes */{}\r\n", head.file_len),
        Status::MethodNotAllowed => text.write_str("Allow: GET, HEAD\r\n"),
        Status::Ok => text.write_str("Accept-Ranges: bytes\r\n"),
        _ => Ok(()),
    };
    if let Some(now) = kernel::time::wall() {
        let _ = write!(text, "Date: {}\r\n", Date(now.as_secs()));
    }
    text.push_str(if head.keeps_alive { "\r\n" } else { "Connection: close\r\n\r\n" });
    out.extend_from_slice(text.as_bytes());
}

/// Writes a whole answer that says no more than its status.
pub(crate) fn write_status(
    out: &mut Vec<u8>,
    status: Status,
    file_len: u64,
    keeps_alive: bool,
    is_head: bool,
) {
    let body = status.line();
    let bytes = 0..body.len() as u64 + 1;
    write_head(out, &Head { status, content_type: "text/plain", file_len, bytes, keeps_alive });
    if !is_head {
        out.extend_from_slice(body.as_bytes());
        out.push(b'\n');
    }
}

/// Seconds since 1970, as HTTP writes them: `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 §5.6.7).
struct Date(u64);

impl core::fmt::Display for Date {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let date = drivers::rtc::DateTime::from_unix(self.0);
        let day = DAYS[(self.0 / 86400 % 7) as usize];
        let month = MONTHS.get(usize::from(date.month).wrapping_sub(1)).unwrap_or(&"Jan");
        let (year, hour, minute, second) = (date.year, date.hour, date.minute, date.second);
        write!(out, "{day}, {:02} {month} {year} {hour:02}:{minute:02}:{second:02} GMT", date.day)
    }
}
