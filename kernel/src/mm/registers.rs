//! What the CPU can do for paging, and the page attribute table (Intel SDM vol. 3A §4.1.4, §11.12).
//! Neighbours: `cpu::features` (switches on no-execute and write protection), `page_table` (uses what is found).

use core::sync::atomic::{AtomicU64, Ordering};

use super::{
    layout::DIRECT_MAP_LEN_BYTES,
    page_table::{Format, Level},
};
use crate::cpu::{Feature, features};

#[doc(alias = "MSR_IA32_CR_PAT")]
const MSR_PAT: u32 = 0x277;
/// The entry that is made write-combining: the one that is so under Xen PV, where a guest cannot choose.
const PAT_ENTRY: u32 = 4;
const PAT_WRITE_COMBINING: u64 = 1;
/// Physical addresses of a CPU that does not tell (SDM vol. 3A §4.1.4).
const DEFAULT_PHYSICAL_BITS: u32 = 36;
/// Most bits of a physical address in an entry.
const MAX_PHYSICAL_BITS: u32 = 52;

/// The best format of page tables on this CPU.
pub(super) fn format() -> Format {
    let features = features();
    let largest = match (features.has(Feature::HugePages), features.has(Feature::PageSizeExtension)) {
        (true, true) => Level::Three,
        (false, true) => Level::Two,
        // A Xen PV guest has small pages only, and its CPUID says so.
        (_, false) => Level::One,
    };
    Format {
        largest,
        no_execute: features.has(Feature::NoExecute),
        write_combining: enable_write_combining(),
    }
}

/// Makes [`PAT_ENTRY`] write-combining on this CPU; whether it is.
///
/// Nothing is mapped by that entry before.
fn enable_write_combining() -> bool {
    if !features().has(Feature::PageAttributeTable) {
        return false;
    }
    // SAFETY: CPUID says that the register exists.
    let old = unsafe { pv_ops::rdmsr(MSR_PAT) };
    let new = old & !(0xff << (8 * PAT_ENTRY)) | PAT_WRITE_COMBINING << (8 * PAT_ENTRY);
    if old != new {
        // SAFETY: no table uses this entry yet, so no page changes its type.
        unsafe { pv_ops::wrmsr(MSR_PAT, new) };
    }
    // SAFETY: as above. A hypervisor may have ignored the write.
    unsafe { pv_ops::rdmsr(MSR_PAT) == new }
}

/// Gives a further CPU the page attributes that the tables were made for.
pub(super) fn cpu_up() {
    enable_write_combining();
}

/// The end of the physical addresses that this CPU can use.
pub(super) fn physical_limit() -> u64 {
    static LIMIT: AtomicU64 = AtomicU64::new(0);
    // Asked once: a CPUID is an exit in a guest.
    match LIMIT.load(Ordering::Relaxed) {
        0 => {
            let told = pv_ops::cpuid(0x8000_0000, 0).eax >= 0x8000_0008;
            let bits = if told { pv_ops::cpuid(0x8000_0008, 0).eax & 0xff } else { DEFAULT_PHYSICAL_BITS };
            let limit = 1 << bits.clamp(32, MAX_PHYSICAL_BITS);
            LIMIT.store(limit, Ordering::Relaxed);
            limit
        }
        limit => limit,
    }
}

/// The end of the physical addresses at which RAM can be used: the direct map is as long.
pub(super) fn ram_limit() -> u64 {
    physical_limit().min(DIRECT_MAP_LEN_BYTES)
}
