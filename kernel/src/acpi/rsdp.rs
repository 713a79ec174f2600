//! The root pointer: where all other tables are found (ACPI 6.5 §5.2.5).
//! Neighbours: `sdt` (what it points to).
#![forbid(unsafe_code)]

use super::{Error, PhysicalReader};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned, little_endian as le};

/// Where the root tables are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root {
    /// RSDT, with 32-bit addresses; 0 if there is none.
    pub rsdt: u64,
    /// XSDT, with 64-bit addresses, from revision 2 on.
    pub xsdt: Option<u64>,
}

/// Root System Description Pointer (§5.2.5.3).
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Rsdp {
    signature: [u8; 8],
    checksum: u8,
    oem_id: [u8; 6],
    revision: u8,
    rsdt_address: le::U32,
    length: le::U32,
    xsdt_address: le::U64,
    extended_checksum: u8,
    reserved: [u8; 3],
}

const SIGNATURE: &[u8; 8] = b"RSD PTR ";
/// Bytes of the structure as of ACPI 1.0, which the first checksum covers.
const LEN_V1: usize = 20;
/// Bytes as of ACPI 2.0, which the extended checksum covers.
const LEN_V2: usize = size_of::<Rsdp>();

/// The BIOS areas on a PC (§5.2.5.1): the first KiB of the extended BIOS data area, then the BIOS ROM.
const BIOS_ROM: core::ops::Range<u64> = 0xe_0000..0x10_0000;
/// The last KiB of base memory, where tables older than ACPI may stand too (MultiProcessor Specification 1.4 §4).
const BASE_MEMORY_END: core::ops::Range<u64> = 0x9_fc00..0xa_0000;
/// Real-mode segment of the extended BIOS data area.
const EBDA_SEGMENT: u64 = 0x40e;
const EBDA_LEN: u64 = 1024;
/// The pointer stands on a 16-byte boundary.
const STEP: usize = 16;

/// The root pointer at `hint`, or, if there is none or a bad one, by a search of the BIOS areas.
pub fn find(memory: &impl PhysicalReader, hint: Option<u64>) -> Result<Root, Error> {
    if let Some(address) = hint {
        match read(memory, address) {
            Ok(root) => return Ok(root),
            Err(error) => {
                log::warn!("ACPI: root pointer from the loader at {address:#x}: {error}: searching")
            }
        }
    }
    let mut root = None;
    search_bios(memory, SIGNATURE, &mut |address| {
        match read(memory, address) {
            Ok(found) => root = Some(found),
            Err(error) => log::warn!("ACPI: RSDP at {address:#x}: {error}"),
        }
        root.is_some()
    });
    root.ok_or(Error::NoRootPointer)
}

/// Offers each address in the BIOS areas at which `signature` stands on a 16-byte boundary, until one is taken.
pub fn search_bios(memory: &impl PhysicalReader, signature: &[u8], take: &mut dyn FnMut(u64) -> bool) {
    let mut segment = [0; 2];
    let ebda = memory.read(EBDA_SEGMENT, &mut segment).map(|()| u64::from(u16::from_le_bytes(segment)) << 4);
    let ebda = ebda.filter(|start| (0x400..0xa_0000).contains(start)).map(|start| start..start + EBDA_LEN);
    const BLOCK: usize = 1024;
    let mut block = [0; BLOCK];
    for start in ebda.into_iter().chain([BASE_MEMORY_END, BIOS_ROM]).flat_map(|area| area.step_by(BLOCK)) {
        if memory.read(start, &mut block).is_none() {
            continue;
        }
        let mut places = (start..).step_by(STEP).zip(block.chunks_exact(STEP));
        if places.any(|(address, bytes)| bytes.starts_with(signature) && take(address)) {
            return;
        }
    }
}

/// Reads and checks the structure at `address`.
fn read(memory: &impl PhysicalReader, address: u64) -> Result<Root, Error> {
    let mut bytes = [0; LEN_V2];
    let unreadable = |len| Error::Unreadable { address, len };
    memory.read(address, &mut bytes[..LEN_V1]).ok_or(unreadable(LEN_V1))?;
    if !bytes.starts_with(SIGNATURE) {
        let [a, b, c, d, ..] = bytes;
        return Err(Error::Signature { found: [a, b, c, d], expected: *b"RSD " });
    }
    super::sdt::checksum(&bytes[..LEN_V1])?;
    let revision = bytes[15];
    if revision >= 2 {
        memory.read(address, &mut bytes).ok_or(unreadable(LEN_V2))?;
    }
    let Ok(rsdp) = Rsdp::read_from_bytes(&bytes) else { return Err(unreadable(LEN_V2)) };
    let rsdt = u64::from(rsdp.rsdt_address.get());
    if revision < 2 {
        return Ok(Root { rsdt, xsdt: None });
    }
    // The length of all revisions so far; a longer future one would have its first 36 bytes alike.
    let length = rsdp.length.get() as usize;
    if length != LEN_V2 {
        return Err(Error::Length { found: length, min: LEN_V2, max: LEN_V2 });
    }
    super::sdt::checksum(&bytes)?;
    Ok(Root { rsdt, xsdt: Some(rsdp.xsdt_address.get()).filter(|&address| address != 0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Rom(u64, Vec<u8>);

    impl PhysicalReader for Rom {
        fn read(&self, address: u64, buffer: &mut [u8]) -> Option<()> {
            let start = usize::try_from(address.checked_sub(self.0)?).ok()?;
            buffer.copy_from_slice(self.1.get(start..start.checked_add(buffer.len())?)?);
            Some(())
        }
    }

    fn pointer(revision: u8) -> [u8; LEN_V2] {
        let mut bytes = [0; LEN_V2];
        bytes[..8].copy_from_slice(SIGNATURE);
        bytes[15] = revision;
        bytes[16..20].copy_from_slice(&0x1234_0000_u32.to_le_bytes());
        bytes[20] = LEN_V2 as u8;
        bytes[24..32].copy_from_slice(&0x5678_0000_u64.to_le_bytes());
        let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        bytes[8] = sum(&bytes[..LEN_V1]).wrapping_neg();
        bytes[32] = sum(&bytes).wrapping_neg();
        bytes
    }

    fn rom_with(revision: u8, offset: usize) -> Rom {
        let mut rom = vec![0; 0x2_0000];
        rom[offset..offset + LEN_V2].copy_from_slice(&pointer(revision));
        Rom(BIOS_ROM.start, rom)
    }

    #[test]
    fn the_search_finds_the_pointer_in_the_bios_rom() {
        let root = find(&rom_with(0, 0x1_4ab0), None).unwrap();
        assert_eq!(root, Root { rsdt: 0x1234_0000, xsdt: None });
        let root = find(&rom_with(2, 0x1_fff0 - 0x20), None).unwrap();
        assert_eq!(root.xsdt, Some(0x5678_0000));
    }

    #[test]
    fn a_bad_address_from_the_loader_falls_back_to_the_search() {
        assert!(find(&rom_with(2, 0x100), Some(0xdead_0000)).is_ok());
        assert!(find(&rom_with(2, 0x100), Some(u64::MAX)).is_ok());
    }

    #[test]
    fn a_pointer_with_any_flipped_bit_is_refused() {
        for bit in 0..LEN_V2 * 8 {
            let mut rom = rom_with(2, 0x100);
            rom.1[0x100 + bit / 8] ^= 1 << (bit % 8);
            assert_eq!(find(&rom, None), Err(Error::NoRootPointer), "bit {bit}");
        }
    }
}
