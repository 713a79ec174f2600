//! Multiboot2: what good boot information becomes, and what bad tags cannot do.

mod support;

use boot::multiboot2::{self, MAGIC};
use boot::problem::Structure;
use boot::{Framebuffer, Info, Module, Problem, RegionKind};
use proptest::prelude::*;
use support::{Memory, assert_sound};

const IMAGE: core::ops::Range<u64> = 0x20_0000..0x24_0000;
const INFO: u64 = 0x14_7000;

fn words(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// A tag with its header and padding.
fn tag(number: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = words(&[number, body.len() as u32 + 8]);
    bytes.extend_from_slice(body);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

fn module(start: u32, end: u32) -> Vec<u8> {
    tag(3, &[words(&[start, end]), b"name\0".to_vec()].concat())
}

fn memory_map() -> Vec<u8> {
    let entry = |start: u32, len: u32, kind: u32| words(&[start, 0, len, 0, kind, 0]);
    let entries = [entry(0, 0x9_f000, 1), entry(0x10_0000, 0x30_0000, 1), entry(0xfffc_0000, 0x4_0000, 2)];
    tag(6, &[words(&[24, 0]), entries.concat()].concat())
}

fn framebuffer(kind: u8, masks: [u8; 6]) -> Vec<u8> {
    let fixed = words(&[0xfd00_0000, 0, 4096, 1024, 768]);
    tag(8, &[fixed, vec![32, kind, 0, 0], masks.to_vec()].concat())
}

const BGRX: [u8; 6] = [16, 8, 8, 8, 0, 8];

/// Boot information of these tags, an end tag added.
fn memory(tags: &[Vec<u8>]) -> Memory {
    let body = [tags.concat(), tag(0, &[])].concat();
    let mut memory = Memory::new(INFO, body.len() + 8);
    memory.put(INFO, &[body.len() as u64 + 8]);
    memory.put_bytes(INFO + 8, &body);
    memory
}

fn read(memory: &Memory) -> Info {
    let info = multiboot2::read(memory, MAGIC, INFO, &IMAGE);
    assert_sound(&info);
    info
}

#[test]
fn good_boot_information_is_taken_over_whole() {
    let info = read(&memory(&[
        tag(1, b"log=debug \"app.x=a b\"\0"),
        tag(2, b"GRUB 2.06\0"),
        module(0x30_0000, 0x30_1234),
        memory_map(),
        framebuffer(1, BGRX),
        tag(14, &[0; 20]),
        tag(99, b"a type that nobody knows"),
    ]));
    assert_eq!(info.problems.as_slice(), []);
    assert_eq!(info.cmdline.get("app.x"), Some("a b"));
    assert_eq!(info.loader, "GRUB 2.06");
    assert_eq!(info.modules.as_slice(), [Module { address: 0x30_0000, len_bytes: 0x1234 }]);
    let (width, height, pitch_bytes) = (1024, 768, 4096);
    let rgb_shift = [16, 8, 0];
    let expected =
        Framebuffer { address: 0xfd00_0000, width, height, pitch_bytes, bytes_per_pixel: 4, rgb_shift };
    assert_eq!(info.framebuffer, Some(expected));
    assert_eq!(info.memory.kind_at(INFO), Some(RegionKind::Loader));
    assert_eq!(info.memory.usable_bytes(), 0x9_e000 + 0x30_0000 - 0x4_0000 - 0x2000 - 0x1000);
}

#[test]
fn the_rsdp_is_the_copy_in_its_tag_and_the_newer_one_wins() {
    let (old, new) = (tag(14, &[0; 20]), tag(15, &[0; 36]));
    assert_eq!(read(&memory(std::slice::from_ref(&old))).rsdp, Some(INFO + 16));
    assert_eq!(read(&memory(&[new.clone(), old])).rsdp, Some(INFO + 16));
    let short = read(&memory(&[tag(15, &[0; 35])]));
    assert_eq!(short.rsdp, None);
    assert!(short.problems.contains(&Problem::BadTag { tag: 15, offset: 8, len_bytes: 43 }));
}

#[test]
fn basic_memory_information_serves_where_there_is_no_map() {
    let info = read(&memory(&[tag(4, &words(&[639, 3072]))]));
    assert_eq!(info.problems.as_slice(), []);
    assert_eq!(info.memory.usable_bytes(), 0x9_e000 + 0x30_0000 - 0x4_0000 - 0x1000);
    let both = read(&memory(&[tag(4, &words(&[639, 0xffff])), memory_map()]));
    assert_eq!(both.memory.kind_at(0x50_0000), None);
}

#[test]
fn without_any_map_the_boot_is_refused() {
    let info = read(&memory(&[tag(1, b"log=debug\0")]));
    assert_eq!(info.problems.as_slice(), [Problem::NoMemoryMap]);
    assert_eq!(info.check(), Err(Problem::NoUsableMemory));
}

#[test]
fn a_wrong_magic_is_refused() {
    let info = multiboot2::read(&memory(&[memory_map()]), 0x2bad_b002, INFO, &IMAGE);
    let structure = Structure::Multiboot2Info;
    assert_eq!(info.problems[0], Problem::BadMagic { structure, found: 0x2bad_b002, expected: MAGIC });
    assert!(info.check().is_err());
}

#[test]
fn a_tag_that_overruns_ends_the_reading_with_a_problem() {
    for len_bytes in [0, 7, 0x1000, u32::MAX] {
        let bad = words(&[1, len_bytes]);
        let info = read(&memory(&[memory_map(), bad, tag(2, b"never read\0")]));
        let offset = 8 + memory_map().len() as u32;
        assert_eq!(info.problems.as_slice(), [Problem::BadTag { tag: 1, offset, len_bytes }]);
        assert_eq!(info.loader, "");
        assert!(info.check().is_ok());
    }
}

#[test]
fn boot_information_too_long_or_too_short_is_refused() {
    for total in [0, 7, 1 << 20 | 1, u32::MAX] {
        let mut memory = memory(&[memory_map()]);
        memory.put_bytes(INFO, &words(&[total]));
        assert!(read(&memory).check().is_err());
    }
}

#[test]
fn memory_map_entries_may_be_longer_than_we_know_but_not_shorter() {
    let entry = words(&[0x10_0000, 0, 0x30_0000, 0, 1, 0, 0xdead, 0xbeef]);
    let long = tag(6, &[words(&[32, 1]), entry.clone(), entry.clone()].concat());
    assert!(read(&memory(&[long])).check().is_ok());
    for size in [0, 20, 23] {
        let short = read(&memory(&[tag(6, &[words(&[size, 1]), entry.clone()].concat())]));
        assert!(short.check().is_err());
    }
}

#[test]
fn only_a_framebuffer_of_bytes_is_taken() {
    for (kind, masks, problems) in
        [(0, BGRX, 0), (2, BGRX, 0), (1, [11, 5, 5, 6, 0, 5], 1), (1, [200, 8, 8, 8, 0, 8], 1)]
    {
        let info = read(&memory(&[memory_map(), framebuffer(kind, masks)]));
        assert_eq!(info.framebuffer, None);
        assert_eq!(info.problems.len(), problems);
    }
}

#[test]
fn a_framebuffer_over_the_image_is_dropped() {
    let mut bytes = framebuffer(1, BGRX);
    bytes[8..12].copy_from_slice(&0x20_0000_u32.to_le_bytes());
    let info = read(&memory(&[memory_map(), bytes]));
    assert_eq!(info.framebuffer, None);
    assert!(matches!(info.problems[0], Problem::BadFramebuffer { address: 0x20_0000, .. }));
}

#[test]
fn a_module_that_ends_before_it_starts_is_dropped() {
    let info = read(&memory(&[memory_map(), module(0x30_1000, 0x30_0000)]));
    assert_eq!(info.modules.as_slice(), []);
    assert_eq!(info.problems.as_slice(), [Problem::RegionBackwards { start: 0x30_1000, end: 0x30_0000 }]);
}

proptest! {
    #[test]
    fn no_boot_information_whatever_does_harm(
        tags in prop::collection::vec((0_u32..20, prop::collection::vec(any::<u8>(), 0..80)), 0..30),
        flips in prop::collection::vec((0_usize..0x200, any::<u8>()), 0..16),
        with_map in any::<bool>(),
    ) {
        let mut list: Vec<Vec<u8>> = tags.iter().map(|(number, body)| tag(*number, body)).collect();
        if with_map {
            list.insert(0, memory_map());
            list.push(framebuffer(1, BGRX));
            list.push(module(0x30_0000, 0x30_1000));
        }
        let mut memory = memory(&list);
        for (offset, byte) in flips {
            if let Some(slot) = memory.bytes.get_mut(offset) {
                *slot = byte;
            }
        }
        let info = read(&memory);
        prop_assert!(info.memory.usable().all(|region| region.end <= IMAGE.start || IMAGE.end <= region.start));
    }
}
