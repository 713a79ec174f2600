//! Dies by recursion without end: the guard page below the stack is hit and the report says so. Status 3.
#![no_std]
#![no_main]

kernel::app!(main);

async fn main() {
    kernel::println!("depth {}", descend(0));
}

/// Uses a good piece of stack for each call, and cannot become a loop.
#[expect(unconditional_recursion, reason = "it is the point")]
fn descend(depth: u64) -> u64 {
    let room = core::hint::black_box([depth; 64]);
    descend(depth + 1) + room[depth as usize % 64]
}
