//! Xen's block device: a disk that another domain serves (io/blkif.h).
//!
//! Data goes through pages that stay granted (`feature-persistent`): the backend never sees a caller's memory, and what
//! it does to a page after its answer harms nobody. One request is a page to [`MAX_PAGES`] pages.
//! Files: `wire` (requests as bytes), `frontend` (the way up and down), this one (requests).
#![forbid(unsafe_code)]

mod frontend;
#[cfg(test)]
mod tests;
mod wire;

pub use frontend::BlockFront;

use super::{
    Access, Channel, DomainId, GrantRef, Hypervisor, Shared as SharedPages,
    page::PAGE_BYTES,
    ring::{self, FrontRing},
};
use crate::{
    class::{BlockDevice, BlockInfo, BlockRequest, Exclusive, Outcome, SECTOR_BYTES, Shared, Submitted},
    dma::DmaBuffer,
    error::Error,
    hal::Lock,
    virtio::Token,
};
use alloc::{boxed::Box, string::String, sync::Arc, vec::Vec};
use core::task::Waker;
use wire::{MAX_SEGMENTS, NOT_SUPPORTED, OKAY, Operation, RESPONSE_BYTES, Request, Response, SLOT_BYTES};

/// Pages of a request at most.
pub const MAX_PAGES: usize = MAX_SEGMENTS;
/// Pages for data at most, all requests together.
const POOL_PAGES: usize = 128;
/// Bytes of a device's name.
const NAME_BYTES: usize = 20;

const GONE: Error = Error::Failed("that it is not there any more");

/// What the ring has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests sent.
    pub requests: u64,
    /// Events sent to the backend.
    pub notifications: u64,
    /// Events that came.
    pub interrupts: u64,
}

/// A disk. One task or handler at a time: [`Shared`] puts a lock around.
pub struct Block {
    /// `None` while there is no backend.
    link: Option<Link>,
    /// The backend takes requests; until it does, they wait here.
    is_up: bool,
    /// There will be no backend any more.
    is_over: bool,
    info: BlockInfo,
    name: String,
    entries: Box<[Entry]>,
    free: Vec<u16>,
    /// Who waits for room.
    waiting: Vec<Waker>,
    counts: Counts,
    fault: Option<&'static str>,
    /// Who gives the device up when it has failed.
    on_fault: Option<Waker>,
}

/// What is shared with the backend.
struct Link {
    hypervisor: Arc<dyn Hypervisor>,
    domain: DomainId,
    handle: u16,
    page: SharedPages,
    ring: FrontRing,
    channel: Channel,
    /// Pages for data that no request has, and how many there are in all.
    pool: Vec<SharedPages>,
    pages: usize,
}

/// A request's place; its index is the request's number.
enum Entry {
    Free,
    Sent(Sent),
    /// Nobody waits for it; the backend has the pages until it answers.
    Forgotten(Vec<SharedPages>),
    Done {
        result: Result<(), Error>,
        sent: Sent,
    },
}

struct Sent {
    operation: Operation,
    sector: u64,
    buffer: Option<DmaBuffer>,
    pages: Vec<SharedPages>,
    waker: Option<Waker>,
}

impl Block {
    /// A disk without a backend.
    fn new() -> Self {
        let count = ring::slots(SLOT_BYTES) as u16;
        Self {
            link: None,
            is_up: false,
            is_over: false,
            info: frontend::NOTHING,
            name: String::new(),
            entries: (0..count).map(|_| Entry::Free).collect(),
            free: (0..count).collect(),
            waiting: Vec::new(),
            counts: Counts::default(),
            fault: None,
            on_fault: None,
        }
    }

    /// What the ring has done so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What the toolstack calls it, such as `xvda`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// To be called when the backend has rung.
    fn interrupt(&mut self) {
        self.counts.interrupts += 1;
        if let Err(fault) = self.collect() {
            log::error!("xen-blk {}: {fault}: not used any more", self.name);
            self.fault = Some(fault);
            self.end();
            self.on_fault.take().into_iter().for_each(Waker::wake);
        }
    }

    fn collect(&mut self) -> Result<(), &'static str> {
        const INDEX: &str = "the backend's index is ahead of what it was asked";
        loop {
            let Some(link) = &mut self.link else { return Ok(()) };
            let mut bytes = [0; RESPONSE_BYTES];
            while link.ring.pop(&link.page, &mut bytes).map_err(|_| INDEX)? {
                let Response { id, status } = Response::parse(&bytes);
                let place = usize::try_from(id).ok().and_then(|id| self.entries.get_mut(id));
                let place = place.ok_or("the backend answers a request with a number that none has")?;
                match core::mem::replace(place, Entry::Free) {
                    Entry::Sent(mut sent) => {
                        sent.waker.take().into_iter().for_each(Waker::wake);
                        *place = Entry::Done { result: outcome(status), sent };
                    }
                    Entry::Forgotten(pages) => {
                        link.pool.extend(pages);
                        self.free.push(id as u16);
                    }
                    other @ (Entry::Free | Entry::Done { .. }) => {
                        *place = other;
                        return Err("the backend answers what it was not asked");
                    }
                }
            }
            if !link.ring.wait_for_next(&link.page) {
                self.waiting.drain(..).for_each(Waker::wake);
                return Ok(());
            }
        }
    }

    /// Lets go of the backend. What was asked is asked of the next one: a domain that was restored has one.
    fn close(&mut self) {
        self.is_up = false;
        drop(self.link.take());
        for (index, entry) in self.entries.iter_mut().enumerate() {
            match core::mem::replace(entry, Entry::Free) {
                Entry::Sent(mut sent) => {
                    sent.pages.clear();
                    *entry = Entry::Sent(sent);
                }
                Entry::Forgotten(_) => self.free.push(index as u16),
                // What was read is lost with the pages.
                Entry::Done { result: Ok(()), mut sent } if sent.operation == Operation::Read => {
                    sent.pages.clear();
                    *entry = Entry::Sent(sent);
                }
                Entry::Done { result, mut sent } => {
                    sent.pages.clear();
                    *entry = Entry::Done { result, sent };
                }
                Entry::Free => {}
            }
        }
    }

    /// Lets go of the backend for good: what was asked fails.
    fn end(&mut self) {
        self.close();
        self.is_over = true;
        for entry in &mut self.entries {
            if let Entry::Sent(sent) = entry {
                sent.waker.take().into_iter().for_each(Waker::wake);
            }
            *entry = match core::mem::replace(entry, Entry::Free) {
                Entry::Sent(sent) => Entry::Done { result: Err(GONE), sent },
                other => other,
            };
        }
        self.waiting.drain(..).for_each(Waker::wake);
    }

    /// The backend takes requests from now on.
    fn begin(&mut self) {
        self.is_up = true;
        for index in 0..self.entries.len() {
            let Some(Entry::Sent(mut sent)) =
                self.entries.get_mut(index).map(|entry| core::mem::replace(entry, Entry::Free))
            else {
                continue;
            };
            self.entries[index] = match self.transmit(index as u16, &mut sent) {
                Ok(()) => Entry::Sent(sent),
                Err(error) => {
                    sent.waker.take().into_iter().for_each(Waker::wake);
                    Entry::Done { result: Err(error), sent }
                }
            };
        }
        self.waiting.drain(..).for_each(Waker::wake);
    }

    fn wait_for_room(&mut self, sent: Sent, waker: &Waker) -> Submitted<BlockRequest, Outcome> {
        if !self.waiting.iter().any(|waiting| waiting.will_wake(waker)) {
            self.waiting.push(waker.clone());
        }
        let Sent { operation, sector, buffer, .. } = sent;
        Submitted::Full(match (operation, buffer) {
            (Operation::Read, Some(buffer)) => BlockRequest::Read { sector, buffer },
            (Operation::Write, Some(buffer)) => BlockRequest::Write { sector, buffer },
            (_, _) => BlockRequest::Flush,
        })
    }

    /// Puts a request into the ring.
    fn transmit(&mut self, id: u16, sent: &mut Sent) -> Result<(), Error> {
        let link = self.link.as_mut().ok_or(GONE)?;
        let len_bytes = sent.buffer.as_ref().map_or(0, DmaBuffer::len);
        let pages = link.take_pages(len_bytes.div_ceil(PAGE_BYTES));
        sent.pages = pages.ok_or(Error::NoDmaMemory { len_bytes })?;
        if let (Operation::Write, Some(buffer)) = (sent.operation, &sent.buffer) {
            for (page, bytes) in sent.pages.iter().zip(buffer.bytes().chunks(PAGE_BYTES)) {
                page.write(0, bytes);
            }
        }
        let mut grants = [GrantRef(0); MAX_SEGMENTS];
        for (grant, page) in grants.iter_mut().zip(&sent.pages) {
            *grant = page.grant();
        }
        let Sent { operation, sector, .. } = *sent;
        let pages = &grants[..sent.pages.len()];
        let request = Request { operation, handle: link.handle, id: id.into(), sector, pages, len_bytes };
        // There are as many entries as slots.
        link.ring.push(&link.page, &request.emit()).map_err(|_| Error::Failed("a full ring"))?;
        self.counts.requests += 1;
        if link.ring.publish(&link.page) {
            link.channel.notify();
            self.counts.notifications += 1;
        }
        Ok(())
    }

    /// Whether the device can be asked this.
    fn check(&self, operation: Operation, sector: u64, len_bytes: usize) -> Result<(), Error> {
        let (info, sectors) = (&self.info, (len_bytes / SECTOR_BYTES) as u64);
        let refuse = |why| Err(Error::Request(why));
        match operation {
            _ if self.is_over => Err(GONE),
            Operation::Flush => Ok(()),
            Operation::Write if info.read_only => refuse("the device is read-only"),
            _ if !len_bytes.is_multiple_of(SECTOR_BYTES) => refuse("the buffer is not whole sectors"),
            _ if sectors == 0 => refuse("it is about no sector"),
            _ if len_bytes > info.max_bytes as usize => refuse("it is longer than the device takes"),
            _ if sector.checked_add(sectors).is_none_or(|end| end > info.sectors) => {
                refuse("it goes beyond the end of the device")
            }
            _ => Ok(()),
        }
    }

    fn tell_name(&self, mut buffer: DmaBuffer) -> Submitted<BlockRequest, Outcome> {
        if buffer.len() < NAME_BYTES {
            let error = Error::Request("the buffer for a name is shorter than 20 bytes");
            return answered(Err(error), Some(buffer));
        }
        buffer.set_len(NAME_BYTES);
        buffer.bytes_mut().fill(0);
        buffer.bytes_mut().iter_mut().zip(self.name.bytes()).for_each(|(place, byte)| *place = byte);
        answered(Ok(NAME_BYTES), Some(buffer))
    }

    fn give_back(&mut self, index: u16, pages: Vec<SharedPages>) {
        self.free.push(index);
        if let Some(link) = &mut self.link {
            link.pool.extend(pages);
        }
        self.waiting.drain(..).for_each(Waker::wake);
    }
}

impl Link {
    /// Pages for a request, if there are enough or can be.
    fn take_pages(&mut self, count: usize) -> Option<Vec<SharedPages>> {
        while self.pool.len() < count && self.pages < POOL_PAGES {
            self.pool.push(SharedPages::new(&self.hypervisor, self.domain, Access::ReadWrite).ok()?);
            self.pages += 1;
        }
        let rest = self.pool.len().checked_sub(count)?;
        Some(self.pool.split_off(rest))
    }
}

fn outcome(status: i16) -> Result<(), Error> {
    match status {
        OKAY => Ok(()),
        NOT_SUPPORTED => Err(Error::Failed("that it does not support the request")),
        _ => Err(Error::Failed("an I/O error")),
    }
}

/// An answer that needs no backend.
fn answered(result: Result<usize, Error>, buffer: Option<DmaBuffer>) -> Submitted<BlockRequest, Outcome> {
    Submitted::Refused(Outcome { result, buffer })
}

impl Exclusive for Block {
    type Request = BlockRequest;
    type Outcome = Outcome;

    fn submit(&mut self, request: BlockRequest, waker: &Waker) -> Submitted<BlockRequest, Outcome> {
        let (operation, sector, buffer) = match request {
            BlockRequest::Read { sector, buffer } => (Operation::Read, sector, Some(buffer)),
            BlockRequest::Write { sector, buffer } => (Operation::Write, sector, Some(buffer)),
            BlockRequest::Flush if self.info.needs_flush => (Operation::Flush, 0, None),
            BlockRequest::Flush => return answered(Ok(0), None),
            BlockRequest::GetId { buffer } => return self.tell_name(buffer),
            BlockRequest::Discard { .. } | BlockRequest::WriteZeroes { .. } => {
                return answered(Err(Error::Request("the device cannot do that")), None);
            }
        };
        let len_bytes = buffer.as_ref().map_or(0, DmaBuffer::len);
        if let Err(error) = self.check(operation, sector, len_bytes) {
            return answered(Err(error), buffer);
        }
        let is_idle = self.free.len() == self.entries.len();
        let mut sent = Sent { operation, sector, buffer, pages: Vec::new(), waker: Some(waker.clone()) };
        let Some(id) = self.free.last().copied().filter(|_| self.is_up) else {
            return self.wait_for_room(sent, waker);
        };
        match self.transmit(id, &mut sent) {
            Ok(()) => {
                self.free.pop();
                self.entries[usize::from(id)] = Entry::Sent(sent);
                Submitted::Sent(Token::new(id))
            }
            // Nothing is on its way that would bring room.
            Err(error) if is_idle => answered(Err(error), sent.buffer),
            Err(_) => self.wait_for_room(sent, waker),
        }
    }

    fn poll(&mut self, token: Token, waker: &Waker) -> Result<Outcome, Token> {
        let index = token.entry();
        let entry = &mut self.entries[usize::from(index)];
        let (result, Sent { operation, mut buffer, pages, .. }) = match core::mem::replace(entry, Entry::Free)
        {
            Entry::Done { result, sent } => (result, sent),
            Entry::Sent(mut sent) => {
                sent.waker = Some(waker.clone());
                *entry = Entry::Sent(sent);
                return Err(token);
            }
            Entry::Free | Entry::Forgotten(_) => {
                return Ok(Outcome { result: Err(GONE), buffer: None });
            }
        };
        let len_bytes = buffer.as_ref().map_or(0, DmaBuffer::len);
        if let (Operation::Read, Ok(()), Some(buffer)) = (operation, result, &mut buffer) {
            for (page, bytes) in pages.iter().zip(buffer.bytes_mut().chunks_mut(PAGE_BYTES)) {
                page.read(0, bytes);
            }
        }
        self.give_back(index, pages);
        let written = if operation == Operation::Read { len_bytes } else { 0 };
        Ok(Outcome { result: result.map(|()| written), buffer })
    }

    fn forget(&mut self, token: Token) {
        let index = token.entry();
        let entry = &mut self.entries[usize::from(index)];
        match core::mem::replace(entry, Entry::Free) {
            Entry::Sent(sent) => *entry = Entry::Forgotten(sent.pages),
            Entry::Done { sent, .. } => self.give_back(index, sent.pages),
            Entry::Free | Entry::Forgotten(_) => {}
        }
    }
}

impl<L: Lock<Value = Block>> BlockDevice for Shared<L> {
    fn info(&self) -> BlockInfo {
        self.0.with(|block| block.info)
    }
}
