//! Where everything lies in the virtual address space, and the arithmetic of pages.
//!
//! ```text
//! 0xffff_8800_0000_0000  direct map: all RAM, physical address 0 first           56 TiB
//! 0xffff_c000_0000_0000  heap: one growing arena of middle-sized allocations      8 TiB
//! 0xffff_c800_0000_0000  heap: huge allocations, each mapped on its own           8 TiB
//! 0xffff_d000_0000_0000  stacks, a guard page below each
//! 0xffff_e000_0000_0000  device registers, framebuffers, tables of the firmware   16 TiB
//! 0xffff_ffff_8020_0000  the image (`boot/link.ld`)
//! 0xffff_ffff_ffdf_f000  the local APIC
//! ```
//! Below the direct map, from `0xffff_8000_0000_0000`, lies Xen's own part of the address space.
//! Neighbours: `boot/link.ld` (image), the entry code in `boot` (which maps the same direct map), `page_table`.
#![forbid(unsafe_code)]

/// Bytes of a page and of a frame.
pub const PAGE_SIZE: u64 = 4096;
/// Bytes of a page that a level-2 entry maps.
pub const PAGE_SIZE_2M: u64 = 2 << 20;
/// First address of the direct map: physical address 0.
pub const DIRECT_MAP: u64 = 0xffff_8800_0000_0000;
/// Bytes of the direct map's part of the address space: RAM at or above this physical address is not used.
pub const DIRECT_MAP_LEN_BYTES: u64 = HEAP - DIRECT_MAP;
/// First address of the heap's growing arena.
pub const HEAP: u64 = 0xffff_c000_0000_0000;
/// Bytes the arena can grow to.
pub const HEAP_LEN_BYTES: u64 = 8 << 40;
/// First address of the huge allocations.
pub const HUGE: u64 = 0xffff_c800_0000_0000;
/// Bytes of address space for huge allocations.
pub const HUGE_LEN_BYTES: u64 = 8 << 40;
/// First address of the stacks.
pub const STACKS: u64 = 0xffff_d000_0000_0000;
/// First address of device mappings.
pub const DEVICES: u64 = 0xffff_e000_0000_0000;
/// Bytes of address space for device mappings.
pub const DEVICES_LEN_BYTES: u64 = 16 << 40;
/// The image's addresses lie above this one (`KERNEL_VMA` of the linker script).
pub const IMAGE: u64 = 0xffff_ffff_8000_0000;
/// All that the entry code of PVH and multiboot2 maps lies below this physical address.
pub const ENTRY_MAP_LEN_BYTES: u64 = 4 << 30;

/// `address`, rounded down to a multiple of `align`, a power of two.
pub const fn align_down(address: u64, align: u64) -> u64 {
    address & !(align - 1)
}

/// `address`, rounded up to a multiple of `align`, a power of two. `None` when that is beyond 64 bits.
pub const fn align_up(address: u64, align: u64) -> Option<u64> {
    match address.checked_add(align - 1) {
        Some(sum) => Some(align_down(sum, align)),
        None => None,
    }
}

/// The direct map's address of a physical address below [`DIRECT_MAP_LEN_BYTES`]. Only RAM is mapped there.
pub const fn direct_map(phys: u64) -> u64 {
    debug_assert!(phys < DIRECT_MAP_LEN_BYTES);
    DIRECT_MAP + phys
}

/// The physical address behind an address of the direct map; `None` for any other address.
pub const fn direct_map_phys(virt: u64) -> Option<u64> {
    match virt.checked_sub(DIRECT_MAP) {
        Some(phys) if phys < DIRECT_MAP_LEN_BYTES => Some(phys),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_do_not_overlap() {
        let windows = [
            (DIRECT_MAP, DIRECT_MAP_LEN_BYTES),
            (HEAP, HEAP_LEN_BYTES),
            (HUGE, HUGE_LEN_BYTES),
            (STACKS, super::super::stack::WINDOW_LEN_BYTES),
            (DEVICES, DEVICES_LEN_BYTES),
        ];
        for pair in windows.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:x?}");
        }
        const { assert!(DEVICES + DEVICES_LEN_BYTES <= IMAGE) };
    }

    #[test]
    fn rounding_up_never_wraps_around() {
        assert_eq!(align_up(1, PAGE_SIZE), Some(PAGE_SIZE));
        assert_eq!(align_up(PAGE_SIZE, PAGE_SIZE), Some(PAGE_SIZE));
        assert_eq!(align_up(u64::MAX, PAGE_SIZE), None);
    }

    #[test]
    fn only_direct_map_addresses_translate_by_subtraction() {
        assert_eq!(direct_map_phys(direct_map(0x1234)), Some(0x1234));
        assert_eq!(direct_map_phys(DIRECT_MAP - 1), None);
        assert_eq!(direct_map_phys(HEAP), None);
    }
}
