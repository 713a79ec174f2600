//! Names for code addresses, from the table that the host tool puts into the image's section `.symbols`.
//!
//! Layout, little endian: magic `PLNTSYM1` (u64), length of all (u64), number of symbols (u32), length of the
//! names (u32), then per symbol {offset from the image's first address (u32), end of its name in the names
//! (u32)}, sorted by offset, then the names. An image that was not treated has a table without symbols.
//! Neighbours: `boot/link.ld` (the place), `backtrace` (who asks), `cpu::image` (the bytes).
#![forbid(unsafe_code)]

use crate::{cpu::image, sync::OnceCell};

/// The image's first address, from which the offsets count.
const IMAGE_START: u64 = 0xffff_ffff_8020_0000;

/// `PLNTSYM1` as its bytes stand in memory.
const MAGIC: u64 = 0x314d_5953_544e_4c50;
const HEADER_LEN: usize = 24;

/// A checked table.
#[derive(Clone, Copy, Debug)]
pub struct Symbols<'a> {
    /// {offset, end of name} of each symbol.
    records: &'a [[u8; 8]],
    names: &'a [u8],
}

impl<'a> Symbols<'a> {
    /// Checks the header. `None` when there are no symbols or the table does not fit its own lengths.
    pub fn parse(blob: &'a [u8]) -> Option<Self> {
        if word64(blob, 0)? != MAGIC {
            return None;
        }
        let blob = blob.get(..usize::try_from(word64(blob, 8)?).ok()?)?;
        let (count, names_len) = (word32(blob, 16)? as usize, word32(blob, 20)? as usize);
        let records_end = count.checked_mul(8)?.checked_add(HEADER_LEN)?;
        let (records, _) = blob.get(HEADER_LEN..records_end)?.as_chunks();
        let names = blob.get(records_end..)?.get(..names_len)?;
        (count > 0).then_some(Self { records, names })
    }

    /// The symbol at or before `address` and the distance to it in bytes. `None` below the first one.
    pub fn lookup(&self, address: u64) -> Option<(&'a str, u64)> {
        let offset = u32::try_from(address.checked_sub(IMAGE_START)?).ok()?;
        let index = self.records.partition_point(|record| start(record) <= offset).checked_sub(1)?;
        let record = self.records.get(index)?;
        let name_start = match index.checked_sub(1) {
            Some(previous) => name_end(self.records.get(previous)?),
            None => 0,
        };
        let name = self.names.get(name_start..name_end(record))?;
        Some((core::str::from_utf8(name).ok()?, u64::from(offset - start(record))))
    }

    /// Number of symbols.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// No symbols.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}

fn start(&[a, b, c, d, ..]: &[u8; 8]) -> u32 {
    u32::from_le_bytes([a, b, c, d])
}

fn name_end(&[.., a, b, c, d]: &[u8; 8]) -> usize {
    u32::from_le_bytes([a, b, c, d]) as usize
}

fn word32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

fn word64(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_le_bytes)
}

/// The running image's symbols; `None` when it has none.
pub fn table() -> Option<&'static Symbols<'static>> {
    static TABLE: OnceCell<Option<Symbols<'static>>> = OnceCell::uninit();
    // Never waits: a panic in the middle of the first call just prints no names.
    let _ = TABLE.try_init_once(|| Symbols::parse(image::symbols()));
    TABLE.try_get().ok()?.as_ref()
}

/// The name of the function that contains the code address `address` of this image, and the distance to its
/// start in bytes.
pub fn lookup(address: u64) -> Option<(&'static str, u64)> {
    table().filter(|_| image::is_code(address))?.lookup(address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn blob(symbols: &[(u32, &str)]) -> Vec<u8> {
        let names: String = symbols.iter().map(|(_, name)| *name).collect();
        let total = HEADER_LEN + symbols.len() * 8 + names.len();
        let mut blob = MAGIC.to_le_bytes().to_vec();
        blob.extend((total as u64).to_le_bytes());
        blob.extend((symbols.len() as u32).to_le_bytes());
        blob.extend((names.len() as u32).to_le_bytes());
        let mut end = 0;
        for (offset, name) in symbols {
            end += name.len() as u32;
            blob.extend(offset.to_le_bytes());
            blob.extend(end.to_le_bytes());
        }
        blob.extend(names.as_bytes());
        blob
    }

    const SYMBOLS: &[(u32, &str)] = &[(0x10, "boot::start"), (0x40, "kernel::main"), (0x1000, "last")];

    #[test]
    fn an_address_belongs_to_the_symbol_before_it() {
        assert_eq!(MAGIC.to_le_bytes(), *b"PLNTSYM1");
        let blob = blob(SYMBOLS);
        let symbols = Symbols::parse(&blob).unwrap();
        assert_eq!(symbols.len(), 3);
        let at = |offset| symbols.lookup(IMAGE_START + offset);
        assert_eq!(at(0x0f), None);
        assert_eq!(at(0x10), Some(("boot::start", 0)));
        assert_eq!(at(0x3f), Some(("boot::start", 0x2f)));
        assert_eq!(at(0x40), Some(("kernel::main", 0)));
        assert_eq!(at(0x1234), Some(("last", 0x234)));
        assert_eq!(symbols.lookup(0), None);
        assert_eq!(symbols.lookup(u64::MAX), Some(("last", u64::MAX - IMAGE_START - 0x1000)));
    }

    #[test]
    fn the_placeholder_of_an_untreated_image_has_no_symbols() {
        let mut placeholder = MAGIC.to_le_bytes().to_vec();
        placeholder.extend(16u64.to_le_bytes());
        assert!(Symbols::parse(&placeholder).is_none());
        assert!(Symbols::parse(&[]).is_none());
    }

    proptest! {
        #[test]
        fn a_damaged_table_never_panics(
            at in 0usize..100, byte: u8, len in 0usize..120, address in IMAGE_START..IMAGE_START + 0x2000,
        ) {
            let mut blob = blob(SYMBOLS);
            let at = at % blob.len();
            blob[at] = byte;
            blob.truncate(len);
            if let Some(symbols) = Symbols::parse(&blob) {
                let _ = symbols.lookup(address);
            }
        }
    }
}
