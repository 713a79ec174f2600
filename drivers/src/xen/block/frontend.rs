//! A disk's way up and down: what the backend is told, what it tells, and the end.
//! Neighbours: `mod` (the disk while it is up), `xenbus` (who calls when).
#![forbid(unsafe_code)]

use super::{
    super::{
        Access, Channel, Hypervisor, Shared as SharedPage,
        ring::FrontRing,
        xenbus::{Device, Frontend, Offer, State},
    },
    Block, Link, MAX_PAGES,
    wire::{PROTOCOL, SLOT_BYTES},
};
use crate::{
    class::{BlockInfo, SECTOR_BYTES, Shared},
    hal::Lock,
    xen::page::PAGE_BYTES,
};
use alloc::{
    boxed::Box,
    format,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};
use core::task::{Context, Poll};

/// A disk that cannot be asked anything.
pub(super) const NOTHING: BlockInfo = BlockInfo {
    sectors: 0,
    block_bytes: SECTOR_BYTES as u32,
    physical_block_bytes: SECTOR_BYTES as u32,
    optimal_bytes: PAGE_BYTES as u32,
    max_bytes: (MAX_PAGES * PAGE_BYTES) as u32,
    read_only: true,
    needs_flush: false,
    max_discard_sectors: 0,
    max_write_zeroes_sectors: 0,
};

/// Bytes that a disk writes at a time at most: more is not believed.
const MAX_PHYSICAL: u64 = 1 << 20;

/// In the backend's node `info`: it cannot be written.
#[doc(alias = "VDISK_READONLY")]
const READ_ONLY: u32 = 4;

/// The frontend of one disk.
pub struct BlockFront<L: Lock<Value = Block> + 'static> {
    disk: Arc<Shared<L>>,
    hypervisor: Arc<dyn Hypervisor>,
}

impl<L: Lock<Value = Block> + 'static> BlockFront<L> {
    /// A disk without a backend; `lock` makes its lock.
    pub fn new(hypervisor: Arc<dyn Hypervisor>, lock: impl FnOnce(Block) -> L) -> Self {
        Self { disk: Arc::new(Shared(lock(Block::new()))), hypervisor }
    }

    /// The disk. It stays when the device is gone: all it is asked fails then. While the domain is restored it waits.
    pub fn disk(&self) -> &Arc<Shared<L>> {
        &self.disk
    }

    /// The ring and its channel.
    fn share(&self, device: &Device) -> Result<Link, String> {
        let domain = device.backend_domain();
        let page = SharedPage::new(&self.hypervisor, domain, Access::ReadWrite).map_err(text)?;
        let ring = FrontRing::new(&page, SLOT_BYTES);
        let disk = self.disk.clone();
        let handler = Box::new(move || disk.0.with(Block::interrupt));
        let channel = Channel::new(&self.hypervisor, domain, handler).map_err(text)?;
        let number = &device.id().number;
        // Numbers with more bits exist; the backend knows the disk by its ring.
        let handle = number.parse::<u32>().map_err(|_| format!("{number:?} is no number of a disk"))? as u16;
        let hypervisor = self.hypervisor.clone();
        Ok(Link { hypervisor, domain, handle, page, ring, channel, pool: Vec::new(), pages: 0 })
    }
}

impl<L: Lock<Value = Block> + 'static> Frontend for BlockFront<L> {
    async fn offer(&mut self, device: &Device) -> Result<Offer, String> {
        let link = self.share(device)?;
        let values = [
            ("ring-ref", link.page.grant().0.to_string()),
            ("event-channel", link.channel.port().number.to_string()),
            ("protocol", PROTOCOL.into()),
            ("feature-persistent", "1".into()),
        ];
        self.disk.0.with(|block| block.link = Some(link));
        Ok(Offer {
            values: values.into_iter().map(|(key, value)| (key.into(), value)).collect(),
            state: State::Initialised,
        })
    }

    async fn connect(&mut self, device: &Device) -> Result<(), String> {
        let sectors = number(device, "sectors").await?.ok_or("the backend does not say how large it is")?;
        let block_bytes = number(device, "sector-size").await?.unwrap_or(SECTOR_BYTES as u64);
        let physical = number(device, "physical-sector-size").await?.unwrap_or(block_bytes);
        let info = number(device, "info").await?.unwrap_or(0);
        let needs_flush = number(device, "feature-flush-cache").await?.unwrap_or(0) != 0;
        let name = device.backend_value("dev").await.map_err(text)?.unwrap_or_default();
        if !block_bytes.is_power_of_two() || !(SECTOR_BYTES as u64..=PAGE_BYTES as u64).contains(&block_bytes)
        {
            return Err(format!("blocks of {block_bytes} bytes, expected a power of two from 512 to 4096"));
        }
        let info = BlockInfo {
            sectors,
            block_bytes: block_bytes as u32,
            physical_block_bytes: physical.clamp(block_bytes, MAX_PHYSICAL) as u32,
            read_only: info & u64::from(READ_ONLY) != 0,
            needs_flush,
            ..NOTHING
        };
        self.disk.0.with(|block| {
            (block.info, block.name) = (info, name);
            block.begin();
        });
        Ok(())
    }

    fn poll_fault(&mut self, cx: &mut Context<'_>) -> Poll<String> {
        self.disk.0.with(|block| match block.fault {
            Some(fault) => Poll::Ready(fault.into()),
            None => {
                block.on_fault = Some(cx.waker().clone());
                Poll::Pending
            }
        })
    }

    fn close(&mut self) {
        self.disk.0.with(Block::close);
    }
}

/// The device is gone for good.
impl<L: Lock<Value = Block> + 'static> Drop for BlockFront<L> {
    fn drop(&mut self) {
        self.disk.0.with(Block::end);
    }
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

/// A number that the backend says under this name, if it says anything.
async fn number(device: &Device, key: &str) -> Result<Option<u64>, String> {
    let Some(value) = device.backend_value(key).await.map_err(text)? else { return Ok(None) };
    let parsed = value.trim().parse();
    parsed.map(Some).map_err(|_| format!("{key} is {value:?}, expected a number"))
}
