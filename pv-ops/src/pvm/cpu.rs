//! The CPU as a registered guest sees it: CPUID without what ring 3 cannot keep, segments that are the host's.
//! Neighbours: `registration` (FS).

use super::registration;
use crate::{
    detect::Reader,
    native,
    signature::{self, Signature},
    word::CpuidRegisters,
};
use core::{
    arch::x86_64::CpuidResult,
    sync::atomic::{AtomicU32, Ordering},
};

/// Leaf 1, ECX: there is a hypervisor.
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 7, EBX: no execution and no access of user pages by the kernel, which here has no other pages.
const SMEP: u32 = 1 << 7;
const SMAP: u32 = 1 << 20;
/// IA32_GS_BASE (SDM vol. 4, Table 2-2).
const GS_BASE: u32 = 0xc000_0101;

/// Leaves that tell what the guest may use. To record one takes long (40 us), so it is these and no others: what else a kernel
/// asks for reads as zeroes, but the processor's name, which is the host's too.
const LEAVES: [u32; 10] = [1, KVM, 0, 7, XSAVE, KVM + 1, EXTENDED, EXTENDED + 1, EXTENDED + 7, EXTENDED + 8];
const NAME: core::ops::RangeInclusive<u32> = EXTENDED + 2..=EXTENDED + 4;
/// Registers that XSAVE saves: EBX tells the size of those switched on, ECX of all (SDM vol. 2A, CPUID).
const XSAVE: u32 = 0xd;
const KVM: u32 = 0x4000_0000;
const EXTENDED: u32 = 0x8000_0000;

/// What the host says of the CPU while it emulates it, registers EAX to EDX. Afterwards the instruction need not trap, and
/// then tells of the host's own CPU, which has what the guest has not.
static ANSWERS: [[AtomicU32; 4]; LEAVES.len()] = [const { [const { AtomicU32::new(0) }; 4] }; LEAVES.len()];

/// Records the first two leaves before the registration; whether they are those of a guest of KVM.
pub(super) fn is_kvm(read: Reader<'_>) -> bool {
    let present = record_leaf(0, read);
    let CpuidResult { ebx, ecx, edx, .. } = record_leaf(1, read);
    present.ecx & HYPERVISOR != 0 && Signature::of_registers(ebx, ecx, edx) == signature::KVM
}

/// Records the others.
pub(super) fn record(read: Reader<'_>) {
    (2..LEAVES.len()).for_each(|index| _ = record_leaf(index, read));
}

fn record_leaf(index: usize, read: Reader<'_>) -> CpuidResult {
    let answer = read(LEAVES[index], 0);
    let CpuidResult { eax, ebx, ecx, edx } = answer;
    let [place_a, place_b, place_c, place_d] = &ANSWERS[index];
    place_a.store(eax, Ordering::Relaxed);
    place_b.store(ebx, Ordering::Relaxed);
    place_c.store(ecx, Ordering::Relaxed);
    place_d.store(edx, Ordering::Relaxed);
    answer
}

pub(super) extern "sysv64" fn cpuid_registers(leaf: u32, subleaf: u32) -> CpuidRegisters {
    cpuid(leaf, subleaf).into()
}

/// What was recorded.
pub(super) fn cpuid(leaf: u32, subleaf: u32) -> CpuidResult {
    if NAME.contains(&leaf) {
        return native::cpu::cpuid(leaf, subleaf);
    }
    let known = LEAVES.iter().zip(&ANSWERS).find(|(known, _)| **known == leaf && subleaf == 0);
    let [eax, ebx, ecx, edx] =
        known.map_or([0; 4], |(_, words)| words.each_ref().map(|word| word.load(Ordering::Relaxed)));
    let ebx = match leaf {
        7 => ebx & !(SMEP | SMAP),
        // The size of the registers that are switched on is asked for later, when more are: the size of all.
        XSAVE => ecx,
        _ => ebx,
    };
    CpuidResult { eax, ebx, ecx, edx }
}

/// The selectors in force are the host's, flat as ours: ring 3 cannot load others.
///
/// # Safety
/// None of its own.
pub(super) unsafe extern "sysv64" fn load_segments(_code: u16, _data: u16) {}

/// The first thing that a CPU does in the kernel: it registers, if it is not the boot CPU, which has.
///
/// # Safety
/// As for [`write_gs_base`](crate::write_gs_base).
pub(super) unsafe extern "sysv64" fn write_gs_base(base: u64) {
    // SAFETY: the base is that of the CPU's own data (the caller's promise).
    unsafe { registration::register_this_cpu(base) };
    // SAFETY: every 64-bit CPU has this MSR; the value is the caller's promise.
    unsafe { crate::wrmsr(GS_BASE, base) }
}
