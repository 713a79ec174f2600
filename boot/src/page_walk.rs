//! Where a virtual address lies: a walk through four levels of page tables (Intel SDM vol. 3A §4.5).
//! Only `bootloader` needs it here: its loader tells addresses of its own choice, not physical ones.
#![forbid(unsafe_code)]

use crate::physical::PhysicalMemory;

const PRESENT: u64 = 1;
/// In an entry of level 3 or 2: this is a page of 1 GiB or 2 MiB, not a table.
const PAGE_SIZE_BIT: u64 = 1 << 7;
const ADDRESS_MASK: u64 = 0x000f_ffff_ffff_f000;

/// The physical address of `address` under the tables whose root CR3 names; `None` if it is not mapped, or if a
/// table cannot be read.
pub fn translate(memory: &dyn PhysicalMemory, cr3: u64, address: u64) -> Option<u64> {
    let mut table = cr3 & ADDRESS_MASK;
    for level in (1..=4).rev() {
        let shift = 12 + 9 * (level - 1);
        let index = address >> shift & 511;
        let entry = u64::from_le_bytes(memory.bytes(table + 8 * index, 8)?.try_into().ok()?);
        if entry & PRESENT == 0 {
            return None;
        }
        if level == 1 || (level < 4 && entry & PAGE_SIZE_BIT != 0) {
            let offset_mask = (1 << shift) - 1;
            return Some(entry & ADDRESS_MASK & !offset_mask | address & offset_mask);
        }
        table = entry & ADDRESS_MASK;
    }
    None
}
