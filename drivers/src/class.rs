//! What the kernel sees of a device, whatever drives it.
#![forbid(unsafe_code)]

mod in_flight;
mod kept;
pub mod net;
mod shared;

pub use in_flight::{Batch, InFlight};
pub(crate) use in_flight::{STEP, TOGETHER};
pub use kept::{BatchId, Kept};
pub use shared::{Exclusive, Shared};

use core::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use crate::{dma::DmaBuffer, error::Error, virtio::Token};

/// Something that shows text, and may take some.
pub trait Console: Send {
    /// A short name for log lines, such as `serial`.
    fn name(&self) -> &'static str;

    /// Shows `bytes`: UTF-8 text whose lines end in `\n`; the driver adds the carriage return where its device
    /// needs one. Bytes that the device does not take in a bounded time are dropped.
    fn write(&mut self, bytes: &[u8]);

    /// Waits, for a bounded time, until everything written has left the device.
    fn flush(&mut self) {}

    /// Takes one byte that the device has received, if there is one. Never waits.
    fn read(&mut self) -> Option<u8> {
        None
    }
}

/// Something that only yields text: a keyboard.
pub trait Input: Send {
    /// Takes one byte of what was typed, if there is one. Never waits.
    fn read(&mut self) -> Option<u8>;
}

/// A device to which requests are sent and which answers each, in any order. The device has the request's buffer in
/// the meantime. [`Pending`] makes a future of it.
pub trait Requests: Send + Sync {
    /// What is asked.
    type Request: Send;
    /// The answer, with the request's buffer.
    type Outcome: Send;

    /// Sends `request`. From then on `waker` is called when there is an answer; if there is no room for the request,
    /// when there may be.
    fn submit(&self, request: Self::Request, waker: &Waker) -> Submitted<Self::Request, Self::Outcome>;

    /// Takes the answer.
    ///
    /// # Errors
    /// There is none yet: the token comes back, and `waker` is called when there is.
    fn poll(&self, token: Token, waker: &Waker) -> Result<Self::Outcome, Token>;

    /// Nobody wants the answer. The device may still carry the request out.
    fn forget(&self, token: Token);

    /// Sends what is unsent in `batch`, as far as there is room, and takes the answers to what was sent. If there is none,
    /// `waker` is called when there is one, or room.
    fn advance(&self, batch: &mut Batch<Self::Request, Self::Outcome>, waker: &Waker) {
        batch.advance_one_by_one(self, waker);
    }

    /// Nobody wants the answers to what was sent of `batch`.
    fn abandon(&self, batch: &mut Batch<Self::Request, Self::Outcome>) {
        batch.sent.drain(..).for_each(|(_, token)| self.forget(token));
    }
}

/// What became of a request that was to be sent.
#[derive(Debug)]
pub enum Submitted<R, O> {
    /// The device has it.
    Sent(Token),
    /// There is no room now.
    Full(R),
    /// It was not sent; the answer says why.
    Refused(O),
}

/// A request on its way: a future of its outcome. Dropping it leaves the request with the device, which frees the
/// buffer when it is done.
#[must_use = "futures do nothing unless awaited"]
pub struct Pending<'a, D: Requests + ?Sized> {
    device: &'a D,
    state: State<D::Request>,
}

enum State<R> {
    Unsent(R),
    Sent(Token),
    Over,
}

impl<'a, D: Requests + ?Sized> Pending<'a, D> {
    /// Sends `request` to `device` when it is first polled.
    pub fn new(device: &'a D, request: D::Request) -> Self {
        Self { device, state: State::Unsent(request) }
    }
}

// Nothing in it is pinned.
impl<D: Requests + ?Sized> Unpin for Pending<'_, D> {}

impl<D: Requests + ?Sized> Future for Pending<'_, D> {
    type Output = D::Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<D::Outcome> {
        let device = self.device;
        match core::mem::replace(&mut self.state, State::Over) {
            State::Unsent(request) => match device.submit(request, cx.waker()) {
                Submitted::Sent(token) => self.state = State::Sent(token),
                Submitted::Full(request) => self.state = State::Unsent(request),
                Submitted::Refused(outcome) => return Poll::Ready(outcome),
            },
            State::Sent(token) => match device.poll(token, cx.waker()) {
                Ok(outcome) => return Poll::Ready(outcome),
                Err(token) => self.state = State::Sent(token),
            },
            State::Over => panic!("polled after it was ready"),
        }
        Poll::Pending
    }
}

impl<D: Requests + ?Sized> Drop for Pending<'_, D> {
    fn drop(&mut self) {
        if let State::Sent(token) = core::mem::replace(&mut self.state, State::Over) {
            self.device.forget(token);
        }
    }
}

/// Bytes of a sector: the unit of addresses on every block device, whatever its blocks are.
pub const SECTOR_BYTES: usize = 512;

/// What a block device is asked.
#[derive(Debug)]
pub enum BlockRequest {
    /// Fill the buffer, whole sectors, from `sector` on.
    Read {
        /// First sector.
        sector: u64,
        /// Where to.
        buffer: DmaBuffer,
    },
    /// Write the buffer, whole sectors, from `sector` on.
    Write {
        /// First sector.
        sector: u64,
        /// What.
        buffer: DmaBuffer,
    },
    /// Make sure that what was written survives a loss of power.
    Flush,
    /// The content of these sectors is not needed any more.
    Discard {
        /// First sector.
        sector: u64,
        /// Sectors.
        count: u32,
    },
    /// Fill these sectors with zeroes.
    WriteZeroes {
        /// First sector.
        sector: u64,
        /// Sectors.
        count: u32,
        /// The device may give up the space behind them.
        may_unmap: bool,
    },
    /// Write the device's name, 20 bytes padded with zeroes, to the buffer.
    GetId {
        /// Where to; its length becomes 20.
        buffer: DmaBuffer,
    },
}

/// The answer of a block or entropy device.
#[derive(Debug)]
pub struct Outcome {
    /// Bytes written to the buffer; an error leaves its content unspecified.
    pub result: Result<usize, Error>,
    /// The request's buffer. An error may have cost it.
    pub buffer: Option<DmaBuffer>,
}

/// What a block device is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockInfo {
    /// Sectors of [`SECTOR_BYTES`] that it has.
    pub sectors: u64,
    /// Bytes that it likes to read and write at a time, aligned; a multiple of a sector.
    pub block_bytes: u32,
    /// Bytes that the disk behind writes at a time: a smaller write is a read and a write there.
    pub physical_block_bytes: u32,
    /// Bytes of a request that the device likes best.
    pub optimal_bytes: u32,
    /// Bytes of the buffer of one request at most.
    pub max_bytes: u32,
    /// It cannot be written.
    pub read_only: bool,
    /// What was written may be lost with power until a flush.
    pub needs_flush: bool,
    /// Sectors of one discard at most; 0 if it cannot.
    pub max_discard_sectors: u32,
    /// Sectors of one write of zeroes at most; 0 if it cannot.
    pub max_write_zeroes_sectors: u32,
}

/// A disk.
pub trait BlockDevice: Requests<Request = BlockRequest, Outcome = Outcome> {
    /// What it is like now; a disk may grow.
    fn info(&self) -> BlockInfo;
}

impl dyn BlockDevice + '_ {
    /// Sends `request` and waits for the answer.
    pub fn request(&self, request: BlockRequest) -> Pending<'_, Self> {
        Pending::new(self, request)
    }

    /// For many requests of one task at the same time, with room for `count`.
    pub fn in_flight(&self, count: usize) -> InFlight<'_, Self> {
        InFlight::new(self, count)
    }

    /// Fills `buffer` from `sector` on.
    pub fn read(&self, sector: u64, buffer: DmaBuffer) -> Pending<'_, Self> {
        self.request(BlockRequest::Read { sector, buffer })
    }

    /// Writes `buffer` from `sector` on.
    pub fn write(&self, sector: u64, buffer: DmaBuffer) -> Pending<'_, Self> {
        self.request(BlockRequest::Write { sector, buffer })
    }

    /// Makes sure that what was written survives a loss of power.
    pub fn flush(&self) -> Pending<'_, Self> {
        self.request(BlockRequest::Flush)
    }
}

/// A source of random bytes: each request is a buffer, of which the outcome says how much was filled.
pub trait Entropy: Requests<Request = DmaBuffer, Outcome = Outcome> {}

impl dyn Entropy + '_ {
    /// Fills `buffer`, or a part of it.
    pub fn read(&self, buffer: DmaBuffer) -> Pending<'_, Self> {
        Pending::new(self, buffer)
    }
}

/// Bytes that come and go in order, such as a port of a console device. One reader and one writer at a time.
pub trait ByteStream: Send + Sync {
    /// Takes bytes that came, one at least; if there are none, calls `waker` when there may be.
    fn poll_read(&self, bytes: &mut [u8], waker: &Waker) -> Poll<Result<usize, Error>>;

    /// Sends the first of `bytes`, one at least; if there is no room, calls `waker` when there may be.
    fn poll_write(&self, bytes: &[u8], waker: &Waker) -> Poll<Result<usize, Error>>;
}

impl dyn ByteStream + '_ {
    /// Waits for bytes, and says how many came.
    ///
    /// # Errors
    /// The device has failed.
    pub async fn read(&self, bytes: &mut [u8]) -> Result<usize, Error> {
        core::future::poll_fn(|cx| self.poll_read(bytes, cx.waker())).await
    }

    /// Sends all of `bytes`.
    ///
    /// # Errors
    /// The device has failed.
    pub async fn write_all(&self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            let sent = core::future::poll_fn(|cx| self.poll_write(bytes, cx.waker())).await?;
            bytes = &bytes[sent..];
        }
        Ok(())
    }
}
