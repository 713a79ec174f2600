//! System description tables: the header they share, and the root tables that list the others
//! (ACPI 6.5 §5.2.6-§5.2.8).
#![forbid(unsafe_code)]

use super::{Error, PhysicalReader, rsdp::Root};
use alloc::vec::Vec;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned, little_endian as le};

/// A physical address as the firmware wrote it.
pub type Address = u64;

/// The longest table that is believed.
pub const MAX_LEN: usize = 1 << 20;

/// The header of every table (§5.2.6).
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Four letters that name the table.
    pub signature: [u8; 4],
    /// Bytes of the table, header included.
    pub length: le::U32,
    /// Revision of the table's layout.
    pub revision: u8,
    checksum: u8,
    oem_id: [u8; 6],
    oem_table_id: [u8; 8],
    oem_revision: le::U32,
    creator_id: [u8; 4],
    creator_revision: le::U32,
}

/// Bytes of the header.
pub const HEADER_LEN: usize = size_of::<Header>();

/// A checked copy of one table.
#[derive(Clone, Debug)]
pub struct Table(Vec<u8>);

impl Table {
    /// Copies the table at `address` and checks length, checksum and, if given, the signature.
    pub fn load(
        memory: &impl PhysicalReader,
        address: Address,
        expected: Option<[u8; 4]>,
    ) -> Result<Self, Error> {
        let header = header(memory, address)?;
        if let Some(expected) = expected.filter(|expected| *expected != header.signature) {
            return Err(Error::Signature { found: header.signature, expected });
        }
        let len = header.length.get() as usize;
        if !(HEADER_LEN..=MAX_LEN).contains(&len) {
            return Err(Error::Length { found: len, min: HEADER_LEN, max: MAX_LEN });
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len).map_err(|_| Error::OutOfMemory(len))?;
        let mut piece = [0; 256];
        for at in (0..len).step_by(piece.len()) {
            let piece = &mut piece[..256.min(len - at)];
            memory
                .read(address.saturating_add(at as u64), piece)
                .ok_or(Error::Unreadable { address, len })?;
            bytes.extend_from_slice(piece);
        }
        checksum(&bytes)?;
        Ok(Self(bytes))
    }

    /// All bytes, header included: offsets are those of the specification.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes after the header.
    pub fn body(&self) -> &[u8] {
        self.0.get(HEADER_LEN..).unwrap_or_default()
    }

    /// The fixed part `T` at the table's start (header included) and what follows it.
    pub fn fixed<T: FromBytes>(&self) -> Result<(T, &[u8]), Error> {
        T::read_from_prefix(&self.0).map_err(|_| Error::Length {
            found: self.0.len(),
            min: size_of::<T>(),
            max: MAX_LEN,
        })
    }
}

/// Where, at or behind `from`, the bytes of `word` stand. Byte by byte in a register: tables are searched at every start, and
/// comparing slices costs ten times as much.
pub fn find_word(bytes: &[u8], from: usize, word: &[u8; 4]) -> Option<usize> {
    let word = u32::from_be_bytes(*word);
    let mut last = 0;
    let seen = bytes.get(from..)?.iter().enumerate().position(|(index, &byte)| {
        last = last << 8 | u32::from(byte);
        last == word && index >= 3
    });
    seen.map(|at| from + at - 3)
}

/// All bytes of a table add up to zero.
pub fn checksum(bytes: &[u8]) -> Result<(), Error> {
    match bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)) {
        0 => Ok(()),
        rest => Err(Error::Checksum(rest)),
    }
}

/// The name of the table at `address`.
pub fn signature(memory: &impl PhysicalReader, address: Address) -> Result<[u8; 4], Error> {
    Ok(header(memory, address)?.signature)
}

fn header(memory: &impl PhysicalReader, address: Address) -> Result<Header, Error> {
    let mut bytes = [0; HEADER_LEN];
    let error = Error::Unreadable { address, len: HEADER_LEN };
    if address == 0 {
        return Err(error);
    }
    memory.read(address, &mut bytes).ok_or(error)?;
    Header::read_from_bytes(&bytes).map_err(|_| error)
}

/// The addresses that the XSDT lists, or the RSDT if there is no usable XSDT: without zeroes and duplicates.
pub fn root_entries(memory: &impl PhysicalReader, root: &Root) -> Result<Vec<Address>, Error> {
    if let Some(address) = root.xsdt {
        // That it is the XSDT says the root pointer. Xen gives a PVH dom0 on a host without one a good table with
        // a header of garbage, whose length and checksum are right.
        match Table::load(memory, address, None) {
            Ok(table) => {
                return Ok(unique(table.body().as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes))));
            }
            Err(error) => log::warn!("ACPI: XSDT at {address:#x}: {error}: trying the RSDT"),
        }
    }
    let table = Table::load(memory, root.rsdt, Some(*b"RSDT"))?;
    Ok(unique(table.body().as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes).into())))
}

fn unique(addresses: impl Iterator<Item = Address>) -> Vec<Address> {
    let mut list: Vec<Address> = addresses.take(super::MAX_TABLES).filter(|&address| address != 0).collect();
    list.sort_unstable();
    list.dedup();
    list
}

#[cfg(test)]
mod tests {
    use super::find_word;

    #[test]
    fn a_word_is_found_where_it_stands() {
        assert_eq!(find_word(b"_S_S5__S5_", 0, b"_S5_"), Some(2));
        assert_eq!(find_word(b"_S5__S5_", 1, b"_S5_"), Some(4));
        assert_eq!(find_word(b"_S5_S5_", 1, b"_S5_"), Some(3));
        assert_eq!(find_word(b"_S5_", 1, b"_S5_"), None);
        assert_eq!(find_word(b"_S5", 0, b"_S5_"), None);
        assert_eq!(find_word(b"x", 2, b"_S5_"), None);
        for word in [[0; 4], [0xff; 4]] {
            assert_eq!(find_word(&word[..3], 0, &word), None);
            assert_eq!(find_word(&word, 0, &word), Some(0));
        }
    }
}
