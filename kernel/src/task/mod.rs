//! Tasks: futures that take turns on this CPU, and sleep while nothing is to do.
//!
//! Cooperative: a task runs until it awaits. Interrupt handlers wake tasks, they never run them. With nothing
//! ready the CPU halts, and no timer interrupts it but the one that the next sleeper asked for.
//! Files: `executor` (run queue, `block_on`), `waker` (when a task is ready), `idle` (the halt), `join` (a
//! task's result), `sleep` (`sleep`, `timeout`), `memory` (allocations that may fail).
#![forbid(unsafe_code)]

mod executor;
mod idle;
mod join;
mod memory;
mod sleep;
#[cfg(test)]
mod tests;
mod waker;

pub use executor::{YieldNow, block_on, count, spawn, try_spawn, yield_now};
pub use join::JoinHandle;
pub use memory::OutOfMemory;
pub use sleep::{Elapsed, Sleep, sleep, sleep_until, timeout};
