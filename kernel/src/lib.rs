//! Pliant's kernel: the guest itself, a library that an app links into one static ELF.
//!
//! The modules stand in the order in which the guest starts, and each uses only what is already up. What somebody asks for
//! first (`console::read_byte`, `time::wall`) may bring up devices then.
//! `start` reads as the table of contents.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod hypervisor;
pub mod sync;
#[cfg(test)]
mod interleave;

pub mod console;
pub mod log;
pub mod symbols;
pub mod backtrace;
pub mod panic;
pub mod power;
#[macro_use]
pub mod test;

pub mod cpu;
pub mod mm;
pub mod acpi;
pub mod irq;
pub mod time;
pub mod task;
pub mod thread;

pub mod platform;
mod kvm;
pub mod xen;
pub mod devices;
pub mod random;
pub mod net;

pub mod app;
#[cfg(target_os = "none")]
pub mod stages;
#[cfg(target_os = "none")]
mod start;

pub use boot;
pub use pv_ops;

pub use app::{args, cmdline};
pub use task::{JoinHandle, block_on, sleep, spawn, timeout, yield_now};
