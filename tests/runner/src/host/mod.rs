//! What the tool knows of the machine it runs on: places, packages, other programs, the terminal's progress line.

pub mod cache;
pub mod packages;
pub mod paths;
pub mod process;
pub mod progress;
