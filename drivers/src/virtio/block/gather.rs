//! Neighbouring reads, or writes, of a batch go to the device as one (VirtIO 1.3 §5.2.6): it has one to take, one to carry out and one to
//! answer. If that fails, each is asked for again, alone, so that each has an outcome of its own: a device may put neighbours together
//! again that it has at the same time, as QEMU does.
//! Neighbours: `queue` (when they are sent and answered), `submit` (requests that go alone).
#![forbid(unsafe_code)]

use alloc::collections::VecDeque;

use super::{
    queue::{Batch, Queue, outcome},
    request::Head,
    submit::frame,
};
use crate::{
    class::{BlockRequest, Outcome, SECTOR_BYTES, STEP},
    virtio::{
        Features,
        requests::{Answer, Member, NoRoom},
    },
};

/// Requests that are gathered at most. Were they more, the device would have nothing to do while their answers are looked at.
const MOST: usize = STEP;
/// Bytes of them at most: larger ones have little to gain, and much to wait for.
const MOST_BYTES: usize = 256 << 10;
/// Segments of a request beside its data: header and status.
pub(super) const FRAME: usize = 2;

/// How many may be gathered in a queue of `size` descriptors, if the device takes requests of so many segments of data. Without
/// tables of descriptors nothing is gained. No chain is longer than its queue (§2.7.5.3.1).
pub(super) fn most(features: Features, size: u16, segments: u32) -> usize {
    let has_tables = features.contains(Features::INDIRECT_DESC);
    let most = if has_tables { MOST.min(segments as usize) } else { 1 };
    most.min(usize::from(size).saturating_sub(FRAME)).max(1)
}

impl Queue {
    /// How many requests in front of `unsent` can go as one.
    pub(super) fn neighbours(&self, unsent: &VecDeque<(u64, BlockRequest)>) -> usize {
        if unsent.len() < 2 {
            return 1;
        }
        let most = self.gathers.min(self.requests.places());
        let (mut next, mut bytes) = (None, 0);
        let goes_on = |(_, request): &&(u64, BlockRequest)| {
            let Some((head, buffer)) = Head::of_transfer(request) else { return false };
            let is_next = next.is_none_or(|next| next == (head.kind, head.sector));
            let sectors = (buffer.len() / SECTOR_BYTES) as u64;
            next = Some((head.kind, head.sector.saturating_add(sectors)));
            bytes += buffer.len();
            is_next && bytes <= MOST_BYTES && self.check_transfer(&head, buffer).is_ok()
        };
        unsent.iter().take(most).take_while(goes_on).count()
    }

    /// Sends so many of what `batch` has unsent as one.
    ///
    /// # Errors
    /// None was sent.
    pub(super) fn gather(&mut self, batch: &mut Batch, count: usize) -> Result<(), NoRoom> {
        let Batch { id, unsent, .. } = batch;
        let mut transfers = unsent.iter().filter_map(|(_, request)| Head::of_transfer(request)).peekable();
        let area = self.requests.room()?;
        if let Some((head, _)) = transfers.peek() {
            head.write(area);
        }
        let [header, status] = frame(area);
        let mut segments = [status; MOST + FRAME];
        segments[0] = header;
        for (segment, (head, buffer)) in segments[1..=count].iter_mut().zip(transfers) {
            *segment = buffer.whole(head.direction());
        }
        let members = core::iter::from_fn(|| member(unsent.pop_front()?));
        self.requests.send_gathered(&segments[..count + FRAME], *id, members, count)
    }
}

fn member((tag, request): (u64, BlockRequest)) -> Option<Member> {
    let (head, buffer) = Head::split(request);
    let buffer = buffer?;
    Some(Member { tag, data_bytes: head.data_bytes(&buffer), buffer, from: head.sector })
}

/// What the device's answer comes to; or the request again, if it was gathered with others and it may have been one of these that
/// failed.
#[inline(always)]
pub(super) fn settle(answer: Answer) -> Result<Outcome, BlockRequest> {
    let (gathered, data_bytes, is_answered) = (answer.gathered, answer.data_bytes, answer.written.is_ok());
    match (outcome(answer), gathered) {
        (Outcome { result: Err(_), buffer: Some(buffer) }, Some(sector)) if is_answered => {
            Err(match data_bytes {
                0 => BlockRequest::Write { sector, buffer },
                _ => BlockRequest::Read { sector, buffer },
            })
        }
        (outcome, _) => Ok(outcome),
    }
}
