//! Threads that want the guest's CPU: what they get of it is time stolen from the guest.

use std::hint;
use std::io;
use std::mem;
use std::thread;

use anyhow::{Context, Result};

/// The one CPU of the host that all contend for.
const CPU: usize = 0;

/// Starts `count` threads that never rest, on [`CPU`].
pub(crate) fn start(count: usize) {
    for _ in 0..count {
        thread::spawn(|| {
            // Where the host does not allow it, they contend where they are.
            let _ = stay_on_one_cpu();
            loop {
                hint::spin_loop();
            }
        });
    }
}

/// Keeps the calling thread on [`CPU`].
///
/// # Errors
/// The host does not allow it.
pub(crate) fn stay_on_one_cpu() -> Result<()> {
    // SAFETY: `cpu_set_t` is an array of integers: all zero is a value of it.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: CPU 0 is within any `cpu_set_t`.
    unsafe { libc::CPU_SET(CPU, &mut set) };
    // SAFETY: `set` lives, is as long as said, and is only read.
    let result = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()).context("cannot stay on one CPU") }
}
