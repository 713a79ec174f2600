//! Dies by a call into data. Status 3.
#![no_std]
#![no_main]

use core::{arch::asm, cell::UnsafeCell};

kernel::app!(main);

/// A `ret`, where it can be written to and therefore must not be run.
struct Data(UnsafeCell<[u8; 16]>);

// SAFETY: nobody touches it.
unsafe impl Sync for Data {}

static DATA: Data = Data(UnsafeCell::new([0xc3; 16]));

async fn main() {
    // SAFETY: a `ret` comes back as from any function; if data cannot run, the page fault ends the guest.
    unsafe { asm!("call {data}", data = in(reg) DATA.0.get(), clobber_abi("C")) };
    kernel::println!("still alive after a call into data");
}
