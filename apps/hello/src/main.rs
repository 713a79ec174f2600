//! The smallest app: says hello, and how it came here.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

kernel::app!(main);

async fn main() {
    let boot = kernel::app::boot_info();
    let loader = if boot.loader.is_empty() { "a loader without a name" } else { &boot.loader };
    kernel::println!("Hello from Pliant");
    kernel::println!("booted by {} from {loader}, on {}", boot.protocol, kernel::hypervisor::name());
}
