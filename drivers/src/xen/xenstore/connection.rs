//! The connection to xenstore: requests that wait for their answers, watches, and the ring between. No waiting here,
//! and no hypercall: bytes go in and out of the page, wakers are woken.
//! Neighbours: `wire` (messages), `stream` (the two rings), `mod` (the asynchronous face).
#![forbid(unsafe_code)]

use super::{
    Changed, Error,
    wire::{Assembler, Header, Kind, Message, PAYLOAD_MAX, Refusal},
};
use crate::xen::{
    SharedPage,
    stream::{Layout, Reader, Writer},
};
use alloc::{string::String, vec::Vec};
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

struct Pending {
    request: u32,
    state: State,
}

enum State {
    Waits {
        kind: Kind,
        waker: Option<Waker>,
    },
    Done(Result<Vec<u8>, Error>),
    /// Nobody wants the answer; an error is of no interest either.
    Abandoned,
}

struct Watched {
    token: u32,
    path: String,
    changes: Vec<Changed>,
    waker: Option<Waker>,
}

/// All that is known of the connection.
pub(super) struct Connection {
    page: &'static SharedPage,
    requests: Writer,
    responses: Reader,
    /// Bytes that wait for room in the ring.
    unsent: Vec<u8>,
    assembler: Assembler,
    /// A handful, in no order.
    pending: Vec<Pending>,
    watches: Vec<Watched>,
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
            unsent: Vec::new(),
            assembler: Assembler::default(),
            pending: Vec::new(),
            watches: Vec::new(),
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
        self.unsent.extend_from_slice(&header.emit());
        parts.iter().for_each(|part| self.unsent.extend_from_slice(part));
        self.pending.push(Pending { request, state: State::Waits { kind, waker: None } });
        Ok(request)
    }

    /// A number that no request bears which waits; 0 is that of watch events.
    fn free_number(&mut self) -> u32 {
        loop {
            self.last_request = self.last_request.wrapping_add(1);
            if self.last_request != 0 && self.place(self.last_request).is_none() {
                return self.last_request;
            }
        }
    }

    fn place(&self, request: u32) -> Option<usize> {
        self.pending.iter().position(|pending| pending.request == request)
    }

    fn watched(&mut self, token: u32) -> Option<&mut Watched> {
        self.watches.iter_mut().find(|watch| watch.token == token)
    }

    /// The answer to a request, once; `waker` is woken when it is there.
    pub(super) fn poll_answer(&mut self, request: u32, waker: &Waker) -> Poll<Result<Vec<u8>, Error>> {
        let Some(place) = self.place(request) else { return Poll::Ready(Err(Error::Interrupted)) };
        if let State::Waits { waker: awaited, .. } = &mut self.pending[place].state {
            *awaited = Some(waker.clone());
            return Poll::Pending;
        }
        match self.pending.swap_remove(place).state {
            State::Done(result) => Poll::Ready(result),
            State::Waits { .. } | State::Abandoned => Poll::Ready(Err(Error::Interrupted)),
        }
    }

    /// Nobody waits for the answer any more.
    pub(super) fn abandon(&mut self, request: u32) {
        let Some(place) = self.place(request) else { return };
        let state = &mut self.pending[place].state;
        match state {
            State::Waits { .. } => *state = State::Abandoned,
            State::Done(_) => _ = self.pending.swap_remove(place),
            State::Abandoned => {}
        }
    }

    /// A place for the changes below `path`, with a token of its own. The server is not told yet.
    pub(super) fn add_watch(&mut self, path: &str) -> Result<u32, Error> {
        if self.watches.len() >= MAX_WATCHES {
            return Err(Error::TooMany);
        }
        while self.watched(self.last_token).is_some() {
            self.last_token = self.last_token.wrapping_add(1);
        }
        let token = self.last_token;
        self.last_token = token.wrapping_add(1);
        self.watches.push(Watched { token, path: path.into(), changes: Vec::new(), waker: None });
        Ok(token)
    }

    /// Forgets a watch; returns its path, for the server to be told.
    pub(super) fn remove_watch(&mut self, token: u32) -> Option<String> {
        let place = self.watches.iter().position(|watch| watch.token == token)?;
        Some(self.watches.swap_remove(place).path)
    }

    /// The next change of a watch, or the end of it.
    pub(super) fn poll_change(&mut self, token: u32, waker: &Waker) -> Poll<Result<Changed, Error>> {
        let broken = self.broken.clone();
        let Some(watch) = self.watched(token) else { return Poll::Ready(Err(Error::Interrupted)) };
        if !watch.changes.is_empty() {
            return Poll::Ready(Ok(watch.changes.remove(0)));
        }
        if let Some(error) = broken {
            return Poll::Ready(Err(error));
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
            let sent = self.requests.write(self.page, &self.unsent)?;
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
        let Some(place) = self.place(header.request) else {
            self.strays += 1;
            return;
        };
        let state = &mut self.pending[place].state;
        match state {
            State::Abandoned => _ = self.pending.swap_remove(place),
            State::Done(_) => self.strays += 1,
            State::Waits { kind, waker } => {
                let result = match header.kind {
                    answer if answer == *kind as u32 => Ok(payload),
                    answer if answer == Kind::Error as u32 => Err(Error::Refused(Refusal::parse(&payload))),
                    answer => Err(Error::WrongKind { asked: *kind as u32, answered: answer }),
                };
                wake.extend(waker.take());
                *state = State::Done(result);
            }
        }
    }

    /// A watch event: path and token, both ours to judge.
    fn receive_change(&mut self, payload: &[u8], wake: &mut Vec<Waker>) {
        let Some((path, watch)) = parse_change(payload).and_then(|(path, token)| {
            Some((path, self.watches.iter_mut().find(|watch| watch.token == token)?))
        }) else {
            // An event may cross the request that ends its watch.
            self.strays += 1;
            return;
        };
        // A path that is on its way already is read after this change too.
        let is_known = |change: &Changed| matches!(change, Changed::Path(known) if known == path);
        if watch.changes.iter().any(is_known) || watch.changes.last() == Some(&Changed::Missed) {
            return;
        }
        let full = watch.changes.len() >= MAX_CHANGES;
        watch.changes.push(if full { Changed::Missed } else { Changed::Path(path.into()) });
        wake.extend(watch.waker.take());
    }

    fn fail_all(&mut self, error: &Error, wake: &mut Vec<Waker>) {
        self.pending.retain(|pending| !matches!(pending.state, State::Abandoned));
        for Pending { state, .. } in &mut self.pending {
            if let State::Waits { waker, .. } = state {
                wake.extend(waker.take());
                *state = State::Done(Err(error.clone()));
            }
        }
        for watch in &mut self.watches {
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
            self.watches.iter().map(|watch| (watch.token, watch.path.clone())).collect();
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

/// Path and token of a watch event, which ends each with a zero byte.
fn parse_change(payload: &[u8]) -> Option<(&str, u32)> {
    let text = core::str::from_utf8(payload).ok()?;
    let (path, token) = text.strip_suffix('\0').unwrap_or(text).split_once('\0')?;
    Some((path, token.parse().ok()?))
}
