//! Lives: memory runs out, the app is told so, frees some and goes on. Status 0.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::{string::String, vec::Vec};

kernel::app!(main);

const BLOCK_BYTES: usize = 1 << 20;
const SMALL_BYTES: usize = 4 << 10;

async fn main() -> Result<(), String> {
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    let mut bytes = 0;
    for len in [BLOCK_BYTES, SMALL_BYTES] {
        while let Some(block) = allocate(len) {
            if blocks.try_reserve(1).is_err() {
                break;
            }
            blocks.push(block);
            bytes += len;
        }
    }
    if blocks.is_empty() {
        return Err("no memory at all".into());
    }
    let state = [1u8; 8 * SMALL_BYTES];
    if kernel::task::try_spawn(async move { state.len() }).is_ok() {
        return Err("a task of 32 KiB was started although memory is out".into());
    }
    blocks.clear();
    kernel::println!("out of memory after {} KiB; no task can be started, and the app goes on", bytes >> 10);
    let again = allocate(BLOCK_BYTES).ok_or("what was freed does not come back")?;
    kernel::println!("freed, and {} KiB again", again.capacity() >> 10);
    Ok(())
}

fn allocate(len: usize) -> Option<Vec<u8>> {
    let mut block = Vec::new();
    block.try_reserve_exact(len).ok()?;
    Some(block)
}
