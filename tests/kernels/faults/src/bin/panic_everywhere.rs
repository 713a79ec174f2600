//! All CPUs panic at the same moment: one of them reports, the others stop. Status 2.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

use kernel::cpu::{call_on, percpu, this_cpu};

kernel::app!(main);

async fn main() {
    call_on(percpu::up(), &|| panic!("on purpose, by one CPU: {}", this_cpu()));
}
