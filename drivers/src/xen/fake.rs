//! The other side, played by the test: a hypervisor that counts, a xenstored with a tree, and a small executor that
//! lets client and server take turns.
#![forbid(unsafe_code)]

use super::{
    Access, DomainId, GrantRef, Handler, Hypervisor, Port, Refused, SharedPage,
    stream::{Reader, Writer},
    xenstore::{
        REQUESTS, RESPONSES, Xenstore,
        wire::{Assembler, Header, Kind},
    },
};
use alloc::{boxed::Box, collections::BTreeMap, string::String, sync::Arc, vec::Vec};
use core::{
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
};
use std::{collections::BTreeSet, string::ToString, sync::Mutex};

/// A hypervisor that keeps books.
#[derive(Default)]
pub(super) struct FakeHypervisor {
    books: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    last: u32,
    grants: BTreeSet<u32>,
    pages: BTreeMap<u32, &'static SharedPage>,
    channels: BTreeMap<u32, Arc<Handler>>,
    notified: Vec<Port>,
}

impl FakeHypervisor {
    pub(super) fn open_grants(&self) -> usize {
        self.books.lock().unwrap().grants.len()
    }

    pub(super) fn open_channels(&self) -> usize {
        self.books.lock().unwrap().channels.len()
    }

    /// What the other domain finds under this name, as long as it may.
    pub(super) fn page(&self, grant: GrantRef) -> &'static SharedPage {
        let books = self.books.lock().unwrap();
        assert!(books.grants.contains(&grant.0), "{grant:?} is not granted");
        books.pages[&grant.0]
    }

    /// Rings as the other domain does.
    pub(super) fn raise(&self, port: Port) {
        let handler = self.books.lock().unwrap().channels.get(&port.number).cloned();
        handler.into_iter().for_each(|handler| handler());
    }

    pub(super) fn notified(&self) -> Vec<Port> {
        self.books.lock().unwrap().notified.clone()
    }
}

impl Hypervisor for FakeHypervisor {
    fn grant(&self, _: DomainId, _: Access) -> Result<(&'static SharedPage, GrantRef), Refused> {
        let mut books = self.books.lock().unwrap();
        books.last += 1;
        let grant = books.last;
        books.grants.insert(grant);
        let page = Box::leak(Box::new(SharedPage::new()));
        books.pages.insert(grant, page);
        Ok((page, GrantRef(grant)))
    }

    fn end_grant(&self, grant: GrantRef) {
        assert!(self.books.lock().unwrap().grants.remove(&grant.0), "{grant:?} was ended twice");
    }

    fn bind(&self, _: DomainId, handler: Handler) -> Result<Port, Refused> {
        let mut books = self.books.lock().unwrap();
        books.last += 1;
        let port = books.last;
        books.channels.insert(port, Arc::new(handler));
        Ok(Port { number: port, life: 0 })
    }

    fn close(&self, port: Port) {
        assert!(
            self.books.lock().unwrap().channels.remove(&port.number).is_some(),
            "{port:?} was closed twice"
        );
    }

    fn notify(&self, port: Port) {
        self.books.lock().unwrap().notified.push(port);
    }
}

/// A request as the server got it.
pub(super) type Request = (Header, Vec<u8>);

/// A xenstored with one client.
pub(super) struct FakeStore {
    page: &'static SharedPage,
    requests: Reader,
    responses: Writer,
    assembler: Assembler,
    unsent: Vec<u8>,
    pub(super) tree: BTreeMap<String, String>,
    watches: Vec<(String, String)>,
    transactions: BTreeMap<u32, BTreeMap<String, String>>,
    last_transaction: u32,
    /// Transactions that shall meet with a conflict.
    pub(super) conflicts: u32,
    /// Every request so far.
    pub(super) seen: Vec<Request>,
    /// The node that is read as bytes which are no text.
    pub(super) nonsense: Option<String>,
    /// Requests are taken, but not answered.
    pub(super) is_silent: bool,
}

impl FakeStore {
    /// A server and its client.
    pub(super) fn new() -> (Self, Arc<Xenstore>) {
        let page: &'static SharedPage = Box::leak(Box::new(SharedPage::new()));
        let store = Self {
            page,
            requests: Reader::new(REQUESTS, page),
            responses: Writer::new(RESPONSES, page),
            assembler: Assembler::default(),
            unsent: Vec::new(),
            tree: BTreeMap::new(),
            watches: Vec::new(),
            transactions: BTreeMap::new(),
            last_transaction: 0,
            conflicts: 0,
            seen: Vec::new(),
            nonsense: None,
            is_silent: false,
        };
        (store, Xenstore::new(page, Box::new(|| ())))
    }

    pub(super) fn page(&self) -> &'static SharedPage {
        self.page
    }

    pub(super) fn watches(&self) -> usize {
        self.watches.len()
    }

    /// Sets a node as the toolstack or a backend does.
    pub(super) fn set(&mut self, path: &str, value: &str) {
        self.tree.insert(path.into(), value.into());
        self.fire(path);
    }

    /// Removes a node with all below.
    pub(super) fn unset(&mut self, path: &str) {
        let below = std::format!("{path}/");
        self.tree.retain(|name, _| name != path && !name.starts_with(&below));
        self.fire(path);
        self.fire_below(path);
    }

    pub(super) fn get(&self, path: &str) -> Option<&str> {
        self.tree.get(path).map(String::as_str)
    }

    fn fire(&mut self, path: &str) {
        for (watched, token) in self.watches.clone() {
            if path == watched || path.starts_with(&std::format!("{watched}/")) {
                self.send(Kind::WatchEvent as u32, 0, 0, std::format!("{path}\0{token}\0").as_bytes());
            }
        }
    }

    /// What is watched below a removed node is told of by its own name.
    fn fire_below(&mut self, path: &str) {
        for (watched, token) in self.watches.clone() {
            if watched.starts_with(&std::format!("{path}/")) {
                self.send(Kind::WatchEvent as u32, 0, 0, std::format!("{watched}\0{token}\0").as_bytes());
            }
        }
    }

    /// Sends a message, whatever it says.
    pub(super) fn send(&mut self, kind: u32, request: u32, transaction: u32, payload: &[u8]) {
        let header = Header { kind, request, transaction, len_bytes: payload.len() as u32 };
        self.send_bytes(&header.emit());
        self.send_bytes(payload);
    }

    pub(super) fn send_bytes(&mut self, bytes: &[u8]) {
        self.unsent.extend_from_slice(bytes);
    }

    /// Takes what was asked, answers, and fills the ring as far as it goes.
    pub(super) fn serve(&mut self) {
        loop {
            let mut piece = [0; 64];
            let wants = self.assembler.wants().unwrap().min(piece.len());
            let taken = self.requests.read(self.page, &mut piece[..wants]).unwrap();
            if let Some(message) = self.assembler.push(&piece[..taken]).unwrap() {
                self.seen.push((message.header, message.payload.clone()));
                if !self.is_silent {
                    self.answer(message.header, &message.payload);
                }
            } else if taken == 0 {
                break;
            }
        }
        let sent = self.responses.write(self.page, &self.unsent).unwrap();
        self.unsent.drain(..sent);
    }

    fn answer(&mut self, header: Header, payload: &[u8]) {
        let kind = header.kind;
        let path = payload.split(|&byte| byte == 0).next();
        let nonsense = self.nonsense.as_deref().map(str::as_bytes);
        if kind == Kind::Read as u32 && nonsense.is_some() && nonsense == path {
            return self.send(kind, header.request, header.transaction, b"\xff\xfe");
        }
        let result = self.act(header, payload);
        match result {
            Ok(answer) => self.send(kind, header.request, header.transaction, answer.as_bytes()),
            Err(name) => {
                self.send(
                    Kind::Error as u32,
                    header.request,
                    header.transaction,
                    std::format!("{name}\0").as_bytes(),
                );
            }
        }
        // xenstored answers first, then tells of the change.
        if kind == Kind::Watch as u32 {
            let (path, token) = self.watches.last().unwrap().clone();
            self.send(Kind::WatchEvent as u32, 0, 0, std::format!("{path}\0{token}\0").as_bytes());
        }
    }

    fn act(&mut self, header: Header, payload: &[u8]) -> Result<String, &'static str> {
        const OK: &str = "OK\0";
        let is = |kind: Kind| header.kind == kind as u32;
        let text = String::from_utf8(payload.to_vec()).unwrap();
        let (path, rest) = text.split_once('\0').unwrap_or((&text, ""));
        if is(Kind::TransactionStart) {
            self.last_transaction += 1;
            self.transactions.insert(self.last_transaction, self.tree.clone());
            return Ok(std::format!("{}\0", self.last_transaction));
        }
        if is(Kind::TransactionEnd) {
            let tree = self.transactions.remove(&header.transaction).ok_or("ENOENT")?;
            if path == "T" {
                if self.conflicts > 0 {
                    self.conflicts -= 1;
                    return Err("EAGAIN");
                }
                let changed: Vec<String> = tree
                    .iter()
                    .filter(|(path, value)| self.tree.get(*path) != Some(value))
                    .map(|(path, _)| path.clone())
                    .collect();
                self.tree = tree;
                changed.iter().for_each(|path| self.fire(path));
            }
            return Ok(OK.to_string());
        }
        if is(Kind::Watch) {
            self.watches.push((path.into(), rest.trim_end_matches('\0').into()));
            return Ok(OK.to_string());
        }
        if is(Kind::Unwatch) {
            let found = (path.into(), rest.trim_end_matches('\0').into());
            let at = self.watches.iter().position(|watch| *watch == found).ok_or("ENOENT")?;
            self.watches.remove(at);
            return Ok(OK.to_string());
        }
        let tree = match header.transaction {
            0 => &mut self.tree,
            number => self.transactions.get_mut(&number).ok_or("ENOENT")?,
        };
        if is(Kind::Read) {
            return tree.get(path).cloned().ok_or("ENOENT");
        }
        if is(Kind::Directory) {
            let below = std::format!("{path}/");
            let names: BTreeSet<&str> =
                tree.keys().filter_map(|name| name.strip_prefix(&below)?.split('/').next()).collect();
            let is_there = tree.contains_key(path) || !names.is_empty();
            return is_there
                .then(|| names.iter().map(|name| std::format!("{name}\0")).collect())
                .ok_or("ENOENT");
        }
        let is_plain = header.transaction == 0;
        if is(Kind::Write) {
            tree.insert(path.into(), rest.into());
        } else if is(Kind::Remove) {
            let below = std::format!("{path}/");
            tree.retain(|name, _| name != path && !name.starts_with(&below));
        } else {
            return Err("ENOSYS");
        }
        if is_plain {
            self.fire(path);
        }
        Ok(OK.to_string())
    }
}

/// Turns that client and server take before the test counts as hung.
const TURNS: u32 = 2000;

/// Runs `future` while `server` and client take turns, after each calling `each_turn` with the number of the turn.
pub(super) fn run_with<T>(
    server: &mut FakeStore,
    client: &Xenstore,
    future: impl Future<Output = T>,
    mut each_turn: impl FnMut(u32, &mut FakeStore),
) -> T {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    for turn in 0..TURNS {
        if let Poll::Ready(result) = future.as_mut().poll(&mut cx) {
            return result;
        }
        each_turn(turn, server);
        server.serve();
        client.process();
    }
    panic!("nothing comes of it after {TURNS} turns");
}

/// As [`run_with`], with a server left to itself.
pub(super) fn run<T>(server: &mut FakeStore, client: &Xenstore, future: impl Future<Output = T>) -> T {
    run_with(server, client, future, |_, _| ())
}
