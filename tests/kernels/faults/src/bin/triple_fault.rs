//! Dies without a word: an exception without an interrupt table. The host sees a reset.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

kernel::app!(main);

async fn main() {
    kernel::println!("the next exception has no table");
    kernel::cpu::reset::triple_fault()
}
