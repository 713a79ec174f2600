//! The parsers on the tables of QEMU 7.2's machines, whole and damaged.
//!
//! A dump in `kernel/testdata/acpi` is a list of {physical address u64, length u32, bytes}, little endian.
#![forbid(unsafe_code)]

use super::{
    fadt::{BootFlags, Flags, Register},
    madt::{IoApic, Override, Signal},
    power::Write,
    *,
};
use proptest::prelude::*;

const Q35: &[u8] = include_bytes!("../../testdata/acpi/q35.bin");
const PC: &[u8] = include_bytes!("../../testdata/acpi/pc.bin");
const MICROVM: &[u8] = include_bytes!("../../testdata/acpi/microvm.bin");

/// A machine whose memory is the tables and nothing else.
#[derive(Clone)]
struct Memory(Vec<(u64, Vec<u8>)>);

impl Memory {
    fn new(mut dump: &[u8]) -> Self {
        let mut ranges = Vec::new();
        while let Some((header, rest)) = dump.split_first_chunk::<12>() {
            let (address, len) = header.split_at(8);
            let len = u32::from_le_bytes(len.try_into().unwrap()) as usize;
            ranges.push((u64::from_le_bytes(address.try_into().unwrap()), rest[..len].to_vec()));
            dump = &rest[len..];
        }
        Self(ranges)
    }

    fn rsdp(&self) -> u64 {
        self.0[0].0
    }

    fn table(&mut self, signature: &[u8; 4]) -> &mut Vec<u8> {
        &mut self.0.iter_mut().find(|(_, bytes)| bytes.starts_with(signature)).unwrap().1
    }

    fn tables(&self) -> Tables {
        Tables::read(self, Some(self.rsdp()))
    }
}

impl PhysicalReader for Memory {
    fn read(&self, address: u64, buffer: &mut [u8]) -> Option<()> {
        self.0.iter().find_map(|(start, bytes)| {
            let from = usize::try_from(address.checked_sub(*start)?).ok()?;
            buffer.copy_from_slice(bytes.get(from..from.checked_add(buffer.len())?)?);
            Some(())
        })
    }
}

/// Makes the checksum of a table right again after a change.
fn repair(table: &mut [u8]) {
    table[9] = 0;
    table[9] = table.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
}

const LEVEL: Signal = Signal { level: true, active_low: false };

#[test]
fn q35_is_read() {
    let tables = Memory::new(Q35).tables();
    let madt = tables.madt.unwrap();
    assert_eq!(madt.local_apic, Some(0xfee0_0000));
    assert!(madt.has_pic);
    assert_eq!(madt.processors.iter().map(|cpu| cpu.apic_id).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(madt.io_apics, [IoApic { id: 0, address: 0xfec0_0000, first_gsi: 0 }]);
    assert_eq!(madt.overrides[0], Some(Override { gsi: 2, signal: Signal::default() }));
    assert_eq!(madt.overrides[9], Some(Override { gsi: 9, signal: LEVEL }));
    assert_eq!(madt.isa_line(4), (4, Signal::default()));
    assert_eq!(madt.nmis.len(), 1);
    assert_eq!(tables.mcfg, [mcfg::Segment { address: 0xb000_0000, group: 0, first_bus: 0, last_bus: 255 }]);
    assert_eq!(tables.hpet.unwrap().address, 0xfed0_0000);
    let fadt = tables.fadt.unwrap();
    assert!(fadt.boot_flags.contains(BootFlags::I8042));
    assert_eq!((fadt.pm_timer, fadt.century), (Some(Register::Port(0x608)), Some(0x32)));
    let write =
        |port, len_bytes, keep, value| Write { register: Register::Port(port), len_bytes, keep, value };
    assert_eq!(tables.power.off, [write(0xb2, 1, 0, 2), write(0x604, 2, 0xc3ff, 0x2000)]);
    assert_eq!(tables.power.reset, Some(write(0xcf9, 1, 0, 0x0f)));
}

#[test]
fn pc_with_tables_of_acpi_1_is_read() {
    let tables = Memory::new(PC).tables();
    assert_eq!(tables.madt.unwrap().processors.len(), 2);
    assert!(tables.mcfg.is_empty());
    let fadt = tables.fadt.unwrap();
    assert!(fadt.boot_flags.contains(BootFlags::I8042), "ACPI 1.0 has no flags: a full PC");
    assert_eq!(tables.power.off.last().unwrap().register, Register::Port(0x604));
    assert_eq!(tables.power.reset, None, "a field after the end of the table");
}

#[test]
fn microvm_without_fixed_hardware_is_read() {
    let tables = Memory::new(MICROVM).tables();
    let madt = tables.madt.unwrap();
    assert!(!madt.io_apics.is_empty());
    let fadt = tables.fadt.unwrap();
    assert!(fadt.flags.contains(Flags::HW_REDUCED_ACPI));
    assert!(!fadt.boot_flags.contains(BootFlags::I8042));
    let [Write { register: Register::Memory(_), len_bytes: 1, keep: 0, value: 0x34 }] = tables.power.off[..]
    else {
        panic!("{:?}", tables.power.off);
    };
    assert!(matches!(tables.power.reset, Some(Write { register: Register::Memory(_), .. })));
}

#[test]
fn tables_that_refer_to_the_root_or_twice_to_the_same_do_no_harm() {
    let mut memory = Memory::new(Q35);
    let good = memory.tables();
    let root = memory.0[1].0 as u32;
    let list = memory.table(b"RSDT");
    list[36..40].copy_from_slice(&root.to_le_bytes());
    list.copy_within(40..44, 44);
    repair(list);
    let tables = memory.tables();
    assert_eq!(tables.madt, good.madt);
    assert_eq!(tables.fadt, None, "its place in the list was overwritten");
}

#[test]
fn a_table_with_a_wrong_checksum_is_ignored_and_the_rest_is_read() {
    let mut memory = Memory::new(Q35);
    let good = memory.tables();
    memory.table(b"APIC")[40] ^= 1;
    assert_eq!(memory.tables(), Tables { madt: None, ..good });
}

#[test]
fn lengths_that_cannot_be_are_refused() {
    for len in [0u32, 35, 44, 1 << 20, u32::MAX] {
        let mut memory = Memory::new(Q35);
        let table = memory.table(b"APIC");
        table[4..8].copy_from_slice(&len.to_le_bytes());
        repair(table);
        assert_eq!(memory.tables().madt, None, "length {len}");
    }
}

#[test]
fn an_entry_of_length_zero_ends_the_list() {
    let mut memory = Memory::new(Q35);
    let table = memory.table(b"APIC");
    table[45] = 0;
    repair(table);
    let madt = memory.tables().madt.unwrap();
    assert_eq!((madt.processors.len(), madt.io_apics.len()), (0, 0));
}

/// What a table says may be wrong after a change, but never impossible.
fn assert_sane(tables: &Tables) {
    if let Some(madt) = &tables.madt {
        let page = |address: u64| (0x10_0000..1 << 52).contains(&address) && address.is_multiple_of(0x400);
        assert!(madt.local_apic.is_none_or(page));
        assert!(madt.io_apics.iter().all(|io_apic| page(io_apic.address)));
        assert!(madt.nmis.iter().all(|nmi| nmi.lint < 2));
        assert!(madt.processors.len() <= 1024 && madt.io_apics.len() <= 64);
    }
    for segment in &tables.mcfg {
        assert!(segment.first_bus <= segment.last_bus && segment.address.is_multiple_of(1 << 20));
        assert!(segment.address.checked_add(256 << 20).is_some_and(|end| end <= 1 << 52));
    }
    for write in tables.power.off.iter().chain(&tables.power.reset) {
        assert!(matches!(write.len_bytes, 1 | 2));
    }
}

proptest! {
    /// Bytes changed anywhere, with the checksums made right again or not.
    #[test]
    fn damaged_tables_are_refused_or_sane(
        machine in 0usize..3,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..6),
        repaired: bool,
    ) {
        let mut memory = Memory::new([Q35, PC, MICROVM][machine]);
        for (table, at, byte) in changes {
            let index = table.index(memory.0.len());
            let bytes = &mut memory.0[index].1;
            let at = at.index(bytes.len());
            bytes[at] ^= byte;
            if repaired && index > 0 {
                repair(bytes);
            }
        }
        assert_sane(&memory.tables());
    }

    /// Any bytes at all as a table's body.
    #[test]
    fn any_body_is_refused_or_sane(body in prop::collection::vec(any::<u8>(), 0..400), kind in 0usize..4) {
        let mut memory = Memory::new(Q35);
        let signature = [b"APIC", b"MCFG", b"FACP", b"DSDT"][kind];
        let table = memory.table(signature);
        table.truncate(36);
        table.extend(body);
        let len = table.len() as u32;
        table[4..8].copy_from_slice(&len.to_le_bytes());
        repair(table);
        assert_sane(&memory.tables());
    }
}
