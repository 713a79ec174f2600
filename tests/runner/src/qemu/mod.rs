//! Running a guest in QEMU.
//!
//! Neighbours: `options` (what was asked for), `line` (the command line), `network` (what the guest's card is connected to), `process` (the child and its console), `qmp` (what QEMU says of the machine),
//! `ending` (how it ended), `terminal` (the user's side of the console).

pub mod ending;
pub mod line;
pub mod options;
pub mod network;
pub mod process;
mod qmp;
pub mod terminal;

pub use ending::Ending;
pub(crate) use ending::Traces;
pub use line::Line;
pub(crate) use options::megabytes;
pub use options::{Accel, Machine, Options, Platform, Serial};
pub(crate) use process::{Console, Scratch};
pub use process::{Finished, Running, Tee};
