//! What a disk is like, as its configuration tells (VirtIO 1.3 §5.2.3, §5.2.4).
#![forbid(unsafe_code)]

use crate::{
    class::{BlockInfo, SECTOR_BYTES},
    error::{Error, Field},
    virtio::{
        Features,
        transport::{Transport, read_config},
    },
};

/// Feature bits (§5.2.3).
pub(super) mod feature {
    pub(super) const SIZE_MAX: u64 = 1 << 1;
    pub(super) const SEG_MAX: u64 = 1 << 2;
    pub(super) const RO: u64 = 1 << 5;
    pub(super) const BLK_SIZE: u64 = 1 << 6;
    pub(super) const FLUSH: u64 = 1 << 9;
    pub(super) const TOPOLOGY: u64 = 1 << 10;
    pub(super) const MQ: u64 = 1 << 12;
    pub(super) const DISCARD: u64 = 1 << 13;
    pub(super) const WRITE_ZEROES: u64 = 1 << 14;
    pub(super) const ALL: u64 =
        SIZE_MAX | SEG_MAX | RO | BLK_SIZE | FLUSH | TOPOLOGY | MQ | DISCARD | WRITE_ZEROES;
}

/// Those of `offered` that are used. Not the event index in a split ring: with it the device can tell there only when it wants to be told
/// next, never that it looks by itself (§2.7.10), as QEMU's does while requests come. In a packed ring it can do so (§2.8.10).
pub(super) fn choose(offered: Features) -> Features {
    let all = Features::TRANSPORT | Features::from_bits_retain(feature::ALL);
    let unused =
        if offered.contains(Features::RING_PACKED) { Features::empty() } else { Features::EVENT_IDX };
    (offered & all) - unused
}

/// Fields of the configuration by offset (§5.2.4).
mod config {
    pub(super) const CAPACITY: usize = 0;
    pub(super) const SIZE_MAX: usize = 8;
    pub(super) const SEG_MAX: usize = 12;
    pub(super) const BLK_SIZE: usize = 20;
    pub(super) const PHYSICAL_BLOCK_EXP: usize = 24;
    pub(super) const OPT_IO_SIZE: usize = 28;
    pub(super) const NUM_QUEUES: usize = 34;
    pub(super) const MAX_DISCARD_SECTORS: usize = 36;
    pub(super) const MAX_WRITE_ZEROES_SECTORS: usize = 48;
}

/// Bytes of a request where the device sets no limit.
const MAX_BYTES: u32 = 1 << 30;

/// Queues that the device has (§5.2.5).
pub(super) fn queues_offered(transport: &dyn Transport, features: u64) -> Result<u16, Error> {
    if features & feature::MQ == 0 {
        return Ok(1);
    }
    let count = read_config(transport, |transport| Ok(transport.config_u16(config::NUM_QUEUES)))?;
    Ok(count.unwrap_or(1))
}

/// Segments of data that a request may have: one, if the device does not say.
pub(super) fn segments_offered(transport: &dyn Transport, features: u64) -> Result<u32, Error> {
    if features & feature::SEG_MAX == 0 {
        return Ok(1);
    }
    let most = read_config(transport, |transport| Ok(transport.config_u32(config::SEG_MAX)))?;
    Ok(most.unwrap_or(1))
}

/// Reads the configuration; a field that cannot be is refused or taken as its default.
pub(super) fn read_info(transport: &dyn Transport, features: u64) -> Result<BlockInfo, Error> {
    let has = |feature| features & feature != 0;
    let read = |offset| transport.config_u32(offset);
    let field =
        |feature, offset, default: u32| if has(feature) { read(offset).unwrap_or(default) } else { default };
    let capacity = read(config::CAPACITY).zip(read(config::CAPACITY + 4));
    let (low, high) = capacity.ok_or(Error::NoCapability { what: "block device configuration" })?;
    let block_bytes = field(feature::BLK_SIZE, config::BLK_SIZE, SECTOR_BYTES as u32);
    if !block_bytes.is_power_of_two() || block_bytes < SECTOR_BYTES as u32 {
        let field = &Field { name: "blk_size", expected: "a power of two, 512 at least" };
        return Err(Error::BadConfig { field, found: block_bytes.into() });
    }
    let max_bytes = field(feature::SIZE_MAX, config::SIZE_MAX, MAX_BYTES);
    if max_bytes < SECTOR_BYTES as u32 {
        let field = &Field { name: "size_max", expected: "a sector at least" };
        return Err(Error::BadConfig { field, found: max_bytes.into() });
    }
    let topology = field(feature::TOPOLOGY, config::PHYSICAL_BLOCK_EXP, 0);
    let physical =
        block_bytes.checked_shl(topology & 0xff).filter(|bytes| bytes >> (topology & 0xff) == block_bytes);
    let optimal = field(feature::TOPOLOGY, config::OPT_IO_SIZE, 0).checked_mul(block_bytes);
    Ok(BlockInfo {
        sectors: u64::from(low) | u64::from(high) << 32,
        block_bytes,
        physical_block_bytes: physical.unwrap_or(block_bytes),
        optimal_bytes: optimal.filter(|&bytes| bytes > 0).unwrap_or(block_bytes),
        max_bytes: max_bytes.min(MAX_BYTES),
        read_only: has(feature::RO),
        needs_flush: has(feature::FLUSH),
        max_discard_sectors: field(feature::DISCARD, config::MAX_DISCARD_SECTORS, 0),
        max_write_zeroes_sectors: field(feature::WRITE_ZEROES, config::MAX_WRITE_ZEROES_SECTORS, 0),
    })
}
