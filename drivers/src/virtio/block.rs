//! Virtio block device: a disk of 512-byte sectors (VirtIO 1.3 §5.2).
//! One queue, `requestq1`. Neighbours: `requests` (what is in flight), `class::BlockDevice` (what callers see).
#![forbid(unsafe_code)]

use alloc::boxed::Box;
use core::{sync::atomic::Ordering::Relaxed, task::Waker};

use super::{
    Features, Init, Token,
    queue::Counts,
    requests::{Answer, NotSent, Requests},
    transport::Transport,
};
use crate::{
    class::{self, BlockDevice, BlockInfo, BlockRequest, Outcome, SECTOR_BYTES, Submitted},
    dma::{Direction, DmaBuffer, Segment},
    error::Error,
    hal::{Hal, Lock},
};

const REQUESTQ: u16 = 0;

/// Feature bits (§5.2.3).
mod feature {
    pub(super) const SIZE_MAX: u64 = 1 << 1;
    pub(super) const RO: u64 = 1 << 5;
    pub(super) const BLK_SIZE: u64 = 1 << 6;
    pub(super) const FLUSH: u64 = 1 << 9;
    pub(super) const DISCARD: u64 = 1 << 13;
    pub(super) const WRITE_ZEROES: u64 = 1 << 14;
    pub(super) const ALL: u64 = SIZE_MAX | RO | BLK_SIZE | FLUSH | DISCARD | WRITE_ZEROES;
}

/// Fields of the configuration by offset (§5.2.4).
mod config {
    pub(super) const CAPACITY: usize = 0;
    pub(super) const SIZE_MAX: usize = 8;
    pub(super) const BLK_SIZE: usize = 20;
    pub(super) const MAX_DISCARD_SECTORS: usize = 36;
    pub(super) const MAX_WRITE_ZEROES_SECTORS: usize = 48;
}

/// Request types (§5.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Type {
    In = 0,
    Out = 1,
    Flush = 4,
    GetId = 8,
    Discard = 11,
    WriteZeroes = 13,
}

/// Status bytes (§5.2.6).
mod status {
    pub(super) const OK: u8 = 0;
    pub(super) const IOERR: u8 = 1;
    pub(super) const UNSUPP: u8 = 2;
    /// No device writes this one: it says that none was written.
    pub(super) const NONE: u8 = 0xff;
}

/// A request's own memory: header (type, reserved, sector), range for discard and write zeroes (sector, count,
/// flags), status.
mod area {
    use core::ops::Range;
    pub(super) const HEADER: Range<usize> = 0..16;
    pub(super) const RANGE: Range<usize> = 16..32;
    pub(super) const STATUS: Range<usize> = 32..33;
}
/// Flag of a range (§5.2.6).
#[doc(alias = "VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP")]
const UNMAP: u32 = 1;

/// Bytes of a device's name (§5.2.6).
const ID_BYTES: usize = 20;
/// Bytes of a request where the device sets no limit.
const MAX_BYTES: u32 = 1 << 30;

/// A disk behind a virtio transport. One task or handler at a time: [`Shared`] puts a lock around.
pub struct Block {
    requests: Requests,
    features: u64,
    info: BlockInfo,
}

impl Block {
    /// Brings the device up (§3.1.1, §5.2.5) and reads what it is like.
    ///
    /// # Errors
    /// The device does not come up, or describes itself as what cannot be.
    pub fn probe(transport: Box<dyn Transport>, hal: &dyn Hal) -> Result<Self, Error> {
        let init = Init::begin(transport, Features::from_bits_retain(feature::ALL))?;
        let features = init.features().bits();
        let info =
            super::transport::read_config(init.transport(), |transport| read_info(transport, features))?;
        Ok(Self { requests: Requests::new(init, hal, REQUESTQ)?, features, info })
    }

    /// What was negotiated.
    pub fn features(&self) -> Features {
        Features::from_bits_retain(self.features)
    }

    /// What it is like.
    pub fn info(&self) -> BlockInfo {
        self.info
    }

    /// What the queue has done so far.
    pub fn counts(&self) -> Counts {
        self.requests.counts()
    }

    /// Why the device is not used any more, if it is not.
    pub fn fault(&self) -> Option<Error> {
        self.requests.fault()
    }

    /// To be called when the device has interrupted.
    pub fn interrupt(&mut self) {
        if self.requests.interrupt() {
            self.reread_info();
        }
    }

    /// A disk may change its size while it runs (§5.2.5).
    fn reread_info(&mut self) {
        match self.requests.read_config(|transport| read_info(transport, self.features)) {
            Ok(info) if info != self.info => {
                log::info!("virtio-blk: now {} sectors", info.sectors);
                self.info = info;
            }
            Ok(_) => {}
            Err(error) => log::warn!("virtio-blk: {error}: change of configuration ignored"),
        }
    }

    /// Sends a request; the names are those of [`class::Requests`].
    pub fn submit(&mut self, request: BlockRequest, waker: &Waker) -> Submitted<BlockRequest, Outcome> {
        if let Err(error) = self.check(&request) {
            return Submitted::Refused(Outcome { result: Err(error), buffer: into_buffer(request) });
        }
        let Some(token) = self.requests.reserve() else {
            self.requests.wait_for_room(waker);
            return Submitted::Full(request);
        };
        let head = Head::of(&request);
        self.write_head(&token, &head);
        let mut segments = [self.requests.area(&token, area::HEADER, Direction::ToDevice); 3];
        let mut count = 1;
        let mut push = |segment: Segment| {
            segments[count] = segment;
            count += 1;
        };
        match &request {
            BlockRequest::Read { buffer, .. } => push(buffer.segment(0..buffer.len(), Direction::FromDevice)),
            BlockRequest::Write { buffer, .. } => push(buffer.segment(0..buffer.len(), Direction::ToDevice)),
            BlockRequest::GetId { buffer } => push(buffer.segment(0..ID_BYTES, Direction::FromDevice)),
            BlockRequest::Discard { .. } | BlockRequest::WriteZeroes { .. } => {
                push(self.requests.area(&token, area::RANGE, Direction::ToDevice))
            }
            BlockRequest::Flush => {}
        }
        push(self.requests.area(&token, area::STATUS, Direction::FromDevice));
        let data_bytes = match &request {
            BlockRequest::Read { buffer, .. } => buffer.len(),
            BlockRequest::GetId { .. } => ID_BYTES,
            _ => 0,
        };
        match self.requests.send(token, &segments[..count], (into_buffer(request), data_bytes), waker) {
            Ok(token) => Submitted::Sent(token),
            Err(NotSent::Full(buffer)) => Submitted::Full(head.into_request(buffer)),
            Err(NotSent::Dead(error, buffer)) => Submitted::Refused(Outcome { result: Err(error), buffer }),
        }
    }

    /// Whether the device can be asked this.
    fn check(&self, request: &BlockRequest) -> Result<(), Error> {
        let info = &self.info;
        let (is_write, sector, sectors, limit) = match request {
            BlockRequest::Read { sector, buffer } => (false, *sector, sectors(buffer)?, info.max_bytes / 512),
            BlockRequest::Write { sector, buffer } => (true, *sector, sectors(buffer)?, info.max_bytes / 512),
            BlockRequest::Discard { sector, count } => (true, *sector, *count, info.max_discard_sectors),
            BlockRequest::WriteZeroes { sector, count, .. } => {
                (true, *sector, *count, info.max_write_zeroes_sectors)
            }
            BlockRequest::GetId { buffer } if buffer.len() < ID_BYTES => {
                return Err(Error::Request("the buffer for a name is shorter than 20 bytes"));
            }
            BlockRequest::Flush | BlockRequest::GetId { .. } => return Ok(()),
        };
        match () {
            () if is_write && info.read_only => Err(Error::Request("the device is read-only")),
            () if sectors == 0 => Err(Error::Request("it is about no sector")),
            () if sectors > limit => Err(Error::Request("it is longer than the device takes")),
            () if sector.checked_add(sectors.into()).is_none_or(|end| end > info.sectors) => {
                Err(Error::Request("it goes beyond the end of the device"))
            }
            () => Ok(()),
        }
    }

    fn write_head(&self, token: &Token, head: &Head) {
        let memory = self.requests.area_memory();
        let at = |offset| self.requests.area_offset(token, offset);
        memory.u32(at(0)).store(head.kind as u32, Relaxed);
        memory.u32(at(4)).store(0, Relaxed);
        let is_range = matches!(head.kind, Type::Discard | Type::WriteZeroes);
        memory.u64(at(8)).store(if is_range { 0 } else { head.sector }, Relaxed);
        memory.u64(at(area::RANGE.start)).store(head.sector, Relaxed);
        memory.u32(at(area::RANGE.start + 8)).store(head.count, Relaxed);
        memory.u32(at(area::RANGE.start + 12)).store(head.flags, Relaxed);
        memory.u8(at(area::STATUS.start)).store(status::NONE, Relaxed);
    }

    /// Takes the answer to a request, or gives the token back.
    ///
    /// # Errors
    /// There is no answer yet.
    pub fn poll(&mut self, token: Token, waker: &Waker) -> Result<Outcome, Token> {
        let status = self.requests.area_offset(&token, area::STATUS.start);
        let Answer { buffer, data_bytes, written } = self.requests.poll(token, waker)?;
        let status = self.requests.area_memory().u8(status).load(Relaxed);
        let result = written.and_then(|written| match status {
            // The status byte is the last of what the device writes.
            status::OK if written.is_some_and(|written| (written as usize) <= data_bytes) => {
                Err(Error::Failed("success, but wrote less than was asked for"))
            }
            status::OK => Ok(data_bytes),
            status::IOERR => Err(Error::Failed("an I/O error")),
            status::UNSUPP => Err(Error::Failed("that it does not support the request")),
            status::NONE => Err(Error::Failed("no status")),
            _ => Err(Error::Failed("an unknown status")),
        });
        Ok(Outcome { result, buffer })
    }

    /// Nobody wants the answer.
    pub fn forget(&mut self, token: Token) {
        self.requests.forget(token);
    }
}

/// A request without its buffer.
struct Head {
    kind: Type,
    sector: u64,
    count: u32,
    flags: u32,
}

impl Head {
    fn of(request: &BlockRequest) -> Self {
        let (kind, sector, count, flags) = match *request {
            BlockRequest::Read { sector, .. } => (Type::In, sector, 0, 0),
            BlockRequest::Write { sector, .. } => (Type::Out, sector, 0, 0),
            BlockRequest::Flush => (Type::Flush, 0, 0, 0),
            BlockRequest::GetId { .. } => (Type::GetId, 0, 0, 0),
            BlockRequest::Discard { sector, count } => (Type::Discard, sector, count, 0),
            BlockRequest::WriteZeroes { sector, count, may_unmap } => {
                (Type::WriteZeroes, sector, count, if may_unmap { UNMAP } else { 0 })
            }
        };
        Self { kind, sector, count, flags }
    }

    /// The request again, with the buffer that came back.
    fn into_request(self, buffer: Option<DmaBuffer>) -> BlockRequest {
        let Self { kind, sector, count, flags } = self;
        match (kind, buffer) {
            (Type::In, Some(buffer)) => BlockRequest::Read { sector, buffer },
            (Type::Out, Some(buffer)) => BlockRequest::Write { sector, buffer },
            (Type::GetId, Some(buffer)) => BlockRequest::GetId { buffer },
            (Type::Discard, _) => BlockRequest::Discard { sector, count },
            (Type::WriteZeroes, _) => {
                BlockRequest::WriteZeroes { sector, count, may_unmap: flags & UNMAP != 0 }
            }
            (Type::Flush, _) => BlockRequest::Flush,
            (Type::In | Type::Out | Type::GetId, None) => unreachable!("what was not sent keeps its buffer"),
        }
    }
}

fn into_buffer(request: BlockRequest) -> Option<DmaBuffer> {
    match request {
        BlockRequest::Read { buffer, .. }
        | BlockRequest::Write { buffer, .. }
        | BlockRequest::GetId { buffer } => Some(buffer),
        BlockRequest::Flush | BlockRequest::Discard { .. } | BlockRequest::WriteZeroes { .. } => None,
    }
}

fn sectors(buffer: &DmaBuffer) -> Result<u32, Error> {
    let is_whole = buffer.len().is_multiple_of(SECTOR_BYTES);
    let sectors = u32::try_from(buffer.len() / SECTOR_BYTES).ok().filter(|_| is_whole);
    sectors.ok_or(Error::Request("the buffer is not whole sectors"))
}

/// Reads the configuration; a field that cannot be is refused or taken as its default.
fn read_info(transport: &dyn Transport, features: u64) -> Result<BlockInfo, Error> {
    let has = |feature| features & feature != 0;
    let read = |offset| transport.config_u32(offset);
    let field =
        |feature, offset, default: u32| if has(feature) { read(offset).unwrap_or(default) } else { default };
    let capacity = read(config::CAPACITY).zip(read(config::CAPACITY + 4));
    let (low, high) = capacity.ok_or(Error::NoCapability { what: "block device configuration" })?;
    let block_bytes = field(feature::BLK_SIZE, config::BLK_SIZE, SECTOR_BYTES as u32);
    if !block_bytes.is_power_of_two() || block_bytes < SECTOR_BYTES as u32 {
        let expected = "a power of two, 512 at least";
        return Err(Error::BadConfig { what: "blk_size", found: block_bytes.into(), expected });
    }
    let max_bytes = field(feature::SIZE_MAX, config::SIZE_MAX, MAX_BYTES);
    if max_bytes < SECTOR_BYTES as u32 {
        let expected = "a sector at least";
        return Err(Error::BadConfig { what: "size_max", found: max_bytes.into(), expected });
    }
    Ok(BlockInfo {
        sectors: u64::from(low) | u64::from(high) << 32,
        block_bytes,
        max_bytes: max_bytes.min(MAX_BYTES),
        read_only: has(feature::RO),
        needs_flush: has(feature::FLUSH),
        max_discard_sectors: field(feature::DISCARD, config::MAX_DISCARD_SECTORS, 0),
        max_write_zeroes_sectors: field(feature::WRITE_ZEROES, config::MAX_WRITE_ZEROES_SECTORS, 0),
    })
}

/// A disk with a lock around, for tasks and the interrupt handler.
pub struct Shared<L>(pub L);

impl<L: Lock<Block>> class::Requests for Shared<L> {
    type Request = BlockRequest;
    type Outcome = Outcome;

    fn submit(&self, request: BlockRequest, waker: &Waker) -> Submitted<BlockRequest, Outcome> {
        self.0.with(|block| block.submit(request, waker))
    }

    fn poll(&self, token: Token, waker: &Waker) -> Result<Outcome, Token> {
        self.0.with(|block| block.poll(token, waker))
    }

    fn forget(&self, token: Token) {
        self.0.with(|block| block.forget(token));
    }
}

impl<L: Lock<Block>> BlockDevice for Shared<L> {
    fn info(&self) -> BlockInfo {
        self.0.with(|block| block.info)
    }
}
