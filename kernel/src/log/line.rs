//! A line being put together on the stack.
#![forbid(unsafe_code)]

use core::fmt;

/// Bytes of a line at most, its end included.
const MAX_BYTES: usize = 512;
/// What ends a line that was too long.
const CUT: &[u8] = b"...\n";

/// A bounded line: takes any text and keeps what fits.
pub(super) struct Line {
    bytes: [u8; MAX_BYTES],
    len: usize,
    cut: bool,
}

impl Default for Line {
    fn default() -> Self {
        Self { bytes: [0; MAX_BYTES], len: 0, cut: false }
    }
}

impl Line {
    /// The line with its end.
    pub(super) fn end(&mut self) -> &[u8] {
        let end = if self.cut { CUT } else { b"\n" };
        self.bytes[self.len..self.len + end.len()].copy_from_slice(end);
        &self.bytes[..self.len + end.len()]
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = MAX_BYTES - CUT.len() - self.len;
        let fits = if self.cut { 0 } else { text.floor_char_boundary(room) };
        self.cut |= fits < text.len();
        self.bytes[self.len..self.len + fits].copy_from_slice(&text.as_bytes()[..fits]);
        self.len += fits;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::fmt::Write;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_line_is_whole_or_cut_at_a_character(parts in prop::collection::vec("\\PC{0,80}", 0..20)) {
            let mut line = Line::default();
            parts.iter().for_each(|part| line.write_str(part).unwrap());
            let text = parts.concat();
            let shown = std::str::from_utf8(line.end()).unwrap();
            match shown.strip_suffix("...\n") {
                Some(start) if !text.ends_with("...") => prop_assert!(text.starts_with(start) && start.len() > MAX_BYTES - 9),
                _ => prop_assert_eq!(shown, text + "\n"),
            }
        }
    }
}
