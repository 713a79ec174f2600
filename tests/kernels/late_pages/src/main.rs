//! Touches most of memory, page by page, on a host that brings some pages late. It does so at high priority, while another
//! thread counts at low priority: that one runs while this one waits for a page. Says how far it came; status 0.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::{string::String, vec::Vec};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use kernel::thread::{Builder, Priority};

kernel::app!(main);

/// What is touched.
const BYTES: usize = 20 << 20;
const PAGE_BYTES: usize = 4096;

static RUNS: AtomicU64 = AtomicU64::new(0);
static STOP: AtomicBool = AtomicBool::new(false);

async fn main() -> Result<(), String> {
    let mut memory: Vec<u8> = Vec::new();
    memory.try_reserve_exact(BYTES).map_err(|_| "too little memory")?;
    let touch = move || {
        let mut runs = 0;
        while memory.len() < BYTES {
            let before = RUNS.load(Relaxed);
            memory.resize(memory.len() + PAGE_BYTES, 1);
            runs += RUNS.load(Relaxed) - before;
        }
        STOP.store(true, Relaxed);
        runs
    };
    let count = || {
        while !STOP.load(Relaxed) {
            RUNS.fetch_add(1, Relaxed);
        }
    };
    let counting = Builder::new().priority(Priority::Low).spawn(count).map_err(|_| "no thread")?;
    let touching = Builder::new().priority(Priority::High).spawn(touch).map_err(|_| "no thread")?;
    let runs = touching.join();
    counting.join();
    kernel::println!("touched {} MiB; another thread counted to {runs} meanwhile", BYTES >> 20);
    Ok(())
}
