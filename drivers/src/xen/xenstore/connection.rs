//! The connection to xenstore: requests that wait for their answers, watches, and the ring between. No waiting here,
//! and no hypercall: bytes go in and out of the page, wakers are woken.
//! Neighbours: `wire` (messages), `stream` (the two rings), `mod` (the asynchronous face).
#![forbid(unsafe_code)]

use super::{
    Changed, Error,
    wire::{Assembler, Header, Kind, Message, PAYLOAD_MAX, Refusal, strings},
};
use crate::xen::{
    SharedPage,
    stream::{Layout, Reader, Writer},
};
use alloc::{
    collections::{BTreeMap, VecDeque},
    string::String,
    vec::Vec,
};
use core::{
    sync::atomic::Ordering,
    task::{Poll, Waker},
};

/// Requests, this side to the server (`struct xenstore_domain_interface`).
pub(in crate::xen) const REQUESTS: Layout =
    Layout { data: 0, len_bytes: 1024, consumer: 2048, producer: 2052 };
/// Answers and watch events.
pub(in crate::xen) const RESPONSES: Layout =
    Layout { data: 1024, len_bytes: 1024, consumer: 2056, producer: 2060 };
/// What the server can do besides.
#[cfg(test)]
pub(in crate::xen) const SERVER_FEATURES: usize = 2064;
/// 0, or 1 while the server makes the connection anew.
const CONNECTION: usize = 2068;

/// Requests without an answer at most, those whose sender has gone included.
pub const MAX_PENDING: usize = 128;
/// Watches at most.
pub const MAX_WATCHES: usize = 256;
/// Changed paths that are kept for one watch; beyond, the watch only knows that it missed some.
pub const MAX_CHANGES: usize = 64;

enum Pending {
    Waits {
        kind: Kind,
        waker: Option<Waker>,
    },
    Done(Result<Vec<u8>, Error>),
    /// Nobody wants the answer; an error is of no interest either.
    Abandoned,
}

struct Watched {
    path: String,
    changes: VecDeque<Changed>,
    waker: Option<Waker>,
}

/// All that is known of the connection.
pub(super) struct Connection {
    page: &'static SharedPage,
    requests: Writer,
    responses: Reader,
    /// Bytes that wait for room in the ring.
    unsent: VecDeque<u8>,
    assembler: Assembler,
    pending: BTreeMap<u32, Pending>,
    watches: BTreeMap<u32, Watched>,
    last_request: u32,
    last_token: u32,
    broken: Option<Error>,
    /// Messages that answered nothing and announced nothing we know of.
    strays: u64,
}

impl Connection {
    pub(super) fn new(page: &'static SharedPage) -> Self {
        Self {
            page,
            requests: Writer::new(REQUESTS, page),
            responses: Reader::new(RESPONSES, page),
            unsent: VecDeque::new(),
            assembler: Assembler::default(),
            pending: BTreeMap::new(),
            watches: BTreeMap::new(),
            last_request: 0,
            last_token: 0,
            broken: None,
            strays: 0,
        }
    }

    pub(super) fn strays(&self) -> u64 {
        self.strays
    }

    /// Queues a request; the parts follow each other in its payload. Returns its number.
    pub(super) fn submit(&mut self, kind: Kind, transaction: u32, parts: &[&[u8]]) -> Result<u32, Error> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        if self.pending.len() >= MAX_PENDING {
            return Err(Error::TooMany);
        }
        let len_bytes = parts.iter().map(|part| part.len()).sum::<usize>();
        if len_bytes > PAYLOAD_MAX {
            return Err(Error::TooLong(len_bytes));
        }
        let request = self.free_number();
        let header = Header { kind: kind as u32, request, transaction, len_bytes: len_bytes as u32 };
        self.unsent.extend(header.emit());
        parts.iter().for_each(|part| self.unsent.extend(*part));
        self.pending.insert(request, Pending::Waits { kind, waker: None });
        Ok(request)
    }

    /// A number that no request bears which waits; 0 is that of watch events.
    fn free_number(&mut self) -> u32 {
        loop {
            self.last_request = self.last_request.wrapping_add(1);
            if self.last_request != 0 && !self.pending.contains_key(&self.last_request) {
                return self.last_request;
            }
        }
    }

    /// The answer to a request, once; `waker` is woken when it is there.
    pub(super) fn poll_answer(&mut self, request: u32, waker: &Waker) -> Poll<Result<Vec<u8>, Error>> {
        match self.pending.get_mut(&request) {
            Some(Pending::Waits { waker: place, .. }) => {
                *place = Some(waker.clone());
                Poll::Pending
            }
            _ => match self.pending.remove(&request) {
                Some(Pending::Done(result)) => Poll::Ready(result),
                _ => Poll::Ready(Err(Error::Interrupted)),
            },
        }
    }

    /// Nobody waits for the answer any more.
    pub(super) fn abandon(&mut self, request: u32) {
        match self.pending.get_mut(&request) {
            Some(place @ Pending::Waits { .. }) => *place = Pending::Abandoned,
            Some(Pending::Done(_)) => _ = self.pending.remove(&request),
            Some(Pending::Abandoned) | None => {}
        }
    }

    /// A place for the changes below `path`, with a token of its own. The server is not told yet.
    pub(super) fn add_watch(&mut self, path: &str) -> Result<u32, Error> {
        if self.watches.len() >= MAX_WATCHES {
            return Err(Error::TooMany);
        }
        while self.watches.contains_key(&self.last_token) {
            self.last_token = self.last_token.wrapping_add(1);
        }
        let token = self.last_token;
        self.last_token = token.wrapping_add(1);
        self.watches.insert(token, Watched { path: path.into(), changes: VecDeque::new(), waker: None });
        Ok(token)
    }

    /// Forgets a watch; returns its path, for the server to be told.
    pub(super) fn remove_watch(&mut self, token: u32) -> Option<String> {
        self.watches.remove(&token).map(|watch| watch.path)
    }

    /// The next change of a watch, or the end of it.
    pub(super) fn poll_change(&mut self, token: u32, waker: &Waker) -> Poll<Result<Changed, Error>> {
        let Some(watch) = self.watches.get_mut(&token) else { return Poll::Ready(Err(Error::Interrupted)) };
        if let Some(change) = watch.changes.pop_front() {
            return Poll::Ready(Ok(change));
        }
        if let Some(error) = &self.broken {
            return Poll::Ready(Err(error.clone()));
        }
        watch.waker = Some(waker.clone());
        Poll::Pending
    }

    /// Moves bytes both ways as far as it goes. Whether the server is to be rung, and who is to be woken: outside the
    /// lock that guards this.
    pub(super) fn process(&mut self) -> (bool, Vec<Waker>) {
        let mut wake = Vec::new();
        // While the server makes the connection anew, the indices are its own.
        if self.broken.is_some() || self.page.word(CONNECTION).load(Ordering::Acquire) != 0 {
            return (false, wake);
        }
        match self.exchange(&mut wake) {
            Ok(moved) => (moved, wake),
            Err(error) => {
                self.fail_all(&error, &mut wake);
                self.broken = Some(error);
                (false, wake)
            }
        }
    }

    fn exchange(&mut self, wake: &mut Vec<Waker>) -> Result<bool, Error> {
        let mut moved = false;
        while !self.unsent.is_empty() {
            let (piece, _) = self.unsent.as_slices();
            let sent = self.requests.write(self.page, piece)?;
            if sent == 0 {
                break;
            }
            self.unsent.drain(..sent);
            moved = true;
        }
        // What came: at most as much as one message at a time.
        let mut piece = [0; 256];
        loop {
            let wants = self.assembler.wants()?.min(piece.len());
            let taken = self.responses.read(self.page, &mut piece[..wants])?;
            if let Some(message) = self.assembler.push(&piece[..taken])? {
                self.receive(message, wake);
            }
            if taken == 0 {
                return Ok(moved);
            }
            moved = true;
        }
    }

    fn receive(&mut self, message: Message, wake: &mut Vec<Waker>) {
        let Message { header, payload } = message;
        if header.kind == Kind::WatchEvent as u32 {
            return self.receive_change(&payload, wake);
        }
        let Some(place) = self.pending.get_mut(&header.request) else {
            self.strays += 1;
            return;
        };
        match place {
            Pending::Abandoned => _ = self.pending.remove(&header.request),
            Pending::Done(_) => self.strays += 1,
            Pending::Waits { kind, waker } => {
                let result = match header.kind {
                    answer if answer == *kind as u32 => Ok(payload),
                    answer if answer == Kind::Error as u32 => Err(Error::Refused(Refusal::parse(&payload))),
                    answer => Err(Error::WrongKind { asked: *kind as u32, answered: answer }),
                };
                wake.extend(waker.take());
                *place = Pending::Done(result);
            }
        }
    }

    /// A watch event: path and token, both ours to judge.
    fn receive_change(&mut self, payload: &[u8], wake: &mut Vec<Waker>) {
        let strings = strings(payload).unwrap_or_default();
        let [path, token] = strings.as_slice() else {
            self.strays += 1;
            return;
        };
        let Some(watch) = token.parse().ok().and_then(|token: u32| self.watches.get_mut(&token)) else {
            // An event may cross the request that ends its watch.
            self.strays += 1;
            return;
        };
        let change = Changed::Path(path.clone());
        // A path that is on its way already is read after this change too.
        if watch.changes.contains(&change) || watch.changes.back() == Some(&Changed::Missed) {
            return;
        }
        let full = watch.changes.len() >= MAX_CHANGES;
        watch.changes.push_back(if full { Changed::Missed } else { change });
        wake.extend(watch.waker.take());
    }

    fn fail_all(&mut self, error: &Error, wake: &mut Vec<Waker>) {
        self.pending.retain(|_, pending| !matches!(pending, Pending::Abandoned));
        for place in self.pending.values_mut() {
            if let Pending::Waits { waker, .. } = place {
                wake.extend(waker.take());
                *place = Pending::Done(Err(error.clone()));
            }
        }
        for watch in self.watches.values_mut() {
            wake.extend(watch.waker.take());
        }
    }

    /// Begins anew with the server of another host, or of another life: what was asked fails as interrupted, and every
    /// watch is set again.
    pub(super) fn restart(&mut self, page: &'static SharedPage) -> Vec<Waker> {
        let mut wake = Vec::new();
        self.fail_all(&Error::Interrupted, &mut wake);
        self.page = page;
        self.requests = Writer::new(REQUESTS, page);
        self.responses = Reader::new(RESPONSES, page);
        self.unsent.clear();
        self.assembler = Assembler::default();
        self.broken = None;
        let watches: Vec<(u32, String)> =
            self.watches.iter().map(|(token, watch)| (*token, watch.path.clone())).collect();
        for (token, path) in watches {
            let token_text = alloc::format!("{token}");
            let parts: [&[u8]; 4] = [path.as_bytes(), b"\0", token_text.as_bytes(), b"\0"];
            // It fails only when too many are pending, and those that were are done.
            if let Ok(request) = self.submit(Kind::Watch, 0, &parts) {
                self.abandon(request);
            }
        }
        wake
    }
}
