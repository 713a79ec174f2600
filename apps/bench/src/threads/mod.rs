//! What threads, tasks, locks, timers and memory cost: nanoseconds, interrupts and IPIs for one of each.
//!
//! Each row is measured some times over, many operations in a row each; shown are the least and the median. Where
//! threads take turns the figure is for one turn: of two that wake each other, half a round trip. The rows that Linux
//! has too are called the same in its program (`tests/runner/src/bench/linux_threads.c`).
//! Files: `row` (the measuring), `memory`, `turns` (threads that take turns), `life` (starts and ends), `clock` (timers,
//! idleness), `others` (what CPUs ask of each other).

mod clock;
mod life;
mod memory;
mod others;
mod row;
mod turns;

use kernel::{cpu, println};

pub(crate) use clock::idle;

/// Measures all and prints the table.
pub(crate) async fn measure() {
    let cpus = cpu::percpu::up().len();
    println!("on {cpus} CPU(s): least (median) ns, cycles, interrupts, IPIs for each");
    memory::measure();
    turns::measure(cpus);
    life::measure().await;
    clock::measure().await;
    others::measure();
}
