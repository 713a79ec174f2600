//! How a disk image carries the kernel command line: as the ramdisk of the `bootloader` protocol, which has no other place.
//!
//! One page: eight bytes of magic, the text, zero bytes. The reader is `boot/src/bootloader.rs`, to which what follows
//! that page is the module.

use anyhow::{Result, ensure};

/// Marks a ramdisk that begins with a command line.
const MAGIC: &[u8; 8] = b"PLNTCMD1";
/// What magic, text and at least one zero byte have room in.
const PAGE_BYTES: usize = 4096;

/// The ramdisk that holds `command_line`.
///
/// # Errors
/// It contains a zero byte or does not fit.
pub(super) fn encode(command_line: &str) -> Result<Vec<u8>> {
    ensure!(!command_line.contains('\0'), "the command line contains a zero byte");
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(command_line.as_bytes());
    ensure!(
        bytes.len() < PAGE_BYTES,
        "a command line of {} bytes does not fit a disk image",
        command_line.len()
    );
    bytes.resize(PAGE_BYTES, 0);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_stands_between_magic_and_zero() {
        let page = encode("log=debug").unwrap();
        assert!(page.starts_with(b"PLNTCMD1log=debug\0"));
        assert_eq!(page.len(), PAGE_BYTES);
    }

    #[test]
    fn what_cannot_be_carried_is_refused() {
        assert!(encode("a\0b").is_err());
        assert!(encode(&"x".repeat(PAGE_BYTES - MAGIC.len() - 1)).is_ok());
        assert!(encode(&"x".repeat(PAGE_BYTES - MAGIC.len())).is_err());
    }
}
