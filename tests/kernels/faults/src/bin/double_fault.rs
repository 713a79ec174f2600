//! Dies by a push to a stack that is not there: neither can the page fault's frame be pushed. Status 3.
#![no_std]
#![no_main]

use core::arch::asm;

kernel::app!(main);

/// In the lower half, where the kernel maps nothing, and no guard page of a stack.
const NOWHERE: u64 = 0x4000_0000_0000;

async fn main() {
    // SAFETY: never returns. The double fault is handled on a stack of its own, which ends the guest.
    unsafe { asm!("mov rsp, {nowhere}", "push rax", "ud2", nowhere = in(reg) NOWHERE, options(noreturn)) }
}
