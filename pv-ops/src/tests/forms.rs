//! The inline bytes of each backend against what the assembler made of the same instructions.

use crate::{
    detect::TABLES,
    ops::OPS,
    table::{CALL_LENGTH, SITE_LENGTHS},
    tests::encoder::decode,
};
use std::{format, string::String, vec::Vec};

/// `instruction!` states each op twice, as text and as bytes: out of line the text was assembled, followed by `ret`.
#[test]
fn every_inline_form_is_what_the_assembler_makes_of_its_text() {
    const RET: u8 = 0xc3;
    for table in TABLES {
        for (info, body) in OPS.iter().zip(table.bodies()) {
            let Some(bytes) = body.bytes() else { continue };
            let code = body.code as *const u8;
            // SAFETY: the code of `instruction!` is as long as its bytes and one `ret`, or shorter, when the text
            // section goes on behind it.
            let assembled = unsafe { core::slice::from_raw_parts(code, bytes.len() + 1) };
            assert_eq!(&assembled[..bytes.len()], bytes, "{}", info.name);
            assert_eq!(assembled[bytes.len()], RET, "{}", info.name);
        }
    }
}

#[test]
fn every_site_has_room_for_every_form_of_its_op() {
    for table in TABLES {
        for (op, body) in table.bodies().iter().enumerate() {
            assert!(
                SITE_LENGTHS[op] >= CALL_LENGTH.max(body.bytes().map_or(0, <[u8]>::len)),
                "{}",
                OPS[op].name
            );
        }
    }
}

/// The bytes disassemble, to the last one, to as many instructions as the text has.
#[test]
fn every_inline_form_is_whole_instructions() {
    for table in TABLES {
        for (info, body) in OPS.iter().zip(table.bodies()) {
            let bytes = body.bytes().unwrap_or_default();
            let instructions = decode(bytes, 0);
            assert!(instructions.iter().all(|instruction| !instruction.is_invalid()), "{}", info.name);
            assert_eq!(instructions.iter().map(|instruction| instruction.len()).sum::<usize>(), bytes.len());
            let counted = body.inline.map_or(0, |inline| inline.instructions);
            assert_eq!(usize::from(counted), instructions.len(), "{}", info.name);
        }
    }
}

/// EOI writes the register at LOCAL_APIC + 0xb0 with an absolute address (SDM vol. 3A §11.8.5).
#[test]
fn xapic_eoi_writes_zero_to_the_fixed_page() {
    let eoi = decode(crate::native::OPS.eoi.erase().bytes().unwrap(), 0)[0];
    assert_eq!(eoi.memory_displacement64(), crate::native::LOCAL_APIC + 0xb0);
    assert_eq!(format!("{:?}", eoi.mnemonic()), "Mov");
    assert_eq!(eoi.immediate32(), 0);
}

#[test]
fn ops_have_unique_names_and_live_in_one_group_each() {
    for (index, op) in OPS.iter().enumerate() {
        assert!(OPS[..index].iter().all(|other| other.name != op.name), "{}", op.name);
        let last_of_group = OPS.iter().rposition(|other| other.group == op.group).unwrap();
        assert!(OPS[index..last_of_group].iter().all(|other| other.group == op.group), "{}", op.group);
    }
}

/// docs/pv-ops.md has a row for every op, in the table's order, with its native bytes.
#[test]
fn the_documentation_lists_every_op_with_its_native_bytes() {
    let documentation = include_str!("../../../docs/pv-ops.md");
    let (_, ops) = documentation.split_once("## The ops").unwrap();
    let rows: Vec<&str> = ops.lines().filter(|line| line.starts_with("| `")).collect();
    let bodies = crate::native::OPS.bodies();
    assert_eq!(rows.len(), OPS.len());
    for ((row, info), body) in rows.iter().zip(OPS).zip(bodies) {
        let columns: Vec<&str> = row.split('|').map(str::trim).collect();
        assert_eq!(columns[1], format!("`{}`", info.name));
        assert_eq!(columns[2].split(' ').next(), Some(&*format!("{:?}", info.class).to_lowercase()), "{row}");
        let bytes = match body.bytes() {
            Some([]) => "nothing".into(),
            Some(bytes) => {
                let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("`{}`", hex.join(" "))
            }
            None => "function".into(),
        };
        assert!(columns[3].starts_with(&bytes), "{row}: expected {bytes}");
    }
}
