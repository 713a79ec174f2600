//! Dies by a write through a null pointer. Status 3.
#![no_std]
#![no_main]

use core::arch::asm;

kernel::app!(main);

async fn main() {
    // SAFETY: nothing is mapped at address 0, so the write changes nothing: the page fault ends the guest.
    unsafe { asm!("mov qword ptr [{null}], 1", null = in(reg) 0u64) };
    kernel::println!("still alive after a write through a null pointer");
}
