//! Dies by a write to its own code. Status 3.
#![no_std]
#![no_main]

use core::arch::asm;

kernel::app!(main);

async fn main() {
    let code = victim as fn() as usize;
    // SAFETY: the text is read-only, so the write changes nothing: the page fault ends the guest.
    unsafe { asm!("mov byte ptr [{code}], 0x90", code = in(reg) code) };
    kernel::println!("still alive after a write to the text");
}

#[inline(never)]
fn victim() {}
