//! The CPU by its own instructions.
//! Neighbours: `native` (the ops that are one instruction).

use core::arch::x86_64::{__cpuid_count, CpuidResult};

/// IA32_GS_BASE (SDM vol. 4, Table 2-2).
const GS_BASE: u32 = 0xc000_0101;

/// CPUID before any backend is installed: the reader for [`detect`](crate::detect::detect).
pub fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    __cpuid_count(leaf, subleaf)
}

/// # Safety
/// As for [`write_gs_base`](crate::write_gs_base).
pub(super) unsafe extern "sysv64" fn write_gs_base(base: u64) {
    // SAFETY: every 64-bit CPU has this MSR; the value is the caller's promise.
    unsafe { crate::wrmsr(GS_BASE, base) }
}
