//! A thread panics with a lock that another waits for, while main waits for both: that ends the guest. Status 2.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

use kernel::{
    sync::Mutex,
    thread::{self, spawn},
};

kernel::app!(main);

static LOCK: Mutex<u32> = Mutex::new(7);

async fn main() {
    let panics = spawn(|| -> u32 {
        let held = LOCK.lock();
        thread::park();
        panic!("on purpose, with {} locked", *held);
    });
    while LOCK.try_lock().is_some() {
        thread::yield_now();
    }
    let waits = spawn(|| *LOCK.lock());
    panics.thread().unpark();
    panics.join();
    waits.join();
}
