//! The kernel command line: words, `key=value` pairs and bare flags, owned and bounded.
//!
//! Words are separated by white space; `"` begins and ends a stretch in which white space separates nothing.
//! Quotes around a whole word or a whole value do not belong to it: `app.name="two words"` and
//! `"app.name=two words"` (which is how GRUB hands it over) mean the same. There are no escapes.
//!
//! Keys in use: `log=` error, warn, info, debug, trace · `console=` serial, vga, none · `pv=` native, kvm,
//! xen · `kvm=` features that it shall not use · `test=` filter · `app.*` whatever the app likes. Neighbours: `info` owns one.
#![forbid(unsafe_code)]

use crate::problem::{Problem, Structure};
use core::fmt;

/// Bytes of a command line that are kept.
pub const MAX_LEN: usize = 2048;

/// The command line, copied from wherever the loader had it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct CommandLine {
    text: heapless::String<MAX_LEN>,
}

impl fmt::Debug for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl CommandLine {
    /// The empty command line.
    pub const fn new() -> Self {
        Self { text: heapless::String::new() }
    }

    /// Copies `bytes` up to the first NUL or their end. What is no text (invalid UTF-8, control characters)
    /// becomes `?`; what does not fit is cut at a character. Each is told as a problem, and the rest holds.
    pub fn read(bytes: &[u8], mut problem: impl FnMut(Problem)) -> Self {
        let bytes = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
        let mut line = Self::new();
        let mut replaced = 0;
        let mut fits = true;
        let mut keep = |char: char| fits = fits && line.text.push(char).is_ok();
        for chunk in bytes.utf8_chunks() {
            for char in chunk.valid().chars() {
                match char {
                    '\t' | '\n' | '\r' => keep(' '),
                    _ if char.is_control() => {
                        replaced += 1;
                        keep('?');
                    }
                    _ => keep(char),
                }
            }
            for _ in chunk.invalid() {
                replaced += 1;
                keep('?');
            }
        }
        if replaced != 0 {
            problem(Problem::NotText { replaced });
        }
        if !fits {
            let (found, limit) = (bytes.len() as u64, MAX_LEN as u64);
            problem(Problem::TooMany { structure: Structure::CommandLine, found, limit });
        }
        line
    }

    /// The whole line.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The value of the last `key=value`, or `None` if there is none. A bare `key` has no value.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values(key).last()
    }

    /// The values of every `key=value`, in the line's order.
    pub fn values<'a>(&'a self, key: &str) -> impl Iterator<Item = &'a str> {
        self.words().filter_map(move |(name, value)| if name == key { value } else { None })
    }

    /// Whether the flag `key` is set: the last word of that key is bare, or its value is `1`, `on`, `yes` or
    /// `true`.
    pub fn flag(&self, key: &str) -> bool {
        match self.words().filter(|&(name, _)| name == key).last() {
            Some((_, value)) => value.is_none_or(|value| matches!(value, "1" | "on" | "yes" | "true")),
            None => false,
        }
    }

    /// All words: key and, if there is a `=`, value.
    pub fn words(&self) -> Words<'_> {
        Words { rest: &self.text }
    }
}

/// Iterator over the words of a [`CommandLine`].
#[derive(Clone, Debug)]
pub struct Words<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Words<'a> {
    type Item = (&'a str, Option<&'a str>);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest.trim_start();
        if rest.is_empty() {
            return None;
        }
        let mut quoted = false;
        let end = rest.find(|char: char| {
            quoted ^= char == '"';
            char.is_whitespace() && !quoted
        });
        let (word, rest) = end.and_then(|end| rest.split_at_checked(end)).unwrap_or((rest, ""));
        self.rest = rest;
        Some(match unquote(word).split_once('=') {
            Some((key, value)) => (key, Some(unquote(value))),
            None => (unquote(word), None),
        })
    }
}

/// Takes away the quotes around `text`: both, or the opening one of a quotation that never ends.
fn unquote(text: &str) -> &str {
    match text.strip_prefix('"') {
        Some(inner) if !inner.trim_end_matches('"').contains('"') => inner.strip_suffix('"').unwrap_or(inner),
        _ => text,
    }
}
