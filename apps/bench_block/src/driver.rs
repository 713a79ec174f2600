//! Through the driver: tasks that await their requests.
#![forbid(unsafe_code)]

use alloc::{format, string::String, sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use drivers::class::BlockRequest;
use kernel::{devices::block::Disk, task};

use crate::{BLOCK_BYTES, Case, Counted, Order, now_ns};

/// Keeps `case.depth` tasks busy for so long.
pub(crate) async fn measure(disk: &Disk, case: Case, ns: u64) -> Result<Counted, String> {
    let sectors = disk.info().sectors;
    let (done, place) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (before, start) = (disk.counts(), now_ns());
    let workers: Vec<_> = (0..case.depth)
        .map(|number| {
            let (disk, done, place) = (disk.clone(), done.clone(), place.clone());
            let mut order = Order::new(case, sectors);
            order.state += u64::from(number) << 32;
            task::spawn(async move {
                let mut buffer = kernel::devices::buffer(BLOCK_BYTES).map_err(|error| format!("{error}"))?;
                while now_ns() < start + ns {
                    // In order means in one order, that of all tasks together.
                    if !case.random {
                        order.state = place.fetch_add(1, Relaxed);
                    }
                    let sector = order.next();
                    let request = match case.write {
                        true => BlockRequest::Write { sector, buffer },
                        false => BlockRequest::Read { sector, buffer },
                    };
                    let outcome = disk.request(request).await;
                    outcome.result.map_err(|error| format!("{error}"))?;
                    buffer = outcome.buffer.ok_or("the buffer is gone")?;
                    done.fetch_add(1, Relaxed);
                }
                Ok::<(), String>(())
            })
        })
        .collect();
    for worker in workers {
        worker.await?;
    }
    let after = disk.counts();
    Ok(Counted {
        requests: done.load(Relaxed),
        ns: now_ns() - start,
        notifications: after.notifications - before.notifications,
        interrupts: after.interrupts - before.interrupts,
    })
}
