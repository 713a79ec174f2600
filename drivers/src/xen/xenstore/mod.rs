//! Xenstore: the tree of names and values through which toolstack, backends and frontends find each other
//! (docs/misc/xenstore.txt).
//!
//! Any number of tasks ask at the same time: each request bears a number, and each task sleeps until its answer is
//! there. Somebody calls [`Xenstore::process`] whenever the server rings: a task that the event channel wakes.
//! Files: `wire` (messages as bytes), `connection` (who waits for what), this one (what tasks call).
#![forbid(unsafe_code)]

mod connection;
#[cfg(test)]
mod tests;
pub mod wire;

pub use connection::{MAX_CHANGES, MAX_PENDING, MAX_WATCHES};
#[cfg(test)]
pub(in crate::xen) use connection::{REQUESTS, RESPONSES, SERVER_FEATURES};
pub use wire::Refusal;

use super::{SharedPage, stream::BadIndices};
use alloc::{boxed::Box, string::String, sync::Arc, vec::Vec};
use connection::Connection;
use core::{
    future::Future,
    pin::Pin,
    sync::atomic::{AtomicU32, Ordering},
    task::{Context, Poll},
};
use thiserror::Error;
use wire::{Kind, TooLong, strings};

/// Why the store gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// The server refused.
    #[error("xenstore refused: {0:?}")]
    Refused(Refusal),
    /// The answer is not what this request is answered with.
    #[error("xenstore answered a request of kind {asked} with kind {answered}")]
    WrongKind {
        /// The kind of the request.
        asked: u32,
        /// The kind of the answer.
        answered: u32,
    },
    /// The answer's payload is not text, or not a number where one must be.
    #[error("xenstore's answer makes no sense")]
    Nonsense,
    /// The request is longer than a message may be.
    #[error("a request of {0} bytes, expected at most 4096")]
    TooLong(usize),
    /// A path or token with a zero byte, or none at all.
    #[error("\"{}\" is no xenstore path", .0.as_bytes().escape_ascii())]
    BadPath(String),
    /// Too many requests or watches at the same time.
    #[error("too many requests or watches at the same time")]
    TooMany,
    /// Others changed the same nodes again and again.
    #[error("a transaction met with others' changes {0} times")]
    Conflict(u32),
    /// The connection was made anew meanwhile; the request may have had its effect.
    #[error("the connection to xenstore was made anew meanwhile")]
    Interrupted,
    /// The server announced a payload that no message has: the connection is over.
    #[error("xenstore announced a payload of {0} bytes, expected at most 4096: connection closed")]
    Overlong(u32),
    /// The ring's indices are nonsense: the connection is over.
    #[error("xenstore's {0}: connection closed")]
    Ring(#[from] BadIndices),
}

impl Error {
    /// Whether it is about that one request, so that others may fare better.
    pub fn is_of_request(&self) -> bool {
        !matches!(self, Self::Interrupted | Self::Overlong(_) | Self::Ring(_) | Self::TooMany)
    }
}

impl From<TooLong> for Error {
    fn from(TooLong(len_bytes): TooLong) -> Self {
        Self::Overlong(len_bytes)
    }
}

/// A change below a watched path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// This node was made, changed or removed; or nothing was, as when the watch is set.
    Path(String),
    /// More has changed than could be kept: look at everything.
    Missed,
}

/// The number of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transaction(u32);

impl Transaction {
    /// Outside any: each request stands for itself.
    #[doc(alias = "XBT_NIL")]
    pub const NONE: Self = Self(0);
}

/// Times that a transaction is tried.
const MAX_TRIES: u32 = 32;

/// The store, as its client sees it.
pub struct Xenstore {
    /// Locked for moments only, never across an await, and never by an interrupt handler.
    connection: spin::Mutex<Connection>,
    /// Times that it began anew.
    restarts: AtomicU32,
    notify: Box<dyn Fn() + Send + Sync>,
}

impl Xenstore {
    /// A client by the ring in `page`; `notify` rings at the server.
    pub fn new(page: &'static SharedPage, notify: Box<dyn Fn() + Send + Sync>) -> Arc<Self> {
        Arc::new(Self {
            connection: spin::Mutex::new(Connection::new(page)),
            restarts: AtomicU32::new(0),
            notify,
        })
    }

    /// Moves what can be moved, and wakes whose answer has come. To be called, by a task, when the server has rung.
    pub fn process(&self) {
        let (ring, wake) = self.connection.lock().process();
        if ring {
            (self.notify)();
        }
        wake.into_iter().for_each(|waker| waker.wake());
    }

    /// Lets nobody ask while `away` runs, in which the guest is saved and restored. If that gives the page of another
    /// ring, goes on with it: requests under way fail with [`Error::Interrupted`], watches are set again.
    pub fn restart(&self, away: &mut dyn FnMut() -> Option<&'static SharedPage>) {
        let wake = {
            let mut connection = self.connection.lock();
            away().map(|page| {
                self.restarts.fetch_add(1, Ordering::Release);
                connection.restart(page)
            })
        };
        let wake = wake.unwrap_or_default();
        wake.into_iter().for_each(|waker| waker.wake());
        self.process();
    }

    /// Times that it went on with another ring: paths of other domains that were read before may be wrong.
    pub fn restarts(&self) -> u32 {
        self.restarts.load(Ordering::Acquire)
    }

    /// Messages so far that answered nothing that was asked.
    pub fn strays(&self) -> u64 {
        self.connection.lock().strays()
    }

    /// Sends a request; `parse` makes of the answer what the caller wants.
    fn ask<T>(
        &self,
        kind: Kind,
        transaction: Transaction,
        parts: &[&[u8]],
        parse: Parse<T>,
    ) -> Answer<'_, T> {
        Answer { waits: Waits { store: self, request: Some(self.submit(kind, transaction, parts)) }, parse }
    }

    /// Sends a request about the node at `path`.
    fn ask_of<T>(
        &self,
        kind: Kind,
        transaction: Transaction,
        path: &str,
        value: &[u8],
        parse: Parse<T>,
    ) -> Answer<'_, T> {
        let request = checked(path).and_then(|path| self.submit(kind, transaction, &[path, b"\0", value]));
        Answer { waits: Waits { store: self, request: Some(request) }, parse }
    }

    fn submit(&self, kind: Kind, transaction: Transaction, parts: &[&[u8]]) -> Result<u32, Error> {
        let request = self.connection.lock().submit(kind, transaction.0, parts);
        self.process();
        request
    }

    /// Sends a request whose answer nobody waits for.
    fn tell(&self, kind: Kind, transaction: Transaction, parts: &[&[u8]]) {
        drop(self.ask(kind, transaction, parts, done));
    }

    /// The value of the node at `path`.
    ///
    /// # Errors
    /// [`Refusal::ENOENT`] when there is none; see [`enum@Error`] for all others.
    #[doc(alias = "XS_READ")]
    pub fn read(&self, transaction: Transaction, path: &str) -> Answer<'_, String> {
        self.ask_of(Kind::Read, transaction, path, b"", text)
    }

    /// As [`read`](Self::read); `None` when there is no such node.
    ///
    /// # Errors
    /// See [`enum@Error`].
    pub fn find(&self, transaction: Transaction, path: &str) -> Answer<'_, Option<String>> {
        self.ask_of(Kind::Read, transaction, path, b"", |answer| match text(answer) {
            Ok(value) => Ok(Some(value)),
            Err(Error::Refused(Refusal::ENOENT)) => Ok(None),
            Err(error) => Err(error),
        })
    }

    /// The names of the nodes below `path`.
    ///
    /// # Errors
    /// See [`enum@Error`].
    #[doc(alias = "XS_DIRECTORY")]
    pub fn directory(&self, transaction: Transaction, path: &str) -> Answer<'_, Vec<String>> {
        self.ask_of(Kind::Directory, transaction, path, b"", |answer| strings(&answer?))
    }

    /// Sets the value of the node at `path`; makes it and what is above it, if need be.
    ///
    /// # Errors
    /// See [`enum@Error`].
    #[doc(alias = "XS_WRITE")]
    pub fn write(&self, transaction: Transaction, path: &str, value: &str) -> Answer<'_, ()> {
        self.ask_of(Kind::Write, transaction, path, value.as_bytes(), done)
    }

    /// Removes the node at `path` and all below it.
    ///
    /// # Errors
    /// See [`enum@Error`].
    #[doc(alias = "XS_RM")]
    pub fn remove(&self, transaction: Transaction, path: &str) -> Answer<'_, ()> {
        self.ask_of(Kind::Remove, transaction, path, b"", done)
    }

    /// Tells of every change at `path` and below, from now on; the first that comes is no change but says that the
    /// watch is set.
    ///
    /// # Errors
    /// See [`enum@Error`].
    #[doc(alias = "XS_WATCH")]
    pub async fn watch(self: &Arc<Self>, path: &str) -> Result<Watch, Error> {
        let checked = checked(path)?;
        let token = self.connection.lock().add_watch(path)?;
        // From here on it is forgotten again by its drop.
        let watch = Watch { store: self.clone(), token };
        let token = alloc::format!("{token}");
        self.ask(Kind::Watch, Transaction::NONE, &[checked, b"\0", token.as_bytes(), b"\0"], done).await?;
        Ok(watch)
    }

    /// Runs `body` so that others see all of its changes or none, again and again until nobody has interfered.
    ///
    /// # Errors
    /// What `body` returns, with nothing changed then; [`Error::Conflict`] after 32 tries; see [`enum@Error`].
    #[doc(alias = "XS_TRANSACTION_START")]
    #[doc(alias = "XS_TRANSACTION_END")]
    pub async fn transaction<T, F>(&self, mut body: impl FnMut(Transaction) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        for _ in 0..MAX_TRIES {
            let number = self.ask(Kind::TransactionStart, Transaction::NONE, &[b"\0"], number).await?;
            let open = Open { store: self, transaction: Transaction(number) };
            let result = body(open.transaction).await?;
            match open.commit().await {
                Ok(()) => return Ok(result),
                Err(Error::Refused(Refusal::EAGAIN)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Conflict(MAX_TRIES))
    }
}

/// Paths are strings without a zero byte, and not empty.
fn checked(path: &str) -> Result<&[u8], Error> {
    if path.is_empty() || path.contains('\0') {
        return Err(Error::BadPath(path.into()));
    }
    Ok(path.as_bytes())
}

/// A transaction that is under way; given up when dropped.
struct Open<'a> {
    store: &'a Xenstore,
    transaction: Transaction,
}

impl<'a> Open<'a> {
    fn commit(self) -> Answer<'a, ()> {
        let answer = self.store.ask(Kind::TransactionEnd, self.transaction, &[b"T\0"], done);
        core::mem::forget(self);
        answer
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.store.tell(Kind::TransactionEnd, self.transaction, &[b"F\0"]);
    }
}

/// Makes of a payload what the caller asked for.
type Parse<T> = fn(Result<Vec<u8>, Error>) -> Result<T, Error>;

fn done(answer: Result<Vec<u8>, Error>) -> Result<(), Error> {
    answer.map(|_| ())
}

fn text(answer: Result<Vec<u8>, Error>) -> Result<String, Error> {
    String::from_utf8(answer?).map_err(|_| Error::Nonsense)
}

fn number(answer: Result<Vec<u8>, Error>) -> Result<u32, Error> {
    text(answer)?.trim_end_matches('\0').parse().map_err(|_| Error::Nonsense)
}

/// The answer to a request that was sent. Dropped early, the answer is thrown away when it comes.
#[must_use = "futures do nothing unless awaited"]
pub struct Answer<'a, T> {
    waits: Waits<'a>,
    parse: Parse<T>,
}

impl<T> Future for Answer<'_, T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T, Error>> {
        self.waits.poll(cx).map(self.parse)
    }
}

/// Of an [`Answer`], what is the same whatever is asked.
struct Waits<'a> {
    store: &'a Xenstore,
    /// The number of the request, until the answer is taken.
    request: Option<Result<u32, Error>>,
}

impl Waits<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<u8>, Error>> {
        let polled = match &self.request {
            Some(Ok(request)) => self.store.connection.lock().poll_answer(*request, cx.waker()),
            Some(Err(error)) => Poll::Ready(Err(error.clone())),
            None => Poll::Ready(Err(Error::Interrupted)),
        };
        if polled.is_ready() {
            self.request = None;
        }
        polled
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        if let Some(Ok(request)) = self.request.take() {
            self.store.connection.lock().abandon(request);
        }
    }
}

/// A watch, set as long as this lives.
pub struct Watch {
    store: Arc<Xenstore>,
    token: u32,
}

impl Watch {
    /// Waits for the next change. One that came while nobody waited is kept.
    ///
    /// # Errors
    /// When the connection is over.
    pub async fn next(&mut self) -> Result<Changed, Error> {
        core::future::poll_fn(|cx| self.store.connection.lock().poll_change(self.token, cx.waker())).await
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let path = self.store.connection.lock().remove_watch(self.token);
        if let Some(path) = path {
            let token = alloc::format!("{}", self.token);
            self.store.tell(
                Kind::Unwatch,
                Transaction::NONE,
                &[path.as_bytes(), b"\0", token.as_bytes(), b"\0"],
            );
        }
    }
}
