//! The protocols between card and sockets: frames go in, what they change is told to who waits, frames come out.
//!
//! smoltcp does the protocols. Which connection a frame belongs to is found here, and only that connection is looked at:
//! the cost of a frame does not depend on how many there are. A connection is made when its first segment comes to a
//! port where somebody listens, so that a listener needs no sockets in advance. Everything happens in two steps,
//! `ingress` and `egress`, between which the tasks that were woken run: what they write goes out together with the
//! acknowledgements. Neighbours: `task` (who calls), `listener` (how
//! connections begin and end), `table`, `port`, `addresses`.
#![forbid(unsafe_code)]

use alloc::vec::Vec;
use core::{net::IpAddr, task::Waker};

use drivers::class::net::{ETHERNET_HEADER_BYTES, Frame, NetDevice, SendOffload};
use smoltcp::{
    iface::{Interface, PollResult, SocketHandle, SocketSet},
    phy::DeviceCapabilities,
    socket::tcp::{self, State},
    time::{Duration, Instant},
    wire::{
        ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, IpAddress, IpCidr,
    },
};

use super::{
    listener::{DYNAMIC_PORTS, Listener},
    packet::{self, Kind, Tuple},
    port::Port,
    table::{Id, Table},
};
use crate::time::queue::Queue;

/// A deadline that is over already is looked at after this long: whoever caused it could do nothing.
const LEAST_DELAY_NS: u64 = 10_000_000;
/// How often the interface looks for what it has to do of its own accord: ask for routers (RFC 4861 §10), forget addresses.
const MAINTENANCE: Duration = Duration::from_secs(4);
/// Bytes of headers that a segment may have.
const MOST_HEADER_BYTES: usize = 14 + 40 + 60;

/// Everything between a card and the sockets.
pub(super) struct Stack {
    pub(super) interface: Interface,
    /// One that no frame goes through: it tells when a socket is to be looked at. `interface` would answer with the time of
    /// its last question for routers, which is over for ever where there are none (smoltcp 0.14).
    clock: Interface,
    /// Sockets of all kinds but TCP.
    pub(super) services: SocketSet<'static>,
    pub(super) dhcp: Option<SocketHandle>,
    pub(super) dns: SocketHandle,
    /// What the guest has been told of the network.
    pub(super) dns_servers: Vec<IpAddr>,
    /// Who wants to know when that changes.
    pub(super) watchers: Vec<Waker>,
    capabilities: DeviceCapabilities,
    pub(super) table: Table,
    pub(super) listeners: Vec<Option<Listener>>,
    deadlines: Queue<Id>,
    /// When `services`, and what `interface` does of its own accord, are to be looked at.
    services_deadline: u64,
    /// They are to be looked at in any case.
    services_are_dirty: bool,
    /// Connections that may have something to send.
    dirty: Vec<Id>,
    /// A socket was used since the last `egress`.
    is_touched: bool,
    waker: Option<Waker>,
    pub(super) next_port: u16,
}

/// A time of [`crate::time::now`], in nanoseconds, for smoltcp.
pub(super) fn instant(ns: u64) -> Instant {
    Instant::from_micros((ns / 1000) as i64)
}

fn to_ns(instant: Instant) -> u64 {
    (instant.total_micros().max(0) as u64).saturating_mul(1000)
}

impl Stack {
    pub(super) fn new(
        interface: Interface,
        clock: Interface,
        services: SocketSet<'static>,
        capabilities: DeviceCapabilities,
        dhcp: Option<SocketHandle>,
        dns: SocketHandle,
    ) -> Self {
        Self {
            interface,
            clock,
            services,
            dhcp,
            dns,
            dns_servers: Vec::new(),
            watchers: Vec::new(),
            capabilities,
            table: Table::default(),
            listeners: Vec::new(),
            deadlines: Queue::new(),
            services_deadline: 0,
            services_are_dirty: true,
            dirty: Vec::new(),
            is_touched: true,
            waker: None,
            next_port: *DYNAMIC_PORTS.start(),
        }
    }

    /// Takes in a frame that came `now`.
    pub(super) fn ingress(&mut self, card: &dyn NetDevice, frame: Frame, now: Instant) {
        match packet::classify(frame.bytes(), frame.checksum_is_good()) {
            Kind::Broken => card.recycle(frame),
            Kind::Tcp { tuple, opens } => self.segment(card, frame, tuple, opens, now),
            Kind::Other => self.serve(card, frame, now),
            Kind::Neighbor => {
                self.serve(card, frame, now);
                // Whoever waits for a neighbour's address may have it now.
                let all: Vec<Id> = self.table.iter().map(|(id, _)| id).collect();
                all.into_iter().for_each(|id| self.mark(id));
            }
        }
    }

    fn segment(&mut self, card: &dyn NetDevice, frame: Frame, tuple: Tuple, opens: bool, now: Instant) {
        let mut id = self.table.find(&tuple);
        if opens {
            // A connection that is over but for the wait gives way to a new one between the same ends.
            if let Some(old) = id.filter(|&id| self.is_over(id)) {
                self.remove(old);
                id = None;
            }
            if id.is_none()
                && let Some(listener) = self.listener(&tuple)
            {
                id = self.open(listener, tuple);
                if id.is_none() {
                    // No room: the other end asks again.
                    return card.recycle(frame);
                }
            }
        }
        // A segment that belongs to nothing is answered with a reset, by what has no TCP socket.
        let Some(id) = id else { return self.serve(card, frame, now) };
        let Some(connection) = self.table.get(id) else { return card.recycle(frame) };
        let mut port = Port::new(card, &self.capabilities, false);
        port.frame = Some(frame);
        self.interface.poll_ingress_single(now, &mut port, &mut connection.sockets);
        self.follow(id);
        self.mark(id);
    }

    /// Hands a frame to everything but TCP.
    fn serve(&mut self, card: &dyn NetDevice, frame: Frame, now: Instant) {
        self.services_are_dirty = true;
        let mut port = Port::new(card, &self.capabilities, false);
        port.frame = Some(frame);
        self.interface.poll_ingress_single(now, &mut port, &mut self.services);
    }

    /// Nobody has it, and nothing is left to send.
    pub(super) fn is_over(&mut self, id: Id) -> bool {
        let Some(connection) = self.table.get(id) else { return false };
        !connection.is_owned && matches!(connection.socket().state(), State::TimeWait | State::Closed)
    }

    pub(super) fn remove(&mut self, id: Id) {
        let Some(connection) = self.table.remove(id) else { return };
        if let Some((_, key)) = connection.deadline {
            self.deadlines.remove(key);
        }
        if let Some(Some(listener)) = connection.listener.and_then(|number| self.listeners.get_mut(number)) {
            listener.forget(id, connection);
        }
    }

    pub(super) fn mark(&mut self, id: Id) {
        if let Some(connection) = self.table.get(id)
            && !core::mem::replace(&mut connection.is_dirty, true)
        {
            self.dirty.push(id);
        }
    }

    /// Sends what there is to send at `now_ns`, as far as the card has room.
    pub(super) fn egress(&mut self, card: &dyn NetDevice, now_ns: u64) {
        let now = instant(now_ns);
        self.is_touched = false;
        while let Some(id) = self.deadlines.pop_due(now_ns) {
            if let Some(connection) = self.table.get(id) {
                connection.deadline = None;
            }
            self.mark(id);
        }
        if core::mem::take(&mut self.services_are_dirty) || self.services_deadline <= now_ns {
            self.egress_services(card, now);
        }
        // Those for which the card has no room stay in the list: they are asked again when it has.
        let mut dirty = core::mem::take(&mut self.dirty);
        dirty.retain(|&id| match self.egress_connection(card, id, now) {
            Sent::All { look_again } => {
                self.settle(id, look_again, now_ns);
                self.retire(id);
                false
            }
            Sent::NoRoom => true,
        });
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
    }

    fn egress_services(&mut self, card: &dyn NetDevice, now: Instant) {
        self.interface.poll_maintenance(now);
        let mut port = Port::new(card, &self.capabilities, false);
        while self.interface.poll_egress(now, &mut port, &mut self.services) != PollResult::None {}
        let at = self.clock.poll_at(now, &self.services).unwrap_or(Instant::from_micros(i64::MAX));
        let soon = now + Duration::from_micros(LEAST_DELAY_NS / 1000);
        self.services_deadline = to_ns(at.max(soon).min(now + MAINTENANCE));
    }

    fn egress_connection(&mut self, card: &dyn NetDevice, id: Id, now: Instant) -> Sent {
        let Some(connection) = self.table.get(id) else { return Sent::All { look_again: None } };
        let long = self.capabilities.max_transmission_unit - MOST_HEADER_BYTES;
        let is_ipv4 = matches!(connection.tuple.remote.addr, IpAddress::Ipv4(_));
        loop {
            let is_long = is_ipv4 && connection.socket().send_queue() > long;
            let mut port = Port::new(card, &self.capabilities, is_long);
            let result = self.interface.poll_egress(now, &mut port, &mut connection.sockets);
            if port.is_exhausted {
                return Sent::NoRoom;
            }
            let look_again = self.clock.poll_at(now, &connection.sockets);
            if result == PollResult::None || look_again.is_none_or(|at| at > now) {
                connection.is_dirty = false;
                return Sent::All { look_again };
            }
        }
    }

    /// Has a connection looked at again when its time has come, or forgets it if it is over.
    fn settle(&mut self, id: Id, look_again: Option<Instant>, now_ns: u64) {
        let Some(connection) = self.table.get(id) else { return };
        if connection.socket().state() == State::Closed && !connection.is_owned {
            return self.remove(id);
        }
        let Some(at) = look_again else { return };
        let at = to_ns(at).max(now_ns + LEAST_DELAY_NS);
        // One that comes too early does no harm: it is cheaper than to change it with every segment.
        if connection.deadline.is_some_and(|(earlier, _)| earlier <= at) {
            return;
        }
        if let Some((_, key)) = connection.deadline.take() {
            self.deadlines.remove(key);
        }
        connection.deadline = self.deadlines.insert(at, id).ok().map(|key| (at, key));
    }

    /// Tells the network where the guest is: an ARP reply that nobody has asked for (RFC 5227 §3).
    pub(super) fn announce(&mut self, card: &dyn NetDevice) {
        let mac = EthernetAddress(card.info().mac.0);
        for address in self.interface.ip_addrs() {
            let IpCidr::Ipv4(address) = address else { continue };
            let arp = ArpRepr::EthernetIpv4 {
                operation: ArpOperation::Reply,
                source_hardware_addr: mac,
                source_protocol_addr: address.address(),
                target_hardware_addr: EthernetAddress::BROADCAST,
                target_protocol_addr: address.address(),
            };
            let Some(mut frame) = card.buffer(ETHERNET_HEADER_BYTES + arp.buffer_len()) else { return };
            let mut ethernet = EthernetFrame::new_unchecked(frame.bytes_mut());
            ethernet.set_src_addr(mac);
            ethernet.set_dst_addr(EthernetAddress::BROADCAST);
            ethernet.set_ethertype(EthernetProtocol::Arp);
            arp.emit(&mut ArpPacket::new_unchecked(ethernet.payload_mut()));
            card.send(frame, SendOffload::default());
        }
    }

    /// When `egress` is to be called at the latest, in nanoseconds.
    pub(super) fn deadline(&self) -> u64 {
        self.deadlines.next_deadline().map_or(self.services_deadline, |at| at.min(self.services_deadline))
    }

    /// Calls `waker` when a socket is used; false if one was.
    pub(super) fn wait(&mut self, waker: &Waker) -> bool {
        match &mut self.waker {
            Some(old) => old.clone_from(waker),
            None => self.waker = Some(waker.clone()),
        }
        !self.is_touched
    }

    /// Whether a socket was used since the last `egress`.
    pub(super) fn is_touched(&self) -> bool {
        self.is_touched
    }

    /// A socket that is no connection was used: it may have something to send.
    pub(super) fn touch(&mut self) {
        self.services_are_dirty = true;
        self.wake();
    }

    fn wake(&mut self) {
        self.is_touched = true;
        self.waker.take().into_iter().for_each(Waker::wake);
    }

    /// Bytes that a datagram may have: those of a frame without the headers.
    pub(super) fn datagram_bytes(&self, is_ipv6: bool) -> usize {
        self.capabilities.ip_mtu() - if is_ipv6 { 48 } else { 28 }
    }

    /// The socket of a connection, to be read.
    pub(super) fn socket(&mut self, id: Id) -> Option<&mut tcp::Socket<'static>> {
        Some(self.table.get(id)?.socket_mut())
    }

    /// The socket of a connection was used.
    pub(super) fn touch_connection(&mut self, id: Id) {
        self.mark(id);
        self.wake();
    }
}

/// What became of what a connection had to send.
enum Sent {
    /// All that may be sent now was; there may be something to do at another time.
    All { look_again: Option<Instant> },
    /// The card has no room.
    NoRoom,
}
