//! A page that somebody else reads and writes at any time.
//! Neighbours: `stream`, `ring` (what lies in such pages).
#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicU32, Ordering};

/// Bytes of a page.
pub const PAGE_BYTES: usize = 4096;

/// A page of memory shared with another domain. All access is atomic by words of 32 bits, so that whatever the other
/// side does at the same time, this side reads some value.
///
/// A word has one writer: bytes next to each other that both sides write must lie in different words, as they do in
/// all of Xen's interfaces.
#[repr(C, align(4096))]
#[derive(Debug)]
pub struct SharedPage([AtomicU32; PAGE_BYTES / 4]);

impl SharedPage {
    /// A page of zeroes.
    pub const fn new() -> Self {
        Self([const { AtomicU32::new(0) }; PAGE_BYTES / 4])
    }

    /// All of it, word by word.
    pub fn words(&self) -> &[AtomicU32; PAGE_BYTES / 4] {
        &self.0
    }

    /// The word at byte `offset`.
    ///
    /// # Panics
    /// When the offset is no multiple of 4 or outside the page.
    pub fn word(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4), "a word at byte {offset}");
        &self.0[offset / 4]
    }

    /// Reads the bytes from `offset` on.
    ///
    /// # Panics
    /// When they reach outside the page.
    pub fn read(&self, offset: usize, mut bytes: &mut [u8]) {
        let mut at = offset;
        while !bytes.is_empty() {
            let word = &self.0[at / 4].load(Ordering::Relaxed).to_le_bytes()[at % 4..];
            let (now, later) = bytes.split_at_mut(word.len().min(bytes.len()));
            now.copy_from_slice(&word[..now.len()]);
            at += now.len();
            bytes = later;
        }
    }

    /// Writes `bytes` from `offset` on.
    ///
    /// # Panics
    /// When they reach outside the page.
    pub fn write(&self, offset: usize, mut bytes: &[u8]) {
        let mut at = offset;
        while !bytes.is_empty() {
            let place = &self.0[at / 4];
            let mut word = place.load(Ordering::Relaxed).to_le_bytes();
            let (now, later) = bytes.split_at((4 - at % 4).min(bytes.len()));
            word[at % 4..][..now.len()].copy_from_slice(now);
            place.store(u32::from_le_bytes(word), Ordering::Relaxed);
            at += now.len();
            bytes = later;
        }
    }

    /// Makes all bytes zero.
    pub fn clear(&self) {
        self.words().iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }
}

impl Default for SharedPage {
    fn default() -> Self {
        Self::new()
    }
}

const _: () = assert!(size_of::<SharedPage>() == PAGE_BYTES && align_of::<SharedPage>() == PAGE_BYTES);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back_and_nothing_else_changes(
            offset in 0..4000_usize,
            bytes in prop::collection::vec(any::<u8>(), 0..96),
        ) {
            let page = SharedPage::new();
            page.write(offset, &bytes);
            let mut all = [0; PAGE_BYTES];
            page.read(0, &mut all);
            prop_assert_eq!(&all[offset..offset + bytes.len()], &bytes[..]);
            all[offset..offset + bytes.len()].fill(0);
            prop_assert!(all.iter().all(|&byte| byte == 0));
        }
    }

    #[test]
    fn words_are_little_endian_at_their_offset() {
        let page = SharedPage::new();
        page.word(3084).store(0x0403_0201, Ordering::Relaxed);
        let mut bytes = [0; 4];
        page.read(3084, &mut bytes);
        assert_eq!(bytes, [1, 2, 3, 4]);
        page.clear();
        assert_eq!(page.word(3084).load(Ordering::Relaxed), 0);
    }
}
