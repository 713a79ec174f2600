//! The encoder against a disassembler.

use crate::{
    encode::{EncodeError, Form, encode, unpatched},
    table::MAX_SITE,
};
use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic};
use proptest::prelude::*;
use std::vec::Vec;

pub(super) fn decode(bytes: &[u8], address: u64) -> Vec<Instruction> {
    let decoder = Decoder::with_ip(64, bytes, address, DecoderOptions::NONE);
    decoder.into_iter().collect()
}

/// SDM vol. 2B, NOP: one instruction for up to 9 bytes, as many as needed above.
#[test]
fn an_empty_form_is_as_few_long_nops_as_possible() {
    for length in 0..=MAX_SITE {
        let site = encode(0x1000, length, Form::Inline(&[])).unwrap();
        assert_eq!(site.len(), length);
        let instructions = decode(&site, 0x1000);
        assert!(instructions.iter().all(|instruction| instruction.mnemonic() == Mnemonic::Nop), "{length}");
        assert_eq!(instructions.len(), length.div_ceil(9));
    }
}

#[test]
fn inline_bytes_come_first_and_must_fit() {
    let site = encode(0, 6, Form::Inline(&[0xfa])).unwrap();
    assert_eq!(*site, [0xfa, 0x0f, 0x1f, 0x44, 0x00, 0x00]);
    let refused = encode(0, 1, Form::Inline(&[0xfb, 0xf4]));
    assert_eq!(refused, Err(EncodeError::TooLong { form: 2, site: 1 }));
    assert_eq!(encode(0, 4, Form::Call(0)), Err(EncodeError::TooLong { form: 5, site: 4 }));
    assert!(encode(0, MAX_SITE + 1, Form::Call(0)).is_err());
}

#[test]
fn a_branch_reaches_two_gigabytes_each_way_and_not_further() {
    let site = 0x40_0000_1234_u64;
    let next = site + 5;
    for target in [next + 0x7fff_ffff, next - 0x8000_0000, next] {
        let call = decode(&encode(site, 6, Form::Call(target)).unwrap(), site);
        assert_eq!(call[0].code(), Code::Call_rel32_64);
        assert_eq!(call[0].near_branch_target(), target);
        let jump = decode(&encode(site, 6, Form::Jump(target)).unwrap(), site);
        assert_eq!(jump[0].code(), Code::Jmp_rel32_64);
        assert_eq!(jump[0].near_branch_target(), target);
    }
    for target in [next + 0x8000_0000, next - 0x8000_0001] {
        assert_eq!(encode(site, 6, Form::Call(target)), Err(EncodeError::OutOfReach(target)));
    }
}

#[test]
fn the_unpatched_form_is_the_indirect_branch_through_the_slot() {
    let (site, slot) = (0x20_1234, 0x30_0008);
    for (jump, code) in [(false, Code::Call_rm64), (true, Code::Jmp_rm64)] {
        let instructions = decode(&unpatched(site, 8, jump, slot).unwrap(), site);
        assert_eq!(instructions[0].code(), code);
        assert_eq!(instructions[0].ip_rel_memory_address(), slot);
        assert_eq!(instructions.len(), 3, "the branch and two bytes of padding");
    }
}

proptest! {
    /// Whatever the form, the result has the site's length and is form then nops, or it is refused.
    #[test]
    fn a_site_is_filled_exactly(
        address: u64,
        length in 0..=MAX_SITE,
        distance: i32,
        kind in 0..3,
        inline in proptest::collection::vec(0x90_u8..=0x90, 0..=MAX_SITE),
    ) {
        let target = address.wrapping_add(5).wrapping_add_signed(i64::from(distance));
        let (form, size) = match kind {
            0 => (Form::Inline(&inline), inline.len()),
            1 => (Form::Call(target), 5),
            _ => (Form::Jump(target), 5),
        };
        match encode(address, length, form) {
            Ok(site) => {
                prop_assert!(size <= length);
                prop_assert_eq!(site.len(), length);
                let rest = decode(&site[size..], address.wrapping_add(size as u64));
                prop_assert!(rest.iter().all(|instruction| instruction.mnemonic() == Mnemonic::Nop));
                if kind > 0 {
                    let branch = decode(&site, address)[0];
                    prop_assert_eq!(branch.near_branch_target(), target);
                }
            }
            Err(error) => prop_assert_eq!(error, EncodeError::TooLong { form: size, site: length }),
        }
    }
}
