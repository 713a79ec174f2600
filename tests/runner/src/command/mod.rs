//! The subcommands, one file each. Each `run` returns the tool's exit code.

pub mod boot_chart;
mod boot_wall;
pub mod clippy;
pub mod doctor;
pub mod gdb;
pub mod image;
pub mod matrix;
pub mod probe;
pub mod run;
pub mod size;
pub mod test;
