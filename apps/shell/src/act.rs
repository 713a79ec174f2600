//! Commands that do something.
#![forbid(unsafe_code)]

use core::time::Duration;

use kernel::{
    log::{self, LevelFilter},
    power, println,
};

/// The longest sleep: a day. Longer is taken for a slip.
const MAX_SLEEP_S: u64 = 24 * 60 * 60;
/// The highest exit status of a guest (docs/apps.md).
const MAX_STATUS: u8 = 79;

/// Shows or sets the log level.
pub(crate) fn log(level: &str) {
    if level.is_empty() {
        return println!("{}", log::level());
    }
    match level.parse::<LevelFilter>() {
        Ok(level) => log::set_level(level),
        Err(_) => println!("{level:?} is no level: off, error, warn, info, debug or trace"),
    }
}

/// Waits so many seconds.
pub(crate) async fn sleep(seconds: &str) {
    match seconds.parse() {
        Ok(seconds @ 0..=MAX_SLEEP_S) => kernel::sleep(Duration::from_secs(seconds)).await,
        _ => println!("sleep takes whole seconds, {MAX_SLEEP_S} at most, not {seconds:?}"),
    }
}

/// Ends the guest.
pub(crate) fn exit(status: &str) {
    match if status.is_empty() { Ok(0) } else { status.parse() } {
        Ok(status @ 0..=MAX_STATUS) => power::exit(status),
        _ => println!("a status is a number from 0 to {MAX_STATUS}, not {status:?}"),
    }
}

/// Calls itself until the stack is full: the guard page below it raises an exception.
#[expect(unconditional_recursion, reason = "it is the point")]
pub(crate) fn fault(depth: u64) -> u64 {
    let room = core::hint::black_box([depth; 64]);
    fault(depth + 1) + room[depth as usize % 64]
}
