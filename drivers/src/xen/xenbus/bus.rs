//! Which devices there are, and which come and go while the guest runs.
//! Neighbours: `mod` (what is done with one).
#![forbid(unsafe_code)]

use crate::xen::xenstore::{Error, Transaction, Watch, Xenstore};
use alloc::{format, string::String, sync::Arc, vec::Vec};
use core::fmt;

/// Which device: its kind and its number among those.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Id {
    /// `vbd` for disks, `vif` for network cards, and so on.
    pub kind: String,
    /// The toolstack's number for it.
    pub number: String,
}

impl Id {
    /// Its node, relative to the domain's own.
    pub fn path(&self) -> String {
        format!("{ROOT}/{self}")
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.number)
    }
}

/// The node with all devices.
const ROOT: &str = "device";
/// Devices that are looked at; a toolstack makes a handful.
const MAX_DEVICES: usize = 1024;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// This device is new.
    Added(Id),
    /// This one is gone.
    Removed(Id),
}

/// All devices of this domain.
pub struct Bus {
    store: Arc<Xenstore>,
    watch: Watch,
    known: Vec<Id>,
    /// The next one last.
    changes: Vec<Change>,
}

impl Bus {
    /// Begins to watch. The devices that are there have come by [`Change::Added`] when [`pop`](Self::pop) first says
    /// that there is no more.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn new(store: &Arc<Xenstore>) -> Result<Self, Error> {
        let watch = store.watch(ROOT).await?;
        let mut bus = Self { store: store.clone(), watch, known: Vec::new(), changes: Vec::new() };
        bus.look().await?;
        Ok(bus)
    }

    /// The next device that came or went, as far as is known without a look.
    pub fn pop(&mut self) -> Option<Change> {
        self.changes.pop()
    }

    /// Waits for the next device that comes or goes.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn next(&mut self) -> Result<Change, Error> {
        loop {
            if let Some(change) = self.pop() {
                return Ok(change);
            }
            self.look().await?;
        }
    }

    /// Waits until something changes below, whatever: what counts is what is there now.
    async fn look(&mut self) -> Result<(), Error> {
        self.watch.next().await?;
        let found = self.scan().await?;
        for id in found.iter().rev().filter(|id| !self.known.contains(id)) {
            self.changes.push(Change::Added(id.clone()));
        }
        for id in self.known.iter().rev().filter(|id| !found.contains(id)) {
            self.changes.push(Change::Removed(id.clone()));
        }
        self.known = found;
        Ok(())
    }

    async fn scan(&self) -> Result<Vec<Id>, Error> {
        let mut found = Vec::new();
        for kind in self.names(ROOT).await? {
            for number in self.names(&format!("{ROOT}/{kind}")).await? {
                let id = Id { kind: kind.clone(), number };
                // A device is whole once it has a backend: the toolstack writes it in one transaction, others may not.
                let backend = format!("{}/backend", id.path());
                let is_whole = match self.store.find(Transaction::NONE, &backend).await {
                    Ok(backend) => backend.is_some(),
                    // Whoever drives it will see.
                    Err(error) if error.is_of_request() => true,
                    Err(error) => return Err(error),
                };
                if found.len() < MAX_DEVICES && is_whole {
                    found.push(id);
                }
            }
        }
        Ok(found)
    }

    /// The names below a node, none if it is gone or cannot be read.
    async fn names(&self, path: &str) -> Result<Vec<String>, Error> {
        match self.store.directory(Transaction::NONE, path).await {
            Err(error) if error.is_of_request() => Ok(Vec::new()),
            other => other,
        }
    }
}
