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

pub(crate) use clock::cpu_up;
pub use clock::{Instant, UnixTime, begin, has_timer, init, now, tsc_rate, wall};
pub use tsc::{Measuring, Rate, Source};
