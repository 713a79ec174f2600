//! The bootloader crate's protocol: regions, the ramdisk that carries the command line, and page walks.

mod support;

use boot::bootloader::{self, COMMAND_LINE_PAGE_BYTES};
use boot::page_walk::translate;
use boot::problem::{Problem, Structure};
use boot::{DIRECT_MAP, Info, Module, RegionKind};
use bootloader_api::BootInfo;
use bootloader_api::info::{FrameBuffer, FrameBufferInfo, MemoryRegion, MemoryRegionKind, PixelFormat};
use proptest::prelude::*;
use support::{Memory, assert_sound};

const TABLES: u64 = 0x10_0000;
const RAMDISK: u64 = 0x11_0000;
const RAMDISK_VIRTUAL: u64 = 0x180_0000_0000;

/// Page tables at `TABLES` that map four pages at `RAMDISK_VIRTUAL` to the ramdisk.
fn memory(ramdisk: &[u8]) -> Memory {
    let mut memory = Memory::new(TABLES, 0x2_0000);
    memory.put(TABLES + 3 * 8, &[(TABLES + 0x1000) | 3]);
    memory.put(TABLES + 0x1000, &[(TABLES + 0x2000) | 3]);
    memory.put(TABLES + 0x2000, &[(TABLES + 0x3000) | 3]);
    memory.put(TABLES + 0x3000, &[0, 1, 2, 3].map(|page| (RAMDISK + page * 0x1000) | 1 << 63 | 3));
    memory.put_bytes(RAMDISK, ramdisk);
    memory
}

fn boot_info(regions: &[(u64, u64, MemoryRegionKind)]) -> BootInfo {
    let regions: Vec<_> =
        regions.iter().map(|&(start, end, kind)| MemoryRegion { start, end, kind }).collect();
    let mut boot_info = BootInfo::new(regions.leak().into());
    boot_info.physical_memory_offset = Some(DIRECT_MAP).into();
    boot_info
}

const REGIONS: [(u64, u64, MemoryRegionKind); 3] = [
    (0, 0x9_fc00, MemoryRegionKind::Usable),
    (0x10_0000, 0x12_0000, MemoryRegionKind::Bootloader),
    (0x12_0000, 0x40_0000, MemoryRegionKind::Usable),
];

fn read(ramdisk: &[u8]) -> Info {
    let mut boot_info = boot_info(&REGIONS);
    boot_info.ramdisk_addr = Some(RAMDISK_VIRTUAL).into();
    boot_info.ramdisk_len = ramdisk.len() as u64;
    let info = bootloader::read(&memory(ramdisk), TABLES, &boot_info);
    assert_sound(&info);
    info
}

#[test]
fn a_ramdisk_may_be_a_command_line() {
    let info = read(b"PLNTCMD1log=debug app.x=1\0");
    assert_eq!(info.problems.as_slice(), []);
    assert_eq!(info.cmdline.as_str(), "log=debug app.x=1");
    assert_eq!(info.modules.as_slice(), []);
    assert_eq!(info.memory.kind_at(RAMDISK), Some(RegionKind::Loader));
}

#[test]
fn a_module_may_follow_the_command_line() {
    let mut ramdisk = b"PLNTCMD1log=debug\0".to_vec();
    ramdisk.resize(COMMAND_LINE_PAGE_BYTES as usize, 0);
    ramdisk.extend_from_slice(b"content");
    let info = read(&ramdisk);
    assert_eq!(info.cmdline.as_str(), "log=debug");
    assert_eq!(info.modules.as_slice(), [Module { address: RAMDISK + 0x1000, len_bytes: 7 }]);
    assert_eq!(info.memory.kind_at(RAMDISK + 0x1000), Some(RegionKind::Module));
}

#[test]
fn any_other_ramdisk_is_a_module() {
    let info = read(b"PLNTCMD2log=debug");
    assert_eq!(info.cmdline.as_str(), "");
    assert_eq!(info.modules.as_slice(), [Module { address: RAMDISK, len_bytes: 17 }]);
}

#[test]
fn a_ramdisk_that_is_not_mapped_is_refused() {
    let mut boot_info = boot_info(&REGIONS);
    let (address, len_bytes) = (RAMDISK_VIRTUAL + 0x4000, 10);
    boot_info.ramdisk_addr = Some(address).into();
    boot_info.ramdisk_len = len_bytes;
    let info = bootloader::read(&memory(b""), TABLES, &boot_info);
    assert_eq!(
        info.problems.as_slice(),
        [Problem::Unreachable { structure: Structure::Ramdisk, address, len_bytes }]
    );
    assert!(info.check().is_ok());
}

#[test]
fn regions_keep_what_firmware_said_of_them() {
    let info = bootloader::read(
        &memory(b""),
        TABLES,
        &boot_info(&[
            (0x10_0000, 0x20_0000, MemoryRegionKind::Usable),
            (0x20_0000, 0x21_0000, MemoryRegionKind::UnknownBios(3)),
            (0x21_0000, 0x22_0000, MemoryRegionKind::UnknownUefi(9)),
            (0x22_0000, 0x23_0000, MemoryRegionKind::UnknownUefi(10)),
            (0x23_0000, 0x24_0000, MemoryRegionKind::UnknownUefi(6)),
            (0x24_0000, 0x25_0000, MemoryRegionKind::UnknownBios(1)),
            (0x30_0000, 0x2f_0000, MemoryRegionKind::Usable),
        ]),
    );
    let kinds = [0x10_0000, 0x20_0000, 0x21_0000, 0x22_0000, 0x23_0000, 0x24_0000, 0x2f_8000];
    use RegionKind::{AcpiNvs, AcpiReclaimable, Reserved, Usable};
    let expected = [Usable, AcpiReclaimable, AcpiReclaimable, AcpiNvs, Reserved, Reserved].map(Some);
    assert_eq!(kinds.map(|address| info.memory.kind_at(address))[..6], expected);
    assert_eq!(info.memory.kind_at(0x2f_8000), None);
    assert_eq!(info.problems.as_slice(), [Problem::RegionBackwards { start: 0x30_0000, end: 0x2f_0000 }]);
}

#[test]
fn without_the_direct_map_no_memory_is_used() {
    for (offset, found) in [(None, 0), (Some(0x1000_0000), 0x1000_0000)] {
        let mut boot_info = boot_info(&REGIONS);
        boot_info.physical_memory_offset = offset.into();
        let info = bootloader::read(&memory(b""), TABLES, &boot_info);
        assert_eq!(info.problems.as_slice(), [Problem::DirectMapElsewhere { found, expected: DIRECT_MAP }]);
        assert_eq!(info.check(), Err(Problem::NoUsableMemory));
    }
}

#[test]
fn the_framebuffer_is_told_by_its_physical_address() {
    let mut boot_info = boot_info(&REGIONS);
    let pixel_format = PixelFormat::Bgr;
    let info = FrameBufferInfo {
        byte_len: 4096,
        width: 16,
        height: 64,
        pixel_format,
        bytes_per_pixel: 4,
        stride: 16,
    };
    let mut memory = memory(b"");
    memory.put(TABLES + 0x3000, &[0xfd00_0003]);
    // SAFETY: nothing reads or writes through the framebuffer, only its address is taken.
    boot_info.framebuffer = Some(unsafe { FrameBuffer::new(RAMDISK_VIRTUAL, info) }).into();
    let info = bootloader::read(&memory, TABLES, &boot_info);
    let found = info.framebuffer.expect("a good framebuffer");
    assert_eq!((found.address, found.pitch_bytes, found.rgb_shift), (0xfd00_0000, 64, [16, 8, 0]));
}

#[test]
fn large_pages_end_a_page_walk_early() {
    let mut memory = memory(b"");
    memory.put(TABLES + 0x1000 + 8, &[0x4000_0083]);
    memory.put(TABLES + 0x2000 + 8, &[0x60_0083]);
    assert_eq!(translate(&memory, TABLES, RAMDISK_VIRTUAL + 0x4000_1234), Some(0x4000_1234));
    assert_eq!(translate(&memory, TABLES, RAMDISK_VIRTUAL + 0x20_5678), Some(0x60_5678));
    assert_eq!(translate(&memory, TABLES, RAMDISK_VIRTUAL + 0x3abc), Some(RAMDISK + 0x3abc));
    assert_eq!(translate(&memory, TABLES, RAMDISK_VIRTUAL + 0x4000), None);
}

proptest! {
    #[test]
    fn no_page_tables_and_no_addresses_do_harm(
        entries in prop::collection::vec((0_u64..0x800, any::<u64>()), 0..32),
        address in any::<u64>(),
        (cr3, len_bytes) in any::<(u64, u64)>(),
        regions in prop::collection::vec((any::<u64>(), any::<u64>()), 0..20),
    ) {
        let mut memory = memory(b"PLNTCMD1");
        for (index, entry) in entries {
            memory.put(TABLES + index * 8, &[entry]);
        }
        let regions: Vec<_> = regions.iter().map(|&(start, end)| (start, end, MemoryRegionKind::Usable)).collect();
        let mut boot_info = boot_info(&regions);
        boot_info.ramdisk_addr = Some(address).into();
        boot_info.ramdisk_len = len_bytes;
        boot_info.rsdp_addr = Some(address).into();
        for cr3 in [cr3, TABLES] {
            assert_sound(&bootloader::read(&memory, cr3, &boot_info));
        }
    }
}
