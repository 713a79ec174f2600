//! Model-specific registers that may not be there, asked for before the kernel handles exceptions.
//! For a moment this CPU has a descriptor table with a single handler, for #GP (SDM vol. 3A §6.15), which goes on where
//! the access is given up. Neighbours: `pvm` (who must ask so), the kernel's `cpu::probe` (the same, later).

use core::{
    arch::{asm, naked_asm},
    cell::UnsafeCell,
};

/// #GP.
const GENERAL_PROTECTION: usize = 13;
/// A gate: present, 64-bit, interrupts disabled (SDM vol. 3A §6.14.1).
const INTERRUPT_GATE: u64 = 0x8e00;

/// Of these only the last is ever looked at; the others say "not present".
#[repr(C, align(16))]
struct Gates(UnsafeCell<[[u64; 2]; GENERAL_PROTECTION + 1]>);

// SAFETY: used by `access` only, which runs on one CPU at a time (its contract).
unsafe impl Sync for Gates {}

static GATES: Gates = Gates(UnsafeCell::new([[0; 2]; GENERAL_PROTECTION + 1]));

/// What LGDT, LIDT, SIDT take (SDM vol. 3A figure 2-6).
#[repr(C, packed)]
struct Table {
    limit: u16,
    base: u64,
}

/// Reads a register; `None` if this CPU does not have it. On the boot CPU in ring 0, interrupts disabled, alone.
pub fn read_msr(msr: u32) -> Option<u64> {
    let mut value = 0;
    access(read, msr, &mut value).then_some(value)
}

/// Writes a register; `false` if this CPU does not take that. As [`read_msr`].
///
/// # Safety
/// What the host or the CPU then does is sound.
pub(crate) unsafe fn write_msr(msr: u32, mut value: u64) -> bool {
    access(write, msr, &mut value)
}

type Access = unsafe extern "sysv64" fn(u32, &mut u64) -> bool;

fn access(access: Access, msr: u32, value: &mut u64) -> bool {
    let code_segment: u16;
    // SAFETY: reads a register.
    unsafe { asm!("mov {:x}, cs", out(reg) code_segment, options(nomem, nostack, preserves_flags)) };
    let handler = faulted as *const () as u64;
    let low = handler & 0xffff
        | u64::from(code_segment) << 16
        | INTERRUPT_GATE << 32
        | (handler >> 16 & 0xffff) << 48;
    // SAFETY: nobody else uses the table (see above), and it is not loaded yet.
    unsafe { (*GATES.0.get())[GENERAL_PROTECTION] = [low, handler >> 32] };
    let ours = Table { limit: (size_of::<Gates>() - 1) as u16, base: GATES.0.get().addr() as u64 };
    let mut theirs = Table { limit: 0, base: 0 };
    // SAFETY: stores ten bytes.
    unsafe { asm!("sidt [{}]", in(reg) &raw mut theirs, options(nostack, preserves_flags)) };
    // SAFETY: the one exception that the access can raise has its gate; interrupts are disabled.
    unsafe { asm!("lidt [{}]", in(reg) &raw const ours, options(nostack, preserves_flags)) };
    // SAFETY: reading has no effect but the fault that is provided for, writing is the caller's promise.
    let done = unsafe { access(msr, value) };
    // SAFETY: the table as it was.
    unsafe { asm!("lidt [{}]", in(reg) &raw const theirs, options(nostack, preserves_flags)) };
    done
}

#[unsafe(naked)]
unsafe extern "sysv64" fn read(msr: u32, value: &mut u64) -> bool {
    naked_asm!("mov ecx, edi", "rdmsr", "shl rdx, 32", "or rax, rdx", "mov [rsi], rax", "mov eax, 1", "ret",)
}

#[unsafe(naked)]
unsafe extern "sysv64" fn write(msr: u32, value: &mut u64) -> bool {
    naked_asm!("mov ecx, edi", "mov eax, [rsi]", "mov edx, [rsi + 4]", "wrmsr", "mov eax, 1", "ret")
}

/// The handler: the access returns `false`. On the stack: error code, RIP, CS, RFLAGS, RSP, SS.
#[unsafe(naked)]
unsafe extern "sysv64" fn faulted() {
    naked_asm!("add rsp, 8", "lea rax, [rip + 2f]", "mov [rsp], rax", "iretq", "2:", "xor eax, eax", "ret",)
}
