//! Disks that other domains serve: brought up by the bus, found by apps beside all others.
//! Neighbours: `drivers::xen::block` (how they are driven), `devices::block` (the list).
#![forbid(unsafe_code)]

use alloc::{format, string::String, sync::Arc};
use core::task::{Context, Poll};

use drivers::{
    class::{BlockDevice, SECTOR_BYTES},
    xen::{
        Hypervisor,
        block::{Block, BlockFront},
        xenbus::{Device, Frontend, Offer},
    },
};

use super::bell::Bell;
use crate::{
    devices::block::{self, Disk},
    sync::IrqMutex,
};

/// A disk's frontend, and its place in the list.
pub(super) struct Front {
    front: BlockFront<IrqMutex<Block>>,
    up: Arc<Bell>,
    name: Option<String>,
}

impl Front {
    /// A disk that comes; `up` is rung when it has come.
    pub(super) fn new(hypervisor: Arc<dyn Hypervisor>, up: Arc<Bell>) -> Self {
        Self { front: BlockFront::new(hypervisor, IrqMutex::new), up, name: None }
    }
}

impl Frontend for Front {
    async fn offer(&mut self, device: &Device) -> Result<Offer, String> {
        self.front.offer(device).await
    }

    async fn connect(&mut self, device: &Device) -> Result<(), String> {
        self.front.connect(device).await?;
        let (info, name) = (self.front.disk().info(), format!("xen-blk {}", device.id()));
        log::info!(
            "{name}: {} KiB, blocks of {} bytes, {}{}",
            info.sectors / (1024 / SECTOR_BYTES as u64),
            info.block_bytes,
            if info.read_only { "read-only" } else { "read-write" },
            if info.needs_flush { ", flush" } else { "" }
        );
        // After the domain was restored it is the same disk.
        if self.name.is_none() {
            Disk::of_xen(&name, self.front.disk().clone()).register();
            self.name = Some(name);
        }
        self.up.ring();
        Ok(())
    }

    fn poll_fault(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        self.front.poll_fault(cx)
    }

    fn close(&mut self) {
        self.front.close();
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            block::remove(name);
        }
    }
}
