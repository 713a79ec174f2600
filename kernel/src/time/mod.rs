//! Time: what it is since the start, what date it is, and waking at a deadline.
//!
//! [`begin`] and [`init`] find the rate of the time stamp counter (`tsc`), and take the best timer there is.
//! Neighbours: `pv_ops` (reads the clock, arms the timer), `irq::apic` (the timer), `task::sleep` (who waits).
#![forbid(unsafe_code)]

mod calibrate;
mod clock;
pub(crate) mod lead;
pub mod queue;
mod reference;
mod tests;
pub mod timer;
mod tsc;

pub use clock::{Instant, UnixTime, has_timer, now, tsc_rate, wall};
pub(crate) use clock::{begin, cpu_up, init};
pub use tsc::{Rate, Source};
