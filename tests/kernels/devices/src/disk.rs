//! Rewrites the first disk, block by block, many at a time; the host looks at the image afterwards.
//! `wait` waits for a disk that comes later, `until-gone` for its end; with `hold` it looks for the disk after a key, with `twice`
//! it does its work again after one. `alone` lets one task do it, and with `bad` some blocks may fail.
#![forbid(unsafe_code)]

use alloc::{format, string::String, vec::Vec};
use core::time::Duration;

use drivers::{
    class::{BlockRequest, SECTOR_BYTES},
    dma::DmaBuffer,
};
use kernel::devices::{self, block::Disk};

use crate::{buffer, done};

const SECTORS: u64 = (crate::BLOCK_BYTES / SECTOR_BYTES) as u64;
/// Blocks that are worked on at the same time, if the command line does not say.
const DEPTH: u64 = 32;

/// Between two looks for a disk.
const POLL: Duration = Duration::from_millis(20);

/// Does it; an error is the first thing that went wrong.
pub(crate) async fn run() -> Result<(), String> {
    if has_word("hold") {
        wait_for_key().await;
    }
    let disk = first_disk().await?;
    let info = disk.info();
    kernel::println!("disk: {} sectors, name {:?}", info.sectors, name(&disk).await?);
    refuses_what_cannot_be(&disk).await?;
    if !info.read_only {
        rewrite(&disk).await?;
        if info.max_write_zeroes_sectors > 0 {
            let sector = info.sectors - SECTORS;
            let request = BlockRequest::WriteZeroes { sector, count: SECTORS as u32, may_unmap: true };
            done(disk.request(request).await, "write zeroes")?;
            kernel::println!("disk: zeroes written");
        }
        if info.needs_flush {
            done(disk.flush().await, "flush")?;
        }
    }
    let read = disk.read(0, buffer()?).await;
    done(read, "read")?;
    let counts = disk.counts();
    kernel::println!(
        "disk: {} requests, {} notifications, {} interrupts",
        counts.requests,
        counts.notifications,
        counts.interrupts
    );
    if has_word("twice") {
        wait_for_key().await;
        rewrite(&disk).await?;
    }
    if has_word("until-gone") {
        kernel::println!("disk: waits until it is gone");
        while !devices::block::disks().is_empty() {
            kernel::task::sleep(POLL).await;
        }
        let gone = disk.read(0, buffer()?).await.result;
        kernel::println!("disk: gone, and answers {gone:?}");
        return gone.map_or(Ok(()), |_| Err("a disk that is gone was read".into()));
    }
    Ok(())
}

async fn wait_for_key() {
    kernel::println!("disk: waits for a key");
    kernel::console::read_byte().await;
}

fn has_word(word: &str) -> bool {
    kernel::app::args().any(|(key, _)| key == word)
}

/// The first disk; with `wait` on the command line one may come later.
async fn first_disk() -> Result<Disk, String> {
    loop {
        if let Some(disk) = devices::block::disks().into_iter().next() {
            return Ok(disk);
        }
        if !has_word("wait") {
            return Err("no disk".into());
        }
        kernel::task::sleep(POLL).await;
    }
}

/// Changes every byte of the disk; what block `n` is changed by depends on `n`.
async fn rewrite(disk: &Disk) -> Result<(), String> {
    let blocks = disk.info().sectors / SECTORS;
    let depth =
        kernel::app::args().find(|(key, _)| *key == "depth").and_then(|(_, value)| value.parse().ok());
    let depth = depth.unwrap_or(DEPTH);
    if has_word("alone") {
        let failed = rewrite_alone(disk, depth, blocks).await?;
        kernel::println!(
            "disk: blocks {failed:?} failed, {} were written by one task",
            blocks - failed.len() as u64
        );
        if !failed.is_empty() && !has_word("bad") {
            return Err("a block failed".into());
        }
        return Ok(());
    }
    let workers = (0..depth).map(|first| {
        let disk = disk.clone();
        kernel::task::spawn(async move {
            let mut buffer = buffer()?;
            for block in (first..blocks).step_by(depth as usize) {
                let sector = block * SECTORS;
                buffer = done(disk.read(sector, buffer).await, "read")?;
                change(block, &mut buffer);
                buffer = done(disk.write(sector, buffer).await, "write")?;
            }
            Ok::<(), String>(())
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await?;
    }
    Ok(())
}

fn change(block: u64, buffer: &mut DmaBuffer) {
    let change = (block as u8).wrapping_mul(31).wrapping_add(17);
    buffer.bytes_mut().iter_mut().for_each(|byte| *byte ^= change);
}

/// The same by one task with so many requests in flight; the blocks that could not be read or written. A block is known by its
/// number, and, when it is written, by one more bit.
async fn rewrite_alone(disk: &Disk, depth: u64, blocks: u64) -> Result<Vec<u64>, String> {
    const WRITTEN: u64 = 1 << 63;
    let mut in_flight = disk.in_flight(depth as usize);
    let read = |block, buffer| BlockRequest::Read { sector: block * SECTORS, buffer };
    for block in 0..depth.min(blocks) {
        in_flight.push(block, read(block, buffer()?));
    }
    let mut following = depth..blocks;
    let mut failed = Vec::new();
    while let Some((tag, outcome)) = in_flight.next().await {
        let block = tag & !WRITTEN;
        let mut buffer = outcome.buffer.ok_or("the buffer is gone")?;
        match outcome.result {
            Ok(_) if tag & WRITTEN == 0 => {
                change(block, &mut buffer);
                in_flight.push(block | WRITTEN, BlockRequest::Write { sector: block * SECTORS, buffer });
                continue;
            }
            Ok(_) => {}
            Err(_) => failed.push(block),
        }
        if let Some(block) = following.next() {
            in_flight.push(block, read(block, buffer));
        }
    }
    failed.sort_unstable();
    Ok(failed)
}

/// Requests that the driver must not pass on.
async fn refuses_what_cannot_be(disk: &Disk) -> Result<(), String> {
    let end = disk.info().sectors;
    for sector in [end, end - 1, u64::MAX - 1] {
        if disk.read(sector, buffer()?).await.result.is_ok() {
            return Err(format!("sector {sector} of {end} was read"));
        }
    }
    if disk.info().read_only && disk.write(0, buffer()?).await.result.is_ok() {
        return Err("a read-only disk was written".into());
    }
    Ok(())
}

async fn name(disk: &Disk) -> Result<String, String> {
    let buffer = done(disk.request(BlockRequest::GetId { buffer: buffer()? }).await, "get id")?;
    let bytes = &buffer.bytes()[..20];
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
}

/// Resets the queue, and rewrites the disk through it.
pub(crate) async fn cancel() -> Result<(), String> {
    let disk = devices::block::disks().into_iter().next().ok_or("no disk")?;
    done(disk.read(0, buffer()?).await, "read")?;
    disk.cancel().map_err(|error| format!("cancel: {error}"))?;
    kernel::println!("disk: queue reset");
    run().await
}

/// Waits until the disk has another size.
pub(crate) async fn growth() -> Result<(), String> {
    let disk = devices::block::disks().into_iter().next().ok_or("no disk")?;
    let before = disk.info();
    kernel::println!("growth: {} sectors, {} behind", before.sectors, before.physical_block_bytes);
    while disk.info().sectors == before.sectors {
        kernel::sleep(Duration::from_millis(1)).await;
    }
    kernel::println!("growth: now {} sectors", disk.info().sectors);
    Ok(())
}

/// Says that the second block is not needed any more.
pub(crate) async fn discard() -> Result<(), String> {
    let disk = devices::block::disks().into_iter().next().ok_or("no disk")?;
    let request = BlockRequest::Discard { sector: SECTORS, count: SECTORS as u32 };
    done(disk.request(request).await, "discard")?;
    done(disk.flush().await, "flush")?;
    kernel::println!("disk: a block discarded, {} sectors at most", disk.info().max_discard_sectors);
    Ok(())
}
