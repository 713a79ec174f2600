//! Xen PV: what a good `start_info` becomes, and what a bad one cannot do.

mod support;

use boot::{Info, KERNEL_VMA, Module, Problem, RegionKind, problem::Structure, xen_pv};
use proptest::prelude::*;
use support::{Memory, assert_sound};

const IMAGE: core::ops::Range<u64> = 0x20_0000..0x24_0000;
const MODULE: u64 = 0x24_0000;
const LIST: u64 = 0x24_2000;
const START_INFO: u64 = 0x2c_2000;
const TABLES: u64 = 0x2c_3000;
const PAGES: u64 = 0x10000;

/// 256 MiB, a module of 0x1234 bytes, five tables.
fn good() -> Memory {
    let mut page = Memory::new(0, 4096);
    page.put_bytes(0, b"xen-3.0-x86_64\0");
    page.put(32, &[PAGES, 0xabc000]);
    page.put(88, &[KERNEL_VMA + TABLES, 5, KERNEL_VMA + LIST, KERNEL_VMA + MODULE, 0x1234]);
    page.put_bytes(128, b"log=debug\0");
    page
}

fn read(page: &Memory) -> Info {
    let info = xen_pv::read(&page.bytes, KERNEL_VMA + START_INFO, &IMAGE);
    assert_sound(&info);
    info
}

#[test]
fn a_good_start_info_is_taken_over_whole() {
    let info = read(&good());
    assert_eq!(info.problems.as_slice(), []);
    assert_eq!(info.cmdline.get("log"), Some("debug"));
    assert_eq!(info.modules.as_slice(), [Module { address: MODULE, len_bytes: 0x1234 }]);
    // Tables and stack page, then what is set aside: 128 tables of level 1, one each of 2 and 3, two more.
    let spare = TABLES + 6 * 4096..TABLES + (6 + 132) * 4096;
    assert!(info.memory.covers(LIST, spare.end, |kind| kind == RegionKind::Image));
    assert_eq!(info.memory.kind_at(spare.end), Some(RegionKind::Usable));
    assert_eq!(info.memory.iter().last().unwrap().end, PAGES * 4096);
    let xen = info.xen_pv.as_ref().unwrap();
    assert_eq!((xen.start_info, &xen.spare), (KERNEL_VMA + START_INFO, &spare));
    assert_eq!(info.image_physical(KERNEL_VMA + IMAGE.start + 5), Some(IMAGE.start + 5));
    assert_eq!(info.image_physical(KERNEL_VMA + 0x1000), None, "that is no part of the image");
}

#[test]
fn another_magic_is_refused() {
    let mut page = good();
    page.put_bytes(0, b"win-");
    let info = read(&page);
    let [found, expected] = [*b"win-", *b"xen-"].map(u32::from_le_bytes);
    assert_eq!(
        info.problems.as_slice(),
        [Problem::BadMagic { structure: Structure::StartInfo, found, expected }]
    );
    assert!(info.check().is_err());
}

#[test]
fn memory_that_cannot_hold_the_tables_is_not_used() {
    let mut page = good();
    page.put(32, &[(TABLES >> 12) + 5]);
    assert!(read(&page).check().is_err());
}

/// The page tables would be in it.
#[test]
fn a_module_over_what_the_builder_placed_is_refused() {
    for len_bytes in [LIST - MODULE + 1, TABLES - MODULE + 4096, PAGES * 4096 - MODULE] {
        let mut page = good();
        page.put(120, &[len_bytes]);
        let info = read(&page);
        assert_eq!(info.modules.as_slice(), []);
        assert_eq!(info.problems.as_slice(), [Problem::BadModule { address: MODULE, len_bytes }]);
    }
}

proptest! {
    #[test]
    fn any_numbers_do_no_harm(at in prop::sample::select(vec![32u64, 40, 88, 96, 104, 112, 120]), number: u64, low in 0u64..1 << 40) {
        for number in [number, low, KERNEL_VMA.wrapping_add(low & !4095)] {
            let mut page = good();
            page.put(at, &[number]);
            read(&page);
        }
    }

    #[test]
    fn any_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        let info = xen_pv::read(&bytes, KERNEL_VMA + START_INFO, &IMAGE);
        assert_sound(&info);
    }
}
