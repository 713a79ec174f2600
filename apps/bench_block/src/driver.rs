//! Through the driver: one task with many requests in flight, or as many tasks that await one each.
#![forbid(unsafe_code)]

use alloc::{format, string::String, sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use drivers::{
    class::{BlockRequest, Outcome},
    dma::DmaBuffer,
};
use kernel::{
    devices::{self, block::Disk},
    task,
};

use crate::{BLOCK_BYTES, CLOCK_EVERY, Case, Counted, Order, now_ns};

/// One task that keeps `case.depth` requests in flight for so long.
pub(crate) async fn in_flight(disk: &Disk, case: Case, ns: u64) -> Result<Counted, String> {
    let mut order = Order::new(case, disk.info().sectors);
    let mut in_flight = disk.in_flight(case.depth.into());
    let buffers: Result<Vec<_>, _> = (0..case.depth).map(|_| buffer()).collect();
    let (before, start) = (disk.counts(), now_ns());
    for (tag, buffer) in (0..).zip(buffers?) {
        in_flight.push(tag, case.request(order.next(), buffer));
    }
    let (mut done, mut is_over) = (0, false);
    while let Some((tag, outcome)) = in_flight.next().await {
        let buffer = checked(outcome)?;
        done += 1;
        // The clock is asked now and then, as in the bare loop.
        if done % CLOCK_EVERY == 0 {
            is_over = now_ns() >= start + ns;
        }
        if !is_over {
            in_flight.push(tag, case.request(order.next(), buffer));
        }
    }
    Ok(counted(disk, before, start, done))
}

/// As many tasks as `case.depth`, each with one request at a time.
pub(crate) async fn tasks(disk: &Disk, case: Case, ns: u64) -> Result<Counted, String> {
    let sectors = disk.info().sectors;
    let (done, place) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (before, start) = (disk.counts(), now_ns());
    let workers: Vec<_> = (0..case.depth)
        .map(|number| {
            let (disk, done, place) = (disk.clone(), done.clone(), place.clone());
            let mut order = Order::new(case, sectors);
            order.state += u64::from(number) << 32;
            task::spawn(async move {
                let mut buffer = buffer()?;
                while now_ns() < start + ns {
                    // In order means in one order, that of all tasks together.
                    if !case.random {
                        order.state = place.fetch_add(1, Relaxed);
                    }
                    buffer = checked(disk.request(case.request(order.next(), buffer)).await)?;
                    done.fetch_add(1, Relaxed);
                }
                Ok::<(), String>(())
            })
        })
        .collect();
    for worker in workers {
        worker.await?;
    }
    Ok(counted(disk, before, start, done.load(Relaxed)))
}

impl Case {
    fn request(self, sector: u64, buffer: DmaBuffer) -> BlockRequest {
        match self.write {
            true => BlockRequest::Write { sector, buffer },
            false => BlockRequest::Read { sector, buffer },
        }
    }
}

fn buffer() -> Result<DmaBuffer, String> {
    devices::buffer(BLOCK_BYTES).map_err(|error| format!("{error}"))
}

#[inline(always)]
fn checked(outcome: Outcome) -> Result<DmaBuffer, String> {
    outcome.result.map_err(|error| format!("{error}"))?;
    outcome.buffer.ok_or_else(|| "the buffer is gone".into())
}

fn counted(disk: &Disk, before: devices::Counts, start: u64, requests: u64) -> Counted {
    let after = disk.counts();
    Counted {
        requests,
        ns: now_ns() - start,
        notifications: after.notifications - before.notifications,
        interrupts: after.interrupts - before.interrupts,
    }
}
