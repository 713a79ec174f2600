//! The early console as safe Rust.
//! Neighbour: `ops` (`console_write`).

/// Writes text to the console that needs no driver, and waits until it is out.
/// Native: COM1 if there is one, else the debug port 0xe9. Xen: `CONSOLEIO_write`, or the console ring (later).
pub fn console_write(text: &[u8]) {
    // SAFETY: pointer and length of a slice that is borrowed until the op returns.
    unsafe { crate::ops::console_write(text.as_ptr(), text.len() as u64) }
}
