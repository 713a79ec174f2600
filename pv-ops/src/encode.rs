//! What a call site becomes, as bytes: pure, tested against a disassembler.
//! Neighbour: `patch` (writes them).

use crate::table::MAX_SITE;

/// What to put in the place of a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form<'a> {
    /// These instructions; none at all is fine.
    Inline(&'a [u8]),
    /// A direct call of this address.
    Call(u64),
    /// A direct jump to this address.
    Jump(u64),
}

/// Why a form does not fit its site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The site is shorter than the form.
    #[error("form of {form} bytes, site of {site}")]
    TooLong {
        /// Bytes of the form.
        form: usize,
        /// Bytes of the site.
        site: usize,
    },
    /// The target is not within 2 GiB of the site.
    #[error("target {0:#x} is out of reach")]
    OutOfReach(u64),
}

/// The bytes of a whole site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SiteBytes {
    bytes: [u8; MAX_SITE],
    length: usize,
}

impl core::ops::Deref for SiteBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl SiteBytes {
    fn push(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        let end = self.length + bytes.len();
        let too_long = EncodeError::TooLong { form: end, site: MAX_SITE };
        self.bytes.get_mut(self.length..end).ok_or(too_long)?.copy_from_slice(bytes);
        self.length = end;
        Ok(())
    }
}

/// The recommended no-operation instructions of 1 to 9 bytes (SDM vol. 2B, NOP, Table 4-12).
const NOPS: [&[u8]; 9] = [
    &[0x90],
    &[0x66, 0x90],
    &[0x0f, 0x1f, 0x00],
    &[0x0f, 0x1f, 0x40, 0x00],
    &[0x0f, 0x1f, 0x44, 0x00, 0x00],
    &[0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00],
    &[0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00],
    &[0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
    &[0x66, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
];

/// How many no-operation instructions fill so many bytes.
pub(crate) const fn nops(len_bytes: usize) -> usize {
    len_bytes.div_ceil(NOPS.len())
}

/// Length of `E8 rel32` (CALL) and `E9 rel32` (JMP).
const BRANCH_LENGTH: u64 = 5;

/// The `length` bytes for the site at `address` (where they will run, not where they are written).
pub fn encode(address: u64, length: usize, form: Form<'_>) -> Result<SiteBytes, EncodeError> {
    let mut site = SiteBytes { bytes: [0; MAX_SITE], length: 0 };
    match form {
        Form::Inline(bytes) if bytes.len() > length => {
            return Err(EncodeError::TooLong { form: bytes.len(), site: length });
        }
        Form::Inline(bytes) => site.push(bytes)?,
        Form::Call(target) => branch(&mut site, 0xe8, address, target)?,
        Form::Jump(target) => branch(&mut site, 0xe9, address, target)?,
    }
    if site.length > length {
        return Err(EncodeError::TooLong { form: site.length, site: length });
    }
    while site.length < length {
        let nop = (length - site.length).min(NOPS.len());
        site.push(NOPS[nop - 1])?;
    }
    Ok(site)
}

fn branch(site: &mut SiteBytes, opcode: u8, address: u64, target: u64) -> Result<(), EncodeError> {
    let distance = target.wrapping_sub(address.wrapping_add(BRANCH_LENGTH)) as i64;
    let distance = i32::try_from(distance).map_err(|_| EncodeError::OutOfReach(target))?;
    site.push(&[opcode])?;
    site.push(&distance.to_le_bytes())
}

/// The bytes of an unpatched site: an indirect call (or jump) through the slot, and one-byte nops.
pub fn unpatched(address: u64, length: usize, jump: bool, slot: u64) -> Result<SiteBytes, EncodeError> {
    const INDIRECT_LENGTH: u64 = 6;
    let mut site = SiteBytes { bytes: [0; MAX_SITE], length: 0 };
    let distance = slot.wrapping_sub(address.wrapping_add(INDIRECT_LENGTH)) as i64;
    let distance = i32::try_from(distance).map_err(|_| EncodeError::OutOfReach(slot))?;
    site.push(&[0xff, if jump { 0x25 } else { 0x15 }])?;
    site.push(&distance.to_le_bytes())?;
    while site.length < length {
        site.push(&[0x90])?;
    }
    Ok(site)
}
