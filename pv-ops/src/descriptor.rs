//! Loading descriptor tables by base and limit: the ops take the pseudo-descriptor in memory that LGDT wants.
//! Neighbour: `ops` (`load_gdt`, `load_idt`).

use crate::ops;

/// The operand of LGDT and LIDT (SDM vol. 3A §3.5.1, Figure 3-11).
#[repr(C, packed)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct PseudoDescriptor {
    /// The table's length in bytes, minus 1.
    pub limit: u16,
    /// Its linear address.
    pub base: u64,
}

impl PseudoDescriptor {
    /// Base and limit.
    pub(crate) fn parts(self) -> (u64, u16) {
        (self.base, self.limit)
    }
}

/// Loads GDTR. The segment registers keep their descriptors until they are loaded anew.
///
/// # Safety
/// `base` is a GDT of `limit + 1` bytes that stays in place and describes the selectors in use.
#[inline]
#[doc(alias = "lgdt")]
pub unsafe fn load_gdt(base: *const u64, limit: u16) {
    let descriptor = PseudoDescriptor { limit, base: base.expose_provenance() as u64 };
    // SAFETY: the descriptor lives until the op returns; the table behind it is the caller's promise.
    unsafe { ops::load_gdt(&raw const descriptor) }
}

/// Loads IDTR.
///
/// # Safety
/// `base` is an IDT of `limit + 1` bytes that stays in place; its gates lead to handlers for what they are numbered
/// as. A limit of 0 makes every further exception a shutdown of the CPU.
#[inline]
#[doc(alias = "lidt")]
pub unsafe fn load_idt(base: *const u8, limit: u16) {
    let descriptor = PseudoDescriptor { limit, base: base.expose_provenance() as u64 };
    // SAFETY: as in `load_gdt`.
    unsafe { ops::load_idt(&raw const descriptor) }
}
