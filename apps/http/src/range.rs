//! Parts of files (RFC 9110 §14).
#![forbid(unsafe_code)]

use core::ops::Range;

/// What a request wants of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of it.
    Whole,
    /// These bytes, which are there.
    Bytes(Range<u64>),
    /// Bytes that are not there.
    Missing,
}

/// What the value of a `Range` field wants of a file of `len` bytes. Several ranges, or what is no range, are the same
/// as none (§14.2).
pub(crate) fn part(value: &str, len: u64) -> Part {
    let Some(spec) = value.trim().strip_prefix("bytes=") else { return Part::Whole };
    let Some((first, last)) = spec.trim().split_once('-') else { return Part::Whole };
    let number = |text: &str| match text {
        _ if !text.bytes().all(|byte| byte.is_ascii_digit()) => None,
        // Longer than any file.
        _ => Some(text.parse::<u64>().unwrap_or(u64::MAX)),
    };
    match (first, last) {
        ("", "") => Part::Whole,
        ("", last) => match number(last) {
            None => Part::Whole,
            Some(0) => Part::Missing,
            Some(_) if len == 0 => Part::Missing,
            Some(count) => Part::Bytes(len.saturating_sub(count)..len),
        },
        (first, last) => match (number(first), if last.is_empty() { Some(u64::MAX) } else { number(last) }) {
            (Some(first), Some(last)) if first > last => Part::Whole,
            (Some(first), Some(_)) if first >= len => Part::Missing,
            (Some(first), Some(last)) => Part::Bytes(first..last.saturating_add(1).min(len)),
            _ => Part::Whole,
        },
    }
}
