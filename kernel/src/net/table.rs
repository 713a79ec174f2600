//! The TCP connections: found by their two ends, kept at a place that does not move.
//! Neighbours: `stack` (what happens to them), `tcp` (what apps have of them).
#![forbid(unsafe_code)]

use alloc::vec::Vec;
use core::cmp::Ordering;

use smoltcp::{
    iface::{SocketHandle, SocketSet},
    socket::tcp::Socket,
};

use super::packet::Tuple;
use crate::time::queue::Key;

/// Names a connection; never reused, so that who comes late finds nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id {
    slot: u32,
    generation: u32,
}

/// A connection. It is a socket set of its own, so that smoltcp looks at no other for its frames.
pub(super) struct Connection {
    pub(super) tuple: Tuple,
    pub(super) sockets: SocketSet<'static>,
    handle: SocketHandle,
    /// The listener that it came to.
    pub(super) listener: Option<usize>,
    /// The listener knows that it is established.
    pub(super) is_announced: bool,
    /// An app has taken it from the listener, or has made it.
    pub(super) is_accepted: bool,
    /// An app has it.
    pub(super) is_owned: bool,
    /// Its listener knows that it is over but for the wait.
    pub(super) is_retired: bool,
    /// It stands in the list of those that may have something to send.
    pub(super) is_dirty: bool,
    /// When it is to be looked at, at the latest; in nanoseconds.
    pub(super) deadline: Option<(u64, Key)>,
}

impl Connection {
    pub(super) fn new(tuple: Tuple, socket: Socket<'static>, listener: Option<usize>) -> Self {
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        Self {
            tuple,
            sockets,
            handle,
            listener,
            is_announced: false,
            is_accepted: false,
            is_owned: false,
            is_retired: false,
            is_dirty: false,
            deadline: None,
        }
    }

    pub(super) fn socket(&self) -> &Socket<'static> {
        self.sockets.get(self.handle)
    }

    pub(super) fn into_socket(mut self) -> Socket<'static> {
        match self.sockets.remove(self.handle) {
            smoltcp::socket::Socket::Tcp(socket) => socket,
            _ => unreachable!("its only socket is one for TCP"),
        }
    }

    pub(super) fn socket_mut(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }
}

struct Slot {
    generation: u32,
    connection: Option<Connection>,
}

/// All connections.
#[derive(Default)]
pub(super) struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Sorted by the ends: by their keys first, which are quickly compared.
    places: Vec<(u64, Tuple, u32)>,
}

impl Table {
    fn place(&self, tuple: &Tuple) -> Result<usize, usize> {
        let key = tuple.key();
        self.places.binary_search_by(|(other, known, _)| match other.cmp(&key) {
            Ordering::Equal if known == tuple => Ordering::Equal,
            Ordering::Equal => known.cmp(tuple),
            unequal => unequal,
        })
    }

    pub(super) fn find(&self, tuple: &Tuple) -> Option<Id> {
        let (_, _, slot) = self.places[self.place(tuple).ok()?];
        Some(Id { slot, generation: self.slots.get(slot as usize)?.generation })
    }

    pub(super) fn get(&mut self, id: Id) -> Option<&mut Connection> {
        let slot = self.slots.get_mut(id.slot as usize).filter(|slot| slot.generation == id.generation)?;
        slot.connection.as_mut()
    }

    /// Adds a connection; `None` if there is one between the same ends, or no memory.
    pub(super) fn insert(&mut self, connection: Connection) -> Option<Id> {
        let place = self.place(&connection.tuple).err()?;
        self.places.try_reserve(1).ok()?;
        if self.free.is_empty() {
            self.slots.try_reserve(1).ok()?;
            // So that a removal never needs memory.
            self.free.try_reserve(self.slots.len() + 1).ok()?;
            self.slots.push(Slot { generation: 0, connection: None });
            self.free.push(self.slots.len() as u32 - 1);
        }
        let number = self.free.pop()?;
        let slot = self.slots.get_mut(number as usize)?;
        self.places.insert(place, (connection.tuple.key(), connection.tuple, number));
        slot.connection = Some(connection);
        Some(Id { slot: number, generation: slot.generation })
    }

    pub(super) fn remove(&mut self, id: Id) -> Option<Connection> {
        let slot = self.slots.get_mut(id.slot as usize).filter(|slot| slot.generation == id.generation)?;
        let connection = slot.connection.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.slot);
        if let Ok(place) = self.place(&connection.tuple) {
            self.places.remove(place);
        }
        Some(connection)
    }

    /// All of them, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Id, &Connection)> {
        self.slots.iter().enumerate().filter_map(|(number, slot)| {
            let id = Id { slot: number as u32, generation: slot.generation };
            slot.connection.as_ref().map(|connection| (id, connection))
        })
    }
}
