//! Blocks of the disk, kept for the file system, which cannot wait.
//!
//! The file system's code is synchronous, the disk is not. So a read of what is not here fails, and notes what is missing;
//! whoever asked has it fetched and asks again. Memory is bounded: what was not used for longest goes first.
#![forbid(unsafe_code)]

use alloc::{boxed::Box, rc::Rc, vec::Vec};
use core::cell::RefCell;

use drivers::class::SECTOR_BYTES;
use ext4_view::Ext4Read;
use kernel::devices::block::Disk;

/// Bytes of a block here, whatever the file system's are.
pub(crate) const BLOCK_BYTES: usize = 4096;
/// Blocks that are fetched together.
const FETCHED_BLOCKS: u64 = 16;
const SECTORS: u64 = (BLOCK_BYTES / SECTOR_BYTES) as u64;

struct Block {
    number: u64,
    last_use: u64,
    bytes: Box<[u8]>,
}

struct Inner {
    /// Sorted by number.
    blocks: Vec<Block>,
    most_blocks: usize,
    uses: u64,
    missing: Option<u64>,
    last_read: Option<u64>,
}

/// The blocks. Copies are the same.
#[derive(Clone)]
pub(crate) struct Cache(Rc<RefCell<Inner>>);

/// What the file system is told when a block is missing.
#[derive(Debug)]
struct NotHere;

impl core::fmt::Display for NotHere {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        out.write_str("the block is not here yet")
    }
}

impl core::error::Error for NotHere {}

impl Cache {
    /// Room for `most_blocks`, twice what is fetched together at least.
    pub(crate) fn new(most_blocks: usize) -> Self {
        Self(Rc::new(RefCell::new(Inner {
            blocks: Vec::new(),
            most_blocks: most_blocks.max(2 * FETCHED_BLOCKS as usize),
            uses: 0,
            missing: None,
            last_read: None,
        })))
    }

    /// The block that the last read was missing, once.
    pub(crate) fn take_missing(&self) -> Option<u64> {
        self.0.borrow_mut().missing.take()
    }

    /// The block after the last one that was read, if it is not here: who reads on will want it.
    pub(crate) fn next(&self) -> Option<u64> {
        let inner = self.0.borrow();
        let next = inner.last_read? + 1;
        inner.place(next).is_err().then_some(next)
    }

    /// Fetches block `number`, and those after it.
    ///
    /// # Errors
    /// The disk fails, or has no such block.
    pub(crate) async fn fetch(&self, disk: &Disk, number: u64) -> Result<(), drivers::Error> {
        let info = disk.info();
        let first = number.saturating_mul(SECTORS);
        let most = (FETCHED_BLOCKS * SECTORS).min(u64::from(info.max_bytes) / SECTOR_BYTES as u64);
        let count = most.min(info.sectors.saturating_sub(first));
        let buffer = kernel::devices::buffer((count as usize * SECTOR_BYTES).max(1))?;
        let outcome = disk.read(first, buffer).await;
        outcome.result?;
        let buffer = outcome.buffer.ok_or(drivers::Error::Failed("a read without its buffer"))?;
        let mut inner = self.0.borrow_mut();
        for (at, bytes) in buffer.bytes().chunks(BLOCK_BYTES).enumerate() {
            inner.insert(number + at as u64, bytes);
        }
        Ok(())
    }
}

impl Inner {
    fn place(&self, number: u64) -> Result<usize, usize> {
        self.blocks.binary_search_by_key(&number, |block| block.number)
    }

    fn insert(&mut self, number: u64, bytes: &[u8]) {
        self.uses += 1;
        let last_use = self.uses;
        if let Ok(place) = self.place(number) {
            self.blocks[place].last_use = last_use;
            return;
        }
        // The end of a disk may lie within a block; what is behind it reads as nothing.
        let mut whole = match self.blocks.len() < self.most_blocks {
            true => alloc::vec![0; BLOCK_BYTES].into_boxed_slice(),
            false => {
                let oldest =
                    (0..self.blocks.len()).min_by_key(|&place| self.blocks[place].last_use).unwrap_or(0);
                self.blocks.remove(oldest).bytes
            }
        };
        whole.fill(0);
        whole[..bytes.len()].copy_from_slice(bytes);
        let place = self.place(number).unwrap_or_else(|place| place);
        self.blocks.insert(place, Block { number, last_use, bytes: whole });
    }
}

impl Ext4Read for Cache {
    fn read(
        &mut self,
        start_byte: u64,
        mut to: &mut [u8],
    ) -> Result<(), Box<dyn core::error::Error + Send + Sync>> {
        let mut inner = self.0.borrow_mut();
        let mut at = start_byte;
        while !to.is_empty() {
            let (number, offset) = (at / BLOCK_BYTES as u64, (at % BLOCK_BYTES as u64) as usize);
            let Ok(place) = inner.place(number) else {
                inner.missing = Some(number);
                return Err(Box::new(NotHere));
            };
            inner.uses += 1;
            let uses = inner.uses;
            let block = &mut inner.blocks[place];
            block.last_use = uses;
            let len = to.len().min(BLOCK_BYTES - offset);
            let (now, later) = to.split_at_mut(len);
            now.copy_from_slice(&block.bytes[offset..offset + len]);
            to = later;
            at += len as u64;
            inner.last_read = Some(number);
        }
        Ok(())
    }
}
