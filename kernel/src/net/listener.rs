//! How connections begin and end: listeners, first segments, what apps open and let go.
//! Neighbours: `stack` (whose part this is), `tcp` (what apps see), `table` (where connections are kept).
#![forbid(unsafe_code)]

use alloc::{collections::VecDeque, vec::Vec};
use core::task::Waker;

use smoltcp::{
    socket::tcp::{self, State},
    time::Duration,
    wire::IpEndpoint,
};

use super::{
    Error,
    packet::Tuple,
    stack::Stack,
    table::{Connection, Id},
    tcp::{MOST_RECEIVE_BYTES, Options},
};

/// How long a connection that nobody has accepted, or that nobody has any more, may take.
const ORPHAN_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the other end of a connection may leave data without an answer.
const PEER_TIMEOUT: Duration = Duration::from_secs(120);
/// The ports for connections to others (RFC 6335 §6).
pub(super) const DYNAMIC_PORTS: core::ops::RangeInclusive<u16> = 49152..=65535;

/// A port where somebody listens.
pub(super) struct Listener {
    port: u16,
    options: Options,
    /// Connections that are not accepted yet.
    waiting: usize,
    /// Connections in all.
    connections: usize,
    ready: VecDeque<Id>,
    /// Connections that are over but for the wait, the oldest first; some may be gone.
    over: VecDeque<Id>,
    /// Sockets of connections that are gone, for those to come: their buffers need not be found, nor zeroed.
    spare: Vec<tcp::Socket<'static>>,
    waker: Option<Waker>,
}

/// Sockets that a listener keeps at most. Together with its connections they are no more than it may have.
const MOST_SPARE: usize = 16;
/// Connections of a listener that are over but for the wait (RFC 9293 §3.6.1), at most: the oldest gives way. What its other end
/// may still say is answered with a reset then, as what belongs to nothing.
const MOST_OVER: usize = 32;

impl Listener {
    /// A connection of its is gone.
    pub(super) fn forget(&mut self, id: Id, connection: Connection) {
        self.connections -= 1;
        self.waiting -= usize::from(!connection.is_accepted);
        self.ready.retain(|ready| *ready != id);
        if self.spare.len() < MOST_SPARE.min(self.options.connections - self.connections)
            && self.spare.try_reserve(1).is_ok()
        {
            let mut socket = connection.into_socket();
            socket.abort();
            self.spare.push(socket);
        }
    }
}

impl Stack {
    /// Who listens at the near end.
    pub(super) fn listener(&self, tuple: &Tuple) -> Option<usize> {
        if !self.interface.has_ip_addr(tuple.local.addr) {
            return None;
        }
        let is_it = |listener: &Option<Listener>| {
            listener.as_ref().is_some_and(|listener| listener.port == tuple.local.port)
        };
        self.listeners.iter().position(is_it)
    }

    /// Makes a connection that a first segment asks for; `None` where there is no room.
    pub(super) fn open(&mut self, number: usize, tuple: Tuple) -> Option<Id> {
        let listener = self.listeners.get(number)?.as_ref()?;
        let Options { backlog, connections, .. } = listener.options;
        let (port, options) = (listener.port, listener.options);
        if listener.waiting >= backlog {
            return None;
        }
        if listener.connections >= connections && !self.remove_oldest(number) {
            return None;
        }
        let spare = self.listeners.get_mut(number).and_then(|listener| listener.as_mut()?.spare.pop());
        let mut socket = spare.or_else(|| new_socket(&options))?;
        begin(&mut socket);
        socket.set_timeout(Some(ORPHAN_TIMEOUT));
        socket.listen((tuple.local.addr, port)).ok()?;
        let id = self.table.insert(Connection::new(tuple, socket, Some(number)))?;
        if let Some(Some(listener)) = self.listeners.get_mut(number) {
            listener.waiting += 1;
            listener.connections += 1;
        }
        Some(id)
    }

    /// Notes once of a connection that came to a listener that it is over but for the wait, if it is.
    pub(super) fn retire(&mut self, id: Id) {
        let Some(connection) = self.table.get(id) else { return };
        let is_over = connection.socket().state() == State::TimeWait && !connection.is_owned;
        let Some(number) = connection.listener.filter(|_| is_over && !connection.is_retired) else { return };
        connection.is_retired = true;
        let Some(Some(listener)) = self.listeners.get_mut(number) else { return };
        if listener.over.try_reserve(1).is_ok() {
            listener.over.push_back(id);
        }
        if listener.over.len() > MOST_OVER {
            self.remove_oldest(number);
        }
    }

    /// Forgets the connection of a listener that has been over for longest; false if there is none.
    fn remove_oldest(&mut self, number: usize) -> bool {
        while let Some(Some(listener)) = self.listeners.get_mut(number)
            && let Some(id) = listener.over.pop_front()
        {
            if self.is_over(id) {
                self.remove(id);
                return true;
            }
        }
        false
    }

    /// A connection that came to a listener and is established is ready to be accepted.
    pub(super) fn follow(&mut self, id: Id) {
        let Some(connection) = self.table.get(id) else { return };
        let is_open =
            !matches!(connection.socket().state(), State::Listen | State::SynReceived | State::Closed);
        let Some(number) = connection.listener.filter(|_| is_open && !connection.is_announced) else {
            return;
        };
        connection.is_announced = true;
        if let Some(Some(listener)) = self.listeners.get_mut(number) {
            listener.ready.push_back(id);
            listener.waker.take().into_iter().for_each(Waker::wake);
        }
    }

    /// Listens at `port`.
    pub(super) fn listen(&mut self, port: u16, options: Options) -> Result<usize, Error> {
        if self.listeners.iter().flatten().any(|listener| listener.port == port) {
            return Err(Error::PortInUse(port));
        }
        let ready = VecDeque::with_capacity(options.backlog);
        let (over, spare, waker) = (VecDeque::new(), Vec::new(), None);
        let listener = Listener { port, options, waiting: 0, connections: 0, ready, over, spare, waker };
        let free = self.listeners.iter().position(Option::is_none);
        let number = free.unwrap_or_else(|| {
            self.listeners.push(None);
            self.listeners.len() - 1
        });
        self.listeners[number] = Some(listener);
        Ok(number)
    }

    /// The next connection that came to a listener; `waker` is called when there is one.
    pub(super) fn accept(&mut self, number: usize, waker: &Waker) -> Option<(Id, IpEndpoint)> {
        loop {
            let listener = self.listeners.get_mut(number)?.as_mut()?;
            let Some(id) = listener.ready.pop_front() else {
                listener.waker = Some(waker.clone());
                return None;
            };
            let Some(connection) = self.table.get(id) else { continue };
            connection.is_owned = true;
            connection.is_accepted = true;
            connection.socket_mut().set_timeout(Some(PEER_TIMEOUT));
            let remote = connection.tuple.remote;
            if let Some(Some(listener)) = self.listeners.get_mut(number) {
                listener.waiting -= 1;
            }
            return Some((id, remote));
        }
    }

    /// Nobody listens any more; connections that nobody accepted are reset.
    pub(super) fn unlisten(&mut self, number: usize) {
        let all: Vec<Id> =
            self.table.iter().filter(|(_, other)| other.listener == Some(number)).map(|(id, _)| id).collect();
        for id in all {
            let Some(connection) = self.table.get(id) else { continue };
            connection.listener = None;
            if !connection.is_accepted {
                connection.socket_mut().abort();
                self.mark(id);
            }
        }
        self.listeners[number] = None;
        self.touch();
    }

    /// Begins a connection to `remote`.
    pub(super) fn connect(&mut self, remote: IpEndpoint, options: &Options) -> Result<Id, Error> {
        let source = self.interface.get_source_address(&remote.addr).ok_or(Error::Unreachable)?;
        let ports = DYNAMIC_PORTS.count();
        for _ in 0..ports {
            let local = IpEndpoint::new(source, self.next_port);
            self.next_port = self.next_port.checked_add(1).unwrap_or(*DYNAMIC_PORTS.start());
            let tuple = Tuple { remote, local };
            if self.table.find(&tuple).is_some() {
                continue;
            }
            let mut socket = new_socket(options).ok_or(Error::OutOfMemory)?;
            begin(&mut socket);
            socket.set_timeout(Some(PEER_TIMEOUT));
            socket.connect(self.interface.context(), remote, local).map_err(|_| Error::Unreachable)?;
            let mut connection = Connection::new(tuple, socket, None);
            connection.is_owned = true;
            connection.is_accepted = true;
            let id = self.table.insert(connection).ok_or(Error::OutOfMemory)?;
            self.mark(id);
            self.touch();
            return Ok(id);
        }
        Err(Error::OutOfMemory)
    }

    /// The app has no use for the connection any more: what was written still goes out.
    pub(super) fn disown(&mut self, id: Id) {
        let Some(connection) = self.table.get(id) else { return };
        connection.is_owned = false;
        let socket = connection.socket_mut();
        socket.set_timeout(Some(ORPHAN_TIMEOUT));
        socket.close();
        self.touch_connection(id);
    }
}

/// A socket with its buffers; `None` where there is no memory.
fn new_socket(options: &Options) -> Option<tcp::Socket<'static>> {
    let buffer = |len: usize| {
        let mut buffer: Vec<u8> = Vec::new();
        buffer.try_reserve_exact(len).ok()?;
        buffer.resize(len, 0);
        Some(tcp::SocketBuffer::new(buffer))
    };
    let receive_bytes = options.receive_bytes.min(MOST_RECEIVE_BYTES);
    Some(tcp::Socket::new(buffer(receive_bytes)?, buffer(options.send_bytes)?))
}

/// Has a socket begin, as if it were new, what smoltcp leaves as it was when it begins a connection with one that had another.
fn begin(socket: &mut tcp::Socket<'static>) {
    socket.set_nagle_enabled(false);
    socket.set_congestion_control(tcp::CongestionControl::Reno);
}
