//! Leaving a console that takes every key: Ctrl-A X, as in QEMU's own terminal. Ctrl-A twice types it.

use std::io::{self, Write};

const CTRL_A: u8 = 1;

/// Passes bytes on to `to`, until somebody leaves.
pub(crate) struct Escape<W, L> {
    to: W,
    leave: L,
    after_ctrl_a: bool,
}

impl<W: Write, L: Fn()> Escape<W, L> {
    /// Calls `leave` when Ctrl-A X is typed.
    pub(crate) fn new(to: W, leave: L) -> Self {
        Self { to, leave, after_ctrl_a: false }
    }
}

impl<W: Write, L: Fn()> Write for Escape<W, L> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut passed = Vec::new();
        for &byte in bytes {
            match (std::mem::take(&mut self.after_ctrl_a), byte) {
                (true, b'x' | b'X') => (self.leave)(),
                (true, CTRL_A) => passed.push(CTRL_A),
                (true, _) => {}
                (false, CTRL_A) => self.after_ctrl_a = true,
                (false, _) => passed.push(byte),
            }
        }
        self.to.write_all(&passed)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn everything_passes_but_the_way_out() {
        let left = Cell::new(0);
        let mut out = Vec::new();
        let mut escape = Escape::new(&mut out, || left.set(left.get() + 1));
        escape.write_all(b"ax\x01\x01b\x01").unwrap();
        assert_eq!(left.get(), 0);
        escape.write_all(b"xc").unwrap();
        assert_eq!((left.get(), out.as_slice()), (1, &b"ax\x01bc"[..]));
    }
}
