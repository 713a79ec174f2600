//! The running image: its bounds, and the bytes of its symbol table.
//! Neighbours: `boot/link.ld` (the linker's symbols), `symbols` (who reads the table).

use core::ops::Range;

/// More bytes of symbols than any image has: a longer table is not believed.
const MAX_SYMBOLS_LEN: u64 = 64 << 20;

#[cfg(target_os = "none")]
unsafe extern "C" {
    static __kernel_start: u8;
    static __kernel_end: u8;
    static __text_start: u8;
    static __text_end: u8;
    static __symbols_start: u64;
}

/// The bytes of the section `.symbols`, as long as its header says.
#[cfg(target_os = "none")]
pub fn symbols() -> &'static [u8] {
    let start = &raw const __symbols_start;
    // SAFETY: the linker script places 16 bytes here at least, aligned to 8: magic and length.
    let len = unsafe { start.add(1).read() };
    if len > MAX_SYMBOLS_LEN {
        return &[];
    }
    // SAFETY:
    // 1. The linker script makes the section a segment of its own at the image's end, and who lengthens it
    //    writes the length of the segment into the header: the loader has loaded all of it.
    // 2. `mm` maps the image up to that length, read-only; nobody writes to it.
    unsafe { core::slice::from_raw_parts(start.cast(), len as usize) }
}

/// The image's addresses, without the symbol table.
#[cfg(target_os = "none")]
pub fn bounds() -> Range<u64> {
    address(&raw const __kernel_start)..address(&raw const __kernel_end)
}

/// Whether `address` lies in the image's code.
#[cfg(target_os = "none")]
pub fn is_code(address: u64) -> bool {
    (self::address(&raw const __text_start)..self::address(&raw const __text_end)).contains(&address)
}

#[cfg(target_os = "none")]
fn address(symbol: *const u8) -> u64 {
    symbol.addr() as u64
}

/// A host program has no section of its own for symbols.
#[cfg(not(target_os = "none"))]
pub fn symbols() -> &'static [u8] {
    let _ = MAX_SYMBOLS_LEN;
    &[]
}

/// A host program is no image.
#[cfg(not(target_os = "none"))]
pub fn bounds() -> Range<u64> {
    0..0
}

/// A host program is no image.
#[cfg(not(target_os = "none"))]
pub fn is_code(_address: u64) -> bool {
    false
}
