//! Lets the host inflate the balloon and deflate it again; uses memory so that the host can see it come back.
#![forbid(unsafe_code)]

use alloc::{format, string::String, vec::Vec};
use core::time::Duration;

use kernel::{devices::balloon, mm::frame, sleep};

use crate::number;

const LOOK: Duration = Duration::from_millis(5);

async fn until(is_there: impl Fn(balloon::Status) -> bool) -> Result<balloon::Status, String> {
    loop {
        let status = balloon::status().ok_or("the balloon is gone")?;
        if is_there(status) {
            return Ok(status);
        }
        sleep(LOOK).await;
    }
}

/// Waits until the balloon is as large as the host wants it, and until it is empty again.
pub(crate) async fn run() -> Result<(), String> {
    if !balloon::serve() {
        return Err("no balloon".into());
    }
    kernel::println!("balloon: ready");
    let status = until(|status| status.pages > 0 && status.pages == status.target).await?;
    kernel::println!("balloon: inflated to {} pages", status.pages);
    let status = until(|status| status.pages == 0).await?;
    kernel::println!("balloon: deflated, {} notifications", status.notifications);
    Ok(())
}

/// Writes to much memory and frees it, then lives on until it is ended: what the host has to find for this guest is measured
/// meanwhile.
pub(crate) async fn touch() -> Result<(), String> {
    kernel::println!("touch: begin");
    sleep(Duration::from_millis(200)).await;
    let blocks = number("mib").unwrap_or(64) / 4;
    let owned: Result<Vec<_>, _> = (0..blocks).map(|_| frame::alloc(frame::MAX_ORDER)).collect();
    let mut owned = owned.map_err(|error| format!("{error}"))?;
    owned.iter_mut().for_each(|block| block.bytes().fill(0xa5));
    kernel::println!("touch: {blocks} blocks of 4 MiB written");
    sleep(Duration::from_millis(500)).await;
    drop(owned);
    if !balloon::serve() {
        return Err("no balloon".into());
    }
    kernel::println!("touch: freed");
    loop {
        sleep(Duration::from_secs(1)).await;
    }
}

/// With an inflated balloon takes more memory than is left.
pub(crate) async fn hog() -> Result<(), String> {
    if !balloon::serve() {
        return Err("no balloon".into());
    }
    kernel::println!("balloon: ready");
    let before = until(|status| status.pages > 0 && status.pages == status.target).await?;
    kernel::println!("balloon: inflated to {} pages", before.pages);
    let wanted = frame::statistics().free_bytes() + before.pages * 4096 / 2;
    let mut owned = Vec::new();
    while (owned.len() as u64) << 20 < wanted {
        let mut piece = Vec::new();
        piece.try_reserve_exact(1 << 20).map_err(|_| "memory has run out")?;
        piece.resize(1 << 20, 1u8);
        owned.push(piece);
    }
    let after = balloon::status().ok_or("the balloon is gone")?;
    kernel::println!("hog: {} MiB taken, {} pages are left in the balloon", owned.len(), after.pages);
    if after.pages >= before.pages {
        return Err("the balloon gave nothing back".into());
    }
    Ok(())
}
