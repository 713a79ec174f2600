//! Dies by an allocation that cannot fail, yet must: a panic that names the size. Status 2.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

kernel::app!(main);

async fn main() {
    let block = alloc::vec![1u8; 1 << 45];
    kernel::println!("still alive with {} GiB", core::hint::black_box(&block).len() >> 30);
}
