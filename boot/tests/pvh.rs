//! PVH: what a good `hvm_start_info` becomes, and what a bad one cannot do.

mod support;

use boot::problem::Structure;
use boot::pvh::{self, MAGIC};
use boot::{Info, Module, Problem, RegionKind};
use proptest::prelude::*;
use support::{Memory, assert_sound};

const IMAGE: core::ops::Range<u64> = 0x20_0000..0x24_0000;
const START_INFO: u64 = 0x1000;
const MODULES: u64 = 0x1100;
const MEMORY_MAP: u64 = 0x1200;
const COMMAND_LINE: u64 = 0x1400;

/// Version 1, one module, 3 MiB of RAM from 1 MiB on and 636 KiB from 0 on.
fn good() -> Memory {
    let mut memory = Memory::new(START_INFO, 0x3000);
    memory.put(
        START_INFO,
        &[u64::from(MAGIC) | 1 << 32, 1 << 32, MODULES, COMMAND_LINE, 0xf_59e0, MEMORY_MAP, 3],
    );
    memory.put(MODULES, &[0x30_0000, 0x1234, 0, 0]);
    memory.put(MEMORY_MAP, &[0, 0x9_f000, 1, 0x10_0000, 0x30_0000, 1, 0xfffc_0000, 0x4_0000, 2]);
    memory.put_bytes(COMMAND_LINE, b"log=debug app.x=1\0");
    memory
}

fn read(memory: &Memory) -> Info {
    let info = pvh::read(memory, START_INFO, &IMAGE);
    assert_sound(&info);
    info
}

#[test]
fn a_good_start_info_is_taken_over_whole() {
    let info = read(&good());
    assert_eq!(info.problems.as_slice(), []);
    assert_eq!(info.cmdline.get("log"), Some("debug"));
    assert_eq!(info.rsdp, Some(0xf_59e0));
    assert_eq!(info.modules.as_slice(), [Module { address: 0x30_0000, len_bytes: 0x1234 }]);
    assert_eq!(info.memory.kind_at(0x20_0000), Some(RegionKind::Image));
    assert_eq!(info.memory.kind_at(0x30_1000), Some(RegionKind::Module));
    assert_eq!(info.memory.kind_at(0xfffc_0000), Some(RegionKind::Reserved));
    assert_eq!(info.memory.usable_bytes(), 0x9_e000 + 0x30_0000 - 0x4_0000 - 0x2000);
    assert_eq!(info.check(), Ok(()));
}

#[test]
fn a_wrong_magic_is_refused() {
    let mut memory = good();
    memory.put_bytes(START_INFO, &[0xff]);
    let info = read(&memory);
    let found = MAGIC & !0xff | 0xff;
    assert_eq!(
        info.problems[0],
        Problem::BadMagic { structure: Structure::StartInfo, found, expected: MAGIC }
    );
    assert_eq!(info.check(), Err(Problem::NoUsableMemory));
}

#[test]
fn a_start_info_outside_of_memory_is_refused() {
    for address in [0, START_INFO - 1, 0x4000 - 8, u64::MAX] {
        let info = pvh::read(&good(), address, &IMAGE);
        assert!(matches!(info.problems[0], Problem::Unreachable { structure: Structure::StartInfo, .. }));
        assert!(info.check().is_err());
    }
}

#[test]
fn without_a_memory_map_nothing_is_usable_and_the_rest_is_read() {
    let mut version_0 = good();
    version_0.put_bytes(START_INFO + 4, &[0]);
    let mut no_entries = good();
    no_entries.put(START_INFO + 48, &[0]);
    for memory in [version_0, no_entries] {
        let info = read(&memory);
        assert!(info.problems.contains(&Problem::NoMemoryMap));
        assert_eq!(info.check(), Err(Problem::NoUsableMemory));
        assert_eq!(info.cmdline.get("log"), Some("debug"));
    }
}

#[test]
fn a_memory_map_too_long_is_refused_whole() {
    let mut memory = good();
    memory.put(START_INFO + 48, &[0xffff_ffff]);
    let info = read(&memory);
    let structure = Structure::StartInfoMemoryMap;
    assert!(info.problems.contains(&Problem::TooMany { structure, found: 0xffff_ffff, limit: 1024 }));
    assert!(info.check().is_err());
}

#[test]
fn a_module_over_the_image_is_dropped() {
    let mut memory = good();
    memory.put(MODULES, &[0x1f_f000, 0x2000]);
    let info = read(&memory);
    assert_eq!(info.modules.as_slice(), []);
    assert_eq!(info.problems.as_slice(), [Problem::BadModule { address: 0x1f_f000, len_bytes: 0x2000 }]);
}

#[test]
fn modules_that_overlap_or_lie_outside_of_memory_are_dropped() {
    let mut memory = good();
    memory.put(START_INFO, &[u64::from(MAGIC) | 1 << 32, 4 << 32]);
    let second = [0x30_1000, 0x10, 0, 0];
    let outside = [u64::MAX, 2, 0, 0];
    let same_page = [0x30_1234, 0x10, 0, 0];
    memory.put(MODULES + 32, &[second, outside, same_page].concat());
    let info = read(&memory);
    assert_eq!(info.modules.iter().map(|module| module.address).collect::<Vec<_>>(), [0x30_0000, 0x30_1234]);
    assert_eq!(info.problems.len(), 2);
}

#[test]
fn a_command_line_without_end_is_cut() {
    let mut memory = good();
    memory.put_bytes(COMMAND_LINE, &[b'x'; 0x3000 - 0x400]);
    let info = read(&memory);
    assert_eq!(info.cmdline.as_str().len(), boot::cmdline::MAX_LEN);
    assert!(matches!(info.problems[0], Problem::TooMany { structure: Structure::CommandLine, .. }));
}

proptest! {
    /// Any words at all, in the structure and in the tables that it points to.
    #[test]
    fn no_start_info_whatever_does_harm(
        words in prop::collection::vec(prop_oneof![any::<u64>(), 0_u64..0x5000, Just(u64::MAX)], 512),
        flips in prop::collection::vec((0_usize..0x800, any::<u8>()), 0..24),
        noise in any::<bool>(),
    ) {
        let mut memory = good();
        if noise {
            memory.put(START_INFO + 8, &words);
        }
        for (offset, byte) in flips {
            memory.bytes[offset] = byte;
        }
        let info = read(&memory);
        let pages = info.memory.usable_bytes() / 4096;
        prop_assert!(pages == 0 || info.memory.kind_at(0) == Some(RegionKind::Reserved));
        prop_assert!(info.memory.usable().all(|region| region.end <= IMAGE.start || IMAGE.end <= region.start));
    }
}
