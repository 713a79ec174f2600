//! One request: by what it is known, its place while it waits, what comes back.
//! Neighbours: `table` (all of a queue).
#![forbid(unsafe_code)]

use core::task::Waker;

use crate::{class::BatchId, dma::DmaBuffer, error::Error};

/// A request that was sent. It must be given to `poll` until that takes it, or to `forget`.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a request whose token is lost keeps its place for ever"]
pub struct Token {
    pub(in crate::virtio) queue: u16,
    pub(super) entry: u16,
}

/// For other drivers of the same classes, which number their requests too.
impl Token {
    pub(crate) fn new(entry: u16) -> Self {
        Self { queue: 0, entry }
    }

    pub(crate) fn entry(&self) -> u16 {
        self.entry
    }
}

/// For whom a request is sent.
#[derive(Clone, Copy, Debug)]
pub(in crate::virtio) enum For<'a> {
    /// Who has the token, and is to be woken when there is an answer.
    Holder(&'a Waker),
    /// A batch, which gets the answer with this tag.
    Batch(BatchId, u64),
}

/// A request's place. Nothing is moved while it waits there: buffers are moved in and out once.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) state: State,
    pub(super) buffer: Option<DmaBuffer>,
    /// Whom to wake when it is done, if it is for the token's holder.
    pub(super) waker: Option<Waker>,
    /// The batch that it is for, and its tag there.
    pub(super) batch: Option<BatchId>,
    pub(super) tag: u64,
    /// As in [`Answer`].
    pub(super) data_bytes: usize,
    pub(super) came: Came,
    /// If it went to the device with others as one.
    pub(super) gathered: Option<Gathered>,
}

/// One of several requests that are one to the device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gathered {
    /// The place of the next of them.
    pub(super) next: Option<u16>,
    /// As in [`Answer`].
    pub(super) from: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Free,
    /// The device has it.
    Sent,
    /// The device has it, and nobody waits for it any more; the buffer is freed when it comes back.
    Forgotten,
    /// There is an answer.
    Done,
    /// There will be none, as the device has failed.
    Failed,
    /// It was taken back.
    Cancelled,
}

impl Entry {
    pub(super) const FREE: Self = Self {
        state: State::Free,
        buffer: None,
        waker: None,
        batch: None,
        tag: 0,
        data_bytes: 0,
        came: Came::NOTHING,
        gathered: None,
    };

    /// What came back, which is taken now.
    #[inline(always)]
    pub(super) fn answer(&mut self, written: Result<Option<u32>, Error>, came: Came) -> Answer {
        self.state = State::Free;
        Answer {
            buffer: self.buffer.take(),
            data_bytes: self.data_bytes,
            written,
            unwritten: came.unwritten,
            status: came.status,
            gathered: self.gathered.map(|gathered| gathered.from),
        }
    }

    /// Whether the device has the request, and may write to its buffer.
    pub(super) fn is_with_device(&self) -> bool {
        matches!(self.state, State::Sent | State::Forgotten)
    }
}

/// What came from the device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Came {
    /// As in [`Answer`].
    pub(super) written: Option<u32>,
    /// As in [`Answer`].
    pub(super) unwritten: u32,
    pub(super) status: u64,
}

impl Came {
    pub(super) const NOTHING: Self = Self { written: None, unwritten: 0, status: 0 };
}

/// What came back.
#[derive(Debug)]
pub(in crate::virtio) struct Answer {
    /// The buffer that went with the request.
    pub(in crate::virtio) buffer: Option<DmaBuffer>,
    /// Bytes of it that the device was to fill.
    pub(in crate::virtio) data_bytes: usize,
    /// Bytes that the device says it wrote, if it says so.
    pub(in crate::virtio) written: Result<Option<u32>, Error>,
    /// Bytes that it might have written, and says that it has not.
    pub(in crate::virtio) unwritten: u32,
    /// What is in the request's [own memory](super::STATUS_WORD).
    pub(in crate::virtio) status: u64,
    /// If it went to the device with others as one: what its [`Member`] has. All that the device says is of all of them.
    pub(in crate::virtio) gathered: Option<u64>,
}

/// Why a request was not sent now.
#[derive(Debug)]
pub(in crate::virtio) enum NoRoom {
    /// There is no room now.
    Full,
    /// The device has failed.
    Dead(Error),
}
