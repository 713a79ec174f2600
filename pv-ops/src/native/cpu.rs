//! The CPU by its own instructions.
//! Neighbours: `native` (the ops that are one instruction).

use core::arch::x86_64::{__cpuid_count, CpuidResult};

/// IA32_GS_BASE (SDM vol. 4, Table 2-2).
const GS_BASE: u32 = 0xc000_0101;

/// CPUID before any backend is installed: the reader for [`detect`](crate::detect::detect).
/// A function of its own, so that the instruction is here only: not every backend lets it stand elsewhere.
#[inline(never)]
pub fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    __cpuid_count(leaf, subleaf)
}

/// # Safety
/// As for [`load_segments`](crate::load_segments).
pub(super) unsafe extern "sysv64" fn load_segments(code: u16, data: u16) {
    // SAFETY:
    // 1. The selectors are those of flat segments in the table in force (the caller's promise): no address changes
    //    its meaning.
    // 2. The far return goes to the next instruction; the stack is as before. FS and GS are not touched, so that GS
    //    keeps its base.
    unsafe {
        core::arch::asm!(
            "mov ds, {data:x}",
            "mov es, {data:x}",
            "mov ss, {data:x}",
            "push {code}",
            "lea {scratch}, [rip + 2f]",
            "push {scratch}",
            "retfq",
            "2:",
            data = in(reg) u64::from(data),
            code = in(reg) u64::from(code),
            scratch = out(reg) _,
            options(preserves_flags)
        );
    }
}

/// # Safety
/// As for [`write_gs_base`](crate::write_gs_base).
pub(super) unsafe extern "sysv64" fn write_gs_base(base: u64) {
    // SAFETY: every 64-bit CPU has this MSR; the value is the caller's promise.
    unsafe { crate::wrmsr(GS_BASE, base) }
}
