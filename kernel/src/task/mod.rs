//! Tasks and threads on one scheduler. Tasks are futures that take turns in a worker thread of each CPU; threads have
//! stacks of their own and are preempted.
//!
//! Interrupt handlers wake tasks and threads, they never run them. With nothing ready a CPU halts, and no timer
//! interrupts it but the one that the next sleeper asked for.
//! Reads in this order: `executor` (ready tasks), `waker`, `ready` (when a task is ready), `join` (a result), `sleep`
//! (`sleep`, `timeout`), `alarm` (a deadline that is put off), `worker` (the threads that poll, `block_on`), `scheduler` (which thread runs), `life` (their start and end), `queue`, `slice`,
//! `idle`, `round` (what devices are told), `thread`, `parker`, `list`, `watch` and `heartbeat` (reports of
//! who gets no further), `memory` (allocations that may fail). Apps see threads through
//! [`crate::thread`].
#![forbid(unsafe_code)]

mod alarm;
mod bell;
mod eagerness;
mod executor;
mod heartbeat;
mod idle;
mod join;
pub(crate) mod life;
mod list;
pub(crate) mod memory;
mod parker;
mod queue;
mod ready;
pub(crate) mod round;
pub(crate) mod scheduler;
mod sleep;
mod slice;
#[cfg(test)]
mod tests;
mod thread;
mod waker;
mod watch;
mod worker;

use crate::sync::atomic;

pub use alarm::Alarm;
pub use executor::{YieldNow, yield_now};
pub use join::JoinHandle;
pub use memory::OutOfMemory;
pub use sleep::{Elapsed, Sleep, sleep, sleep_until, timeout};
pub use thread::Priority;
pub use watch::watch;
pub use worker::{
    STACK_BYTES as WORKER_STACK_BYTES, block_on, count, enter_cpu, init, spawn, try_spawn, wake_cpu,
};
pub(crate) use {
    join::{Receiver, promise},
    thread::{Body, Thread},
    worker::{end_round, is_alone, would_halt},
};
