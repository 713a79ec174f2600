//! A panic: where, why, how it came there, and the end of the guest with status 2.
//!
//! Nothing here takes a lock or allocates: the panic may hold any lock and the heap may be the reason.
//! Neighbours: `backtrace` (frames and names), `test` (a panicking test is a failed test), `power`.
#![forbid(unsafe_code)]

use core::fmt;
#[cfg(target_os = "none")]
use core::{
    panic::PanicInfo,
    sync::atomic::{AtomicU8, Ordering::Relaxed},
};

/// Writes past every lock, without allocating: for panics and fatal exceptions.
#[derive(Debug, Default)]
pub struct Emergency(());

impl fmt::Write for Emergency {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        crate::console::write_emergency(text.as_bytes());
        Ok(())
    }
}

/// Panics seen so far: the second is one in the handler of the first.
#[cfg(target_os = "none")]
static DEPTH: AtomicU8 = AtomicU8::new(0);

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    use core::fmt::Write as _;

    pv_ops::irq_disable();
    crate::cpu::stop::others();
    let mut out = Emergency::default();
    match DEPTH.fetch_add(1, Relaxed) {
        0 => {}
        1 => {
            let _ = writeln!(out, "\nPANIC in the panic handler: {}", info.message());
            crate::power::exit_silently(crate::power::PANIC)
        }
        _ => crate::power::exit_silently(crate::power::PANIC),
    }
    match info.location() {
        Some(at) => {
            let _ = writeln!(out, "\nPANIC at {}:{}: {}", at.file(), at.line(), info.message());
        }
        None => {
            let _ = writeln!(out, "\nPANIC at an unknown place: {}", info.message());
        }
    }
    let _ = write!(out, "backtrace:\n{}", crate::backtrace::Backtrace::here());
    let status = match crate::test::ended_by_panic(&mut out) {
        true => crate::power::FAILURE,
        false => crate::power::PANIC,
    };
    crate::power::exit_silently(status)
}
