//! The interrupt flag as a byte in memory, the way back from an interrupt, and sleep.
//! Neighbours: `mod` (the flag's instructions), `registration` (who tells the host where the byte is).
//!
//! The host delivers while byte 0 is 1, and clears it on delivery; else it notes in byte 1 that something waits.

use core::arch::naked_asm;

use crate::table::Code;

/// Selectors that the CPU runs the registered kernel with, in the order of segments that Linux has.
const HARDWARE_CODE: u64 = 0x33;
const HARDWARE_DATA: u64 = 0x2b;

/// RFLAGS.IF, its bit number.
const IF_BIT: u64 = 9;

/// `safe_halt`, and the bytes of its first instruction.
pub(crate) const HALT: (Code, u64) = (safe_halt, 9);

/// Lets interrupts in and sleeps, in two steps; see [`halt`](crate::halt).
#[unsafe(naked)]
pub(crate) unsafe extern "sysv64" fn safe_halt() {
    naked_asm!("mov byte ptr fs:[0], 1", "hlt", "ret")
}

/// Returns without a trap: the frame gets the selectors that the CPU really has, and the flag is put back by hand. What
/// comes in between is handled on top of this frame, and on its own way back finds that it interrupted just this: then it leaves
/// its frame behind and goes on with the one below, so that interrupts without a pause take no more of the stack than two.
/// In the stack at entry: RIP, CS, RFLAGS, RSP, SS.
#[unsafe(naked)]
pub(super) unsafe extern "sysv64" fn iret() {
    naked_asm!(
        "6:",
        "push rax",
        "lea rax, [rip + 4f]",
        "cmp [rsp + 8], rax",
        "jb 5f",
        "lea rax, [rip + 3f]",
        "cmp [rsp + 8], rax",
        "ja 5f",
        "pop rax",
        "mov rsp, [rsp + 24]", // where the frame below begins
        "jmp 6b",
        "5:",
        "mov qword ptr [rsp + 16], {code}",
        "mov qword ptr [rsp + 40], {data}",
        "pop rax",
        "bt dword ptr [rsp + 16], {if_bit}",
        "jnc 3f",
        "mov byte ptr fs:[0], 1",
        "4:",
        "cmp byte ptr fs:[1], 0",
        "je 3f",
        "out 0x80, al", // traps: the host delivers what it held back
        "3:",
        "iretq",
        code = const HARDWARE_CODE,
        data = const HARDWARE_DATA,
        if_bit = const IF_BIT,
    )
}
