//! The CPU as Xen shows it to a PV guest: CPUID by the emulated form, control registers kept here, MSRs and segment
//! bases by Xen. Neighbour: `trap` (the descriptor table that matters).

use super::{abi::SEGBASE_GS_KERNEL, vcpu};
use crate::{
    descriptor::PseudoDescriptor,
    percpu::CpuArea,
    word::CpuidRegisters,
    xen::hypercall::{self, Number},
};
use core::{
    arch::{asm, x86_64::CpuidResult},
    sync::atomic::{AtomicU64, Ordering},
};

/// CPUID as Xen answers a PV guest, without what only a kernel in ring 0 can use.
pub fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    let mut answer = emulated_cpuid(leaf, subleaf);
    let CpuidResult { ebx, ecx, edx, .. } = &mut answer;
    match leaf {
        1 => {
            *edx &= !(PSE | MCE | APIC | MTRR | PGE | MCA | PSE36);
            *ecx &= !(MONITOR | PCID | X2APIC | TSC_DEADLINE);
        }
        7 if subleaf == 0 => {
            *ebx &= !(FSGSBASE | SMEP | INVPCID | SMAP);
            *ecx &= !(UMIP | PKU | LA57);
        }
        0x8000_0001 => *edx &= !PAGE1GB,
        _ => {}
    }
    answer
}

// Leaf 1, EDX and ECX (SDM vol. 2A, CPUID).
const PSE: u32 = 1 << 3;
const MCE: u32 = 1 << 7;
const APIC: u32 = 1 << 9;
const MTRR: u32 = 1 << 12;
const PGE: u32 = 1 << 13;
const MCA: u32 = 1 << 14;
const PSE36: u32 = 1 << 17;
const MONITOR: u32 = 1 << 3;
const PCID: u32 = 1 << 17;
const X2APIC: u32 = 1 << 21;
const TSC_DEADLINE: u32 = 1 << 24;
// Leaf 7, EBX and ECX.
const FSGSBASE: u32 = 1 << 0;
const SMEP: u32 = 1 << 7;
const INVPCID: u32 = 1 << 10;
const SMAP: u32 = 1 << 20;
const UMIP: u32 = 1 << 2;
const PKU: u32 = 1 << 3;
const LA57: u32 = 1 << 16;
// Leaf 0x8000_0001, EDX.
const PAGE1GB: u32 = 1 << 26;

/// `ud2; "xen"; cpuid`: Xen knows the sequence (arch-x86/xen.h, `XEN_CPUID`). The bare instruction would show the
/// machine's own CPU where that does not trap.
fn emulated_cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    let (eax, ebx, ecx, edx): (u32, u64, u32, u32);
    // SAFETY: under Xen PV (the only caller's condition) the sequence answers in four registers and does nothing
    // else. LLVM keeps rbx for itself: it is carried around.
    unsafe {
        asm!(
            "mov {rbx}, rbx",
            ".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e, 0x0f, 0xa2",
            "xchg {rbx}, rbx",
            rbx = out(reg) ebx,
            inlateout("eax") leaf => eax, inlateout("ecx") subleaf => ecx, lateout("edx") edx,
            options(nostack, preserves_flags),
        );
    }
    CpuidResult { eax, ebx: ebx as u32, ecx, edx }
}

pub(super) extern "sysv64" fn cpuid_registers(leaf: u32, subleaf: u32) -> CpuidRegisters {
    cpuid(leaf, subleaf).into()
}

/// What Xen runs its guests with: PG, AM, WP, NE, ET, MP, PE.
const CR0: u64 = 0x8005_0033;
/// PAE, OSFXSR, OSXMMEXCPT.
const CR4: u64 = 0x620;

/// What the kernel last wrote: Xen decides what holds.
static CR4_SEEN: AtomicU64 = AtomicU64::new(CR4);

/// CR0.TS: the next instruction on extended registers traps (SDM vol. 3A §2.5).
const TASK_SWITCHED: u64 = 1 << 3;
/// What the kernel last wrote of TS, on whichever CPU: it writes and reads back to see whether the bit is there at all.
static TS_SEEN: AtomicU64 = AtomicU64::new(0);

pub(super) extern "sysv64" fn read_cr0() -> u64 {
    CR0 | TS_SEEN.load(Ordering::Relaxed)
}

/// All that the kernel wants of it is set already, but for TS.
pub(super) unsafe extern "sysv64" fn write_cr0(value: u64) {
    TS_SEEN.store(value & TASK_SWITCHED, Ordering::Relaxed);
    // SAFETY: sets or clears the bit on this CPU.
    let _ = unsafe { hypercall::call1(Number::FpuTaskswitch, u64::from(value & TASK_SWITCHED != 0)) };
}

pub(super) extern "sysv64" fn read_cr4() -> u64 {
    CR4_SEEN.load(Ordering::Relaxed)
}

/// Saving of the extended registers (SDM vol. 3A §2.5), the one bit that is the guest's to switch on.
const OSXSAVE: u64 = 1 << 18;

/// The rest of what CPUID offers needs no switching on.
pub(super) unsafe extern "sysv64" fn write_cr4(value: u64) {
    if value & OSXSAVE != 0 {
        // SAFETY: the instruction traps, and Xen takes the bit, which CPUID offered to whoever wants it.
        unsafe { asm!("mov cr4, {}", in(reg) CR4 | OSXSAVE, options(nostack, preserves_flags)) };
    }
    CR4_SEEN.store(value, Ordering::Relaxed);
}

/// IA32_EFER: the CPU runs with no-execute switched on, or CPUID does not offer it.
const EFER: u32 = 0xc000_0080;

/// The instruction traps, and Xen answers for the few registers that it shows; for others it raises #GP here.
///
/// # Safety
/// As for [`rdmsr`](crate::rdmsr).
pub(super) unsafe extern "sysv64" fn rdmsr(msr: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller's promise.
    unsafe {
        asm!("rdmsr", in("ecx") msr, out("eax") low, out("edx") high, options(nostack, preserves_flags))
    };
    u64::from(high) << 32 | u64::from(low)
}

/// # Safety
/// As for [`wrmsr`](crate::wrmsr).
pub(super) unsafe extern "sysv64" fn wrmsr(msr: u32, value: u64) {
    if msr == EFER {
        return;
    }
    // SAFETY: the caller's promise.
    unsafe {
        asm!("wrmsr", in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack, preserves_flags));
    }
}

/// Xen's own flat segments are in force from the start, and a kernel that stays in ring 3 needs no others.
pub(super) unsafe extern "sysv64" fn load_gdt(_descriptor: *const PseudoDescriptor) {}

/// As for [`load_gdt`].
pub(super) unsafe extern "sysv64" fn load_segments(_code: u16, _data: u16) {}

/// Exceptions use the stack that they interrupt: there is no other privilege level to come from.
pub(super) unsafe extern "sysv64" fn load_tr(_selector: u16) {}

/// # Panics
/// When Xen refuses, which it does for an address that is not canonical.
///
/// # Safety
/// As for [`write_gs_base`](crate::write_gs_base).
pub(super) unsafe extern "sysv64" fn write_gs_base(base: u64) {
    let area: *const CpuArea = core::ptr::with_exposed_provenance(base as usize);
    // SAFETY: a CPU's own data begins with its area, which stays (the caller's promise).
    vcpu::take_area(unsafe { &*area });
    set_gs_base(base);
}

/// # Panics
/// As [`write_gs_base`].
pub(super) fn set_gs_base(base: u64) {
    // SAFETY: two words; what is at the base is up to who uses it.
    if let Err(error) = unsafe { hypercall::call2(Number::SetSegmentBase, SEGBASE_GS_KERNEL, base) } {
        panic!("GS base {base:#x}: {error}");
    }
}
