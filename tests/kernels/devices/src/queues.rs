//! Has every CPU ask a disk by a queue of its own.
#![forbid(unsafe_code)]

use alloc::{format, string::String, sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use drivers::class::SECTOR_BYTES;
use kernel::devices::{self, block::Disk};

use crate::{buffer, done};

const SECTORS: u64 = (crate::BLOCK_BYTES / SECTOR_BYTES) as u64;
/// Requests that each queue is to have seen.
const LEAST: u64 = 64;
/// Tasks: more than CPUs, so that a CPU without work finds some.
const TASKS: u64 = 32;
/// Requests of one task at most.
const MOST: u64 = 20_000;

/// Reads until every queue has had its share; then tells what each has done.
pub(crate) async fn run() -> Result<(), String> {
    let disk = devices::block::disks().into_iter().next().ok_or("no disk")?;
    let is_over = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> =
        (0..TASKS).map(|number| kernel::task::spawn(read(disk.clone(), number, is_over.clone()))).collect();
    for task in tasks {
        task.await?;
    }
    for (number, queue) in disk.queue_counts().into_iter().enumerate() {
        let counts = queue.counts;
        kernel::println!(
            "queue {number}: {} requests, {} notifications, {} interrupts, {} of them on its CPU",
            counts.requests,
            counts.notifications,
            counts.interrupts,
            queue.own_interrupts
        );
    }
    if is_over.load(Relaxed) { Ok(()) } else { Err("a CPU asked too little".into()) }
}

async fn read(disk: Disk, first: u64, is_over: Arc<AtomicBool>) -> Result<(), String> {
    let (blocks, mut buffer) = (disk.info().sectors / SECTORS, buffer()?);
    for number in 0..MOST {
        if is_over.load(Relaxed) {
            break;
        }
        let block = (first + number * TASKS) % blocks;
        buffer = done(disk.read(block * SECTORS, buffer).await, "read")?;
        // Work with what was read: other CPUs take tasks meanwhile.
        let sum =
            (0..20).map(|_| buffer.bytes().iter().map(|&byte| u64::from(byte)).sum::<u64>()).sum::<u64>();
        if core::hint::black_box(sum) == u64::MAX {
            return Err(format!("the sum of {} bytes is {sum}", buffer.len()));
        }
        if number % 16 == 0 && disk.queue_counts().iter().all(|queue| queue.counts.requests >= LEAST) {
            is_over.store(true, Relaxed);
        }
    }
    Ok(())
}
