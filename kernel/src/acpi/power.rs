//! Power off and reset as a list of register writes (ACPI 6.5 §4.8.3, §7.4.2, §16.1.7).
//! Neighbours: `fadt` (the registers), `crate::power` (who writes them).
#![forbid(unsafe_code)]

use super::{
    fadt::{Fadt, Flags, Register},
    sdt::find_word,
};
use heapless::Vec;

/// One write to a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    /// Where.
    pub register: Register,
    /// Bytes of the access: 1 or 2.
    pub len_bytes: u8,
    /// Bits of the register's old value that stay; if not 0, read the register first.
    pub keep: u16,
    /// The bits to set.
    pub value: u16,
}

/// How to switch off and to reset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Power {
    /// Writes that switch the machine off (S5), in order; empty if ACPI knows no way.
    pub off: Vec<Write, 3>,
    /// The write that resets the machine.
    pub reset: Option<Write>,
}

/// The two numbers of the `_S5_` package: SLP_TYPa and SLP_TYPb (§7.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SleepType {
    /// For the PM1a or the sleep control register.
    pub a: u8,
    /// For the PM1b register.
    pub b: u8,
}

/// PM1 control (§4.8.3.2.1): SLP_TYP in bits 10-12, SLP_EN bit 13.
const PM1_SLP_TYP: u32 = 10;
const PM1_SLP_EN: u16 = 1 << 13;
const PM1_SLEEP_BITS: u16 = 0b1111 << 10;
/// Sleep control (§4.8.3.7): SLP_TYP in bits 2-4, SLP_EN bit 5.
const SLEEP_CONTROL_SLP_TYP: u32 = 2;
const SLEEP_CONTROL_SLP_EN: u16 = 1 << 5;

impl Power {
    /// Nothing known.
    pub const NONE: Self = Self { off: Vec::new(), reset: None };

    /// What can be done on a machine with this FADT and `_S5_` package.
    pub fn new(fadt: &Fadt, sleep: Option<SleepType>) -> Self {
        let byte = |register, value| Write { register, len_bytes: 1, keep: 0, value };
        let mut writes: [Option<Write>; 3] = [None; 3];
        if let Some(SleepType { a, b }) = sleep {
            let pm1 = |register, kind: u8| Write {
                register,
                len_bytes: 2,
                keep: !PM1_SLEEP_BITS,
                value: u16::from(kind) << PM1_SLP_TYP | PM1_SLP_EN,
            };
            let sleep_control = fadt
                .sleep_control
                .map(|register| byte(register, u16::from(a) << SLEEP_CONTROL_SLP_TYP | SLEEP_CONTROL_SLP_EN));
            writes = match fadt.pm1a_control.filter(|_| !fadt.flags.contains(Flags::HW_REDUCED_ACPI)) {
                Some(pm1a) => [
                    fadt.acpi_enable.map(|(port, value)| byte(Register::Port(port), value.into())),
                    Some(pm1(pm1a, a)),
                    fadt.pm1b_control.map(|pm1b| pm1(pm1b, b)),
                ],
                None => [sleep_control, None, None],
            };
        }
        let reset = fadt.reset.map(|(register, value)| byte(register, value.into()));
        Self { off: writes.into_iter().flatten().collect(), reset }
    }
}

// AML encodings (§20.2).
const NAME_OP: u8 = 0x08;
const PACKAGE_OP: u8 = 0x12;
const BYTE_PREFIX: u8 = 0x0a;
const WORD_PREFIX: u8 = 0x0b;
const DWORD_PREFIX: u8 = 0x0c;

/// Finds `Name (_S5_, Package { a, b, ... })` in AML by its bytes: the one thing that is needed of a language
/// which is not interpreted here. The first match that decodes to sleep types of three bits counts.
pub fn find_s5(aml: &[u8]) -> Option<SleepType> {
    let mut from = 0;
    while let Some(at) = find_word(aml, from, b"_S5_") {
        let before = &aml[..at];
        let named = before.ends_with(&[NAME_OP]) || before.ends_with(&[NAME_OP, b'\\']);
        if let Some(found) = aml.get(at + 4..).filter(|_| named).and_then(decode_package) {
            return Some(found);
        }
        from = at + 1;
    }
    None
}

/// PackageOp, PkgLength, NumElements, then the elements.
fn decode_package(aml: &[u8]) -> Option<SleepType> {
    let (&op, rest) = aml.split_first()?;
    if op != PACKAGE_OP {
        return None;
    }
    let extra_length_bytes = usize::from(rest.first()? >> 6);
    let (&elements, rest) = rest.get(1 + extra_length_bytes..)?.split_first()?;
    let (a, rest) = decode_integer(rest)?;
    // A package of one element serves both registers: old firmware writes so.
    let b = if elements >= 2 { decode_integer(rest)?.0 } else { a };
    (a < 8 && b < 8).then_some(SleepType { a, b })
}

/// An integer constant of which only the low byte counts.
fn decode_integer(aml: &[u8]) -> Option<(u8, &[u8])> {
    let (&op, rest) = aml.split_first()?;
    let len = match op {
        0 | 1 => return Some((op, rest)),
        BYTE_PREFIX => 1,
        WORD_PREFIX => 2,
        DWORD_PREFIX => 4,
        _ => return None,
    };
    Some((*rest.first()?, rest.get(len..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_small_number_is_understood() {
        let package = |elements: &[u8]| [b"\x08_S5_\x12\x0a\x04".as_slice(), elements].concat();
        for (elements, a, b) in [
            (&[0, 0, 0, 0][..], 0, 0),
            (&[1, 0x0a, 5, 0, 0], 1, 5),
            (&[0x0b, 7, 0, 0x0c, 6, 0, 0, 0, 0, 0], 7, 6),
        ] {
            for before in [&b""[..], b"\0", b"\x10\x05_SB_"] {
                assert_eq!(find_s5(&[before, &package(elements)].concat()), Some(SleepType { a, b }));
            }
        }
        assert_eq!(find_s5(&package(&[0x0a, 9, 0x0a, 0])), None, "not three bits");
        assert_eq!(find_s5(b"_S5_"), None);
    }
}
