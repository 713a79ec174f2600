//! Touches most of memory, page by page, on a host that brings some pages late; another task counts meanwhile. It can run
//! only while this one waits for a page. Says how often it did; status 0.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::{string::String, vec::Vec};
use core::sync::atomic::{AtomicU64, Ordering};

kernel::app!(main);

/// What is touched.
const BYTES: usize = 40 << 20;
const PAGE_BYTES: usize = 4096;

static RUNS: AtomicU64 = AtomicU64::new(0);

async fn main() -> Result<(), String> {
    let mut memory: Vec<u8> = Vec::new();
    memory.try_reserve_exact(BYTES).map_err(|_| "too little memory")?;
    kernel::task::spawn(async {
        loop {
            RUNS.fetch_add(1, Ordering::Relaxed);
            kernel::task::yield_now().await;
        }
    });
    kernel::task::yield_now().await;
    let mut waits = 0;
    while memory.len() < BYTES {
        let before = RUNS.load(Ordering::Relaxed);
        memory.resize(memory.len() + PAGE_BYTES, 1);
        waits += u32::from(RUNS.load(Ordering::Relaxed) != before);
    }
    kernel::println!("touched {} MiB; another task ran during {waits} waits", memory.len() >> 20);
    Ok(())
}
