//! Extents of the image and of the boot stack, and when the guest was entered.
//! On the host, where tests run, there is no image: the ranges are empty there and the time is 0.
//! Neighbours: `link.ld` and `entry.s` define the symbols, `entry` uses the physical range.

use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

/// Bytes of the stack that the entry code sets up.
pub const STACK_BYTES: u64 = 64 * 1024;

/// In `.data`, not in `.bss`, so that no loader can clear it after `entry.s` wrote it.
#[cfg_attr(target_os = "none", unsafe(link_section = ".data.entry_tsc"))]
pub(crate) static ENTRY_TSC: AtomicU64 = AtomicU64::new(0);

/// The time stamp counter at the image's first instructions: what the guest's age counts from.
pub fn entry_tsc() -> u64 {
    ENTRY_TSC.load(Ordering::Relaxed)
}

/// As [`ENTRY_TSC`], but when the loader's data had been read.
static MAIN_TSC: AtomicU64 = AtomicU64::new(0);

/// The time stamp counter at the call of the kernel's main function.
pub fn main_tsc() -> u64 {
    MAIN_TSC.load(Ordering::Relaxed)
}

/// It is called now.
#[cfg(target_os = "none")]
#[expect(clippy::disallowed_methods, reason = "no operations are installed yet")]
pub(crate) fn note_main() {
    // SAFETY: reads a counter, which nobody has forbidden at this time.
    MAIN_TSC.store(unsafe { core::arch::x86_64::_rdtsc() }, Ordering::Relaxed);
}

/// Virtual addresses of the whole image, symbol table included, in whole pages. Under PVH and Multiboot2 all of
/// it is in memory at `virtual - KERNEL_VMA`; under the bootloader crate its frames are scattered.
pub fn image() -> Range<u64> {
    #[cfg(target_os = "none")]
    return link::image();
    #[cfg(not(target_os = "none"))]
    return 0..0;
}

/// Virtual addresses of the stack on which the kernel's main function is called. The page below `start`
/// belongs to it too: it is never used, so the kernel may unmap it as a guard.
pub fn stack() -> Range<u64> {
    #[cfg(target_os = "none")]
    return link::stack();
    #[cfg(not(target_os = "none"))]
    return 0..0;
}

/// Physical addresses of the image under PVH and Multiboot2.
#[cfg(target_os = "none")]
pub(crate) fn physical() -> Range<u64> {
    let image = image();
    image.start - crate::KERNEL_VMA..image.end - crate::KERNEL_VMA
}

#[cfg(target_os = "none")]
mod link {
    use super::STACK_BYTES;
    use crate::memory_map::PAGE_SIZE;
    use core::ops::Range;

    /// "PLNTSYM1" as the CPU reads it.
    const SYMBOLS_MAGIC: u64 = u64::from_le_bytes(*b"PLNTSYM1");
    /// What the link addresses leave room for.
    const MAX_SYMBOLS_BYTES: u64 = 1 << 28;

    #[repr(C)]
    struct SymbolsHeader {
        magic: u64,
        len_bytes: u64,
    }

    unsafe extern "C" {
        safe static __kernel_start: u8;
        safe static __kernel_end: u8;
        safe static __symbols_start: SymbolsHeader;
        safe static boot_stack_bottom: u8;
    }

    /// The linker knows only the placeholder of the symbol table; the table itself tells its length.
    pub(super) fn image() -> Range<u64> {
        let start = &raw const __kernel_start as u64;
        let symbols = &raw const __symbols_start as u64;
        let SymbolsHeader { magic, len_bytes } = __symbols_start;
        if magic == SYMBOLS_MAGIC && len_bytes <= MAX_SYMBOLS_BYTES {
            start..(symbols + len_bytes).next_multiple_of(PAGE_SIZE)
        } else {
            start..&raw const __kernel_end as u64
        }
    }

    pub(super) fn stack() -> Range<u64> {
        let bottom = &raw const boot_stack_bottom as u64;
        bottom..bottom + STACK_BYTES
    }
}
