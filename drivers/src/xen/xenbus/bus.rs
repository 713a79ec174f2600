//! Which devices there are, and which come and go while the guest runs.
//! Neighbours: `mod` (what is done with one).
#![forbid(unsafe_code)]

use crate::xen::xenstore::{Error, Refusal, Transaction, Watch, Xenstore};
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
    /// Begins to watch. The devices that are there come as [`Change::Added`].
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn new(store: &Arc<Xenstore>) -> Result<Self, Error> {
        let watch = store.watch(ROOT).await?;
        Ok(Self { store: store.clone(), watch, known: Vec::new(), changes: Vec::new() })
    }

    /// Waits for the next device that comes or goes.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn next(&mut self) -> Result<Change, Error> {
        loop {
            if let Some(change) = self.changes.pop() {
                return Ok(change);
            }
            // Whatever changed below: what counts is what is there now.
            self.watch.next().await?;
            let found = self.scan().await?;
            for id in found.iter().rev().filter(|id| !self.known.contains(id)) {
                self.changes.push(Change::Added(id.clone()));
            }
            for id in self.known.iter().rev().filter(|id| !found.contains(id)) {
                self.changes.push(Change::Removed(id.clone()));
            }
            self.known = found;
        }
    }

    async fn scan(&self) -> Result<Vec<Id>, Error> {
        let mut found = Vec::new();
        for kind in self.names(ROOT).await? {
            for number in self.names(&format!("{ROOT}/{kind}")).await? {
                let id = Id { kind: kind.clone(), number };
                // A device is whole once it has a backend: the toolstack writes it in one transaction, others may not.
                let backend = format!("{}/backend", id.path());
                if found.len() < MAX_DEVICES && self.store.find(Transaction::NONE, &backend).await?.is_some()
                {
                    found.push(id);
                }
            }
        }
        Ok(found)
    }

    /// The names below a node, none if it is gone.
    async fn names(&self, path: &str) -> Result<Vec<String>, Error> {
        match self.store.directory(Transaction::NONE, path).await {
            Err(Error::Refused(Refusal::ENOENT)) => Ok(Vec::new()),
            other => other,
        }
    }
}
