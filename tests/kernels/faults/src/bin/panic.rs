//! Dies by a panic with a lock held: message, place and backtrace come out nevertheless. Status 2.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

use kernel::sync::IrqMutex;

kernel::app!(main);

static LOCK: IrqMutex<u32> = IrqMutex::new(7);

async fn main() {
    let held = LOCK.lock();
    panic!("on purpose, with {} locked", *held);
}
