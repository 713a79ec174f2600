//! The heads of answers (RFC 9110 §15, RFC 9112 §4).
#![forbid(unsafe_code)]

use alloc::{format, vec::Vec};
use core::ops::Range;

use kernel::sync::IrqMutex;

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

/// Writes the head of an answer to `out`. Piece by piece: formatting would take as long as everything else.
pub(crate) fn write_head(out: &mut Vec<u8>, head: &Head<'_>) {
    let Range { start, end } = head.bytes;
    let mut put = |piece: &str| out.extend_from_slice(piece.as_bytes());
    put("HTTP/1.1 ");
    put(head.status.line());
    put("\r\nServer: Pliant\r\nContent-Type: ");
    put(head.content_type);
    put("\r\nContent-Length: ");
    write_number(out, end - start);
    match head.status {
        Status::PartialContent => {
            out.extend_from_slice(b"\r\nContent-Range: bytes ");
            write_number(out, start);
            out.push(b'-');
            write_number(out, end.saturating_sub(1));
            out.push(b'/');
            write_number(out, head.file_len);
        }
        Status::RangeNotSatisfiable => {
            out.extend_from_slice(b"\r\nContent-Range: bytes */");
            write_number(out, head.file_len);
        }
        Status::MethodNotAllowed => out.extend_from_slice(b"\r\nAllow: GET, HEAD"),
        Status::Ok => out.extend_from_slice(b"\r\nAccept-Ranges: bytes"),
        _ => {}
    }
    if let Some(now) = kernel::time::wall() {
        write_date(out, now.as_secs());
    }
    out.extend_from_slice(if head.keeps_alive { b"\r\n\r\n" } else { b"\r\nConnection: close\r\n\r\n" });
}

fn write_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut first = digits.len();
    while first == digits.len() || number > 0 {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    out.extend_from_slice(&digits[first..]);
}

/// Bytes of a date.
const DATE_BYTES: usize = 29;

/// The date is the same for a second.
fn write_date(out: &mut Vec<u8>, seconds: u64) {
    static LAST: IrqMutex<(u64, [u8; DATE_BYTES])> = IrqMutex::new((0, [0; DATE_BYTES]));
    let mut last = LAST.lock();
    if last.0 != seconds {
        let text = format!("{}", Date(seconds));
        // A year of five digits does not fit, and has time.
        if let Ok(date) = text.as_bytes().try_into() {
            *last = (seconds, date);
        }
    }
    let date = last.1;
    drop(last);
    out.extend_from_slice(b"\r\nDate: ");
    out.extend_from_slice(&date);
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
