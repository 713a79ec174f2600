//! What of the network needs no machine: frames are looked into, checksums left to the card, connections found.
#![forbid(unsafe_code)]

use core::{
    num::NonZeroU16,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    task::Waker,
};
use std::{collections::BTreeMap, vec, vec::Vec};

use drivers::{
    Error,
    class::net::{
        Control, ETHERNET_HEADER_BYTES, Frame, MacAddress, NetCounts, NetDevice, NetInfo, Offloads,
        SendOffload,
    },
};
use proptest::{collection::vec, prelude::*};
use smoltcp::{
    iface::SocketSet,
    phy::ChecksumCapabilities,
    socket::{
        dhcpv4,
        tcp::{Socket, SocketBuffer, State},
    },
    wire::{
        EthernetAddress, EthernetFrame, EthernetProtocol, IpAddress, IpEndpoint, IpProtocol, IpRepr,
        TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, TcpTimestampRepr, checksum,
    },
};

use super::{
    addresses,
    config::Config,
    interfaces,
    packet::{Kind, Tuple, classify, offload},
    port,
    stack::{Stack, instant},
    table::{Connection, Table},
    tcp::Options,
};

const V4: [IpAddress; 2] = [IpAddress::v4(192, 0, 2, 1), IpAddress::v4(192, 0, 2, 2)];
const V6: [IpAddress; 2] =
    [IpAddress::v6(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), IpAddress::v6(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2)];

/// A segment with its checksum, or with nothing in its place.
fn segment([from, to]: [IpAddress; 2], control: TcpControl, payload: &[u8], with_checksum: bool) -> Vec<u8> {
    let tcp = TcpRepr {
        src_port: 1000,
        dst_port: 80,
        control,
        seq_number: TcpSeqNumber(7),
        ack_number: (control != TcpControl::Syn).then_some(TcpSeqNumber(9)),
        window_len: 100,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None::<TcpTimestampRepr>,
        payload,
    };
    let ip = IpRepr::new(from, to, IpProtocol::Tcp, tcp.buffer_len(), 64);
    let mut bytes = vec![0; ETHERNET_HEADER_BYTES + ip.buffer_len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
    frame.set_dst_addr(EthernetAddress([2, 0, 0, 0, 0, 1]));
    let is_v4 = matches!(from, IpAddress::Ipv4(_));
    frame.set_ethertype(if is_v4 { EthernetProtocol::Ipv4 } else { EthernetProtocol::Ipv6 });
    let all = ChecksumCapabilities::default();
    ip.emit(frame.payload_mut(), &all);
    let at = ETHERNET_HEADER_BYTES + ip.header_len();
    let caps = if with_checksum { all } else { ChecksumCapabilities::ignored() };
    tcp.emit(&mut TcpPacket::new_unchecked(&mut bytes[at..]), &from, &to, &caps);
    bytes
}

#[test]
fn a_segment_is_told_by_its_ends_and_whether_it_opens() {
    for ends in [V4, V6] {
        let tuple = Tuple { remote: IpEndpoint::new(ends[0], 1000), local: IpEndpoint::new(ends[1], 80) };
        for (control, opens) in [(TcpControl::Syn, true), (TcpControl::None, false), (TcpControl::Rst, false)]
        {
            let frame = segment(ends, control, b"data", true);
            assert_eq!(classify(&frame, false), Kind::Tcp { tuple, opens });
        }
    }
}

#[test]
fn a_wrong_checksum_is_found_unless_the_card_vouches_for_it() {
    for ends in [V4, V6] {
        let frame = segment(ends, TcpControl::Syn, b"", false);
        assert_eq!(classify(&frame, false), Kind::Broken);
        assert!(matches!(classify(&frame, true), Kind::Tcp { .. }));
    }
}

#[test]
fn a_fragment_is_dropped() {
    let mut frame = segment(V4, TcpControl::None, b"data", true);
    frame[ETHERNET_HEADER_BYTES + 6] |= 0x20;
    assert_eq!(classify(&frame, true), Kind::Broken);
}

#[test]
fn connections_are_found_by_their_ends_only_while_they_are_there() {
    let socket = || Socket::new(SocketBuffer::new(vec![0; 8]), SocketBuffer::new(vec![0; 8]));
    let tuple = |port| Tuple { remote: IpEndpoint::new(V4[0], port), local: IpEndpoint::new(V4[1], 80) };
    let mut table = Table::default();
    let id = table.insert(Connection::new(tuple(1), socket(), None)).unwrap();
    assert!(table.insert(Connection::new(tuple(1), socket(), None)).is_none(), "there is one already");
    assert_eq!((table.find(&tuple(1)), table.find(&tuple(2))), (Some(id), None));
    assert!(table.remove(id).is_some());
    assert!(table.remove(id).is_none() && table.get(id).is_none() && table.find(&tuple(1)).is_none());
    let next = table.insert(Connection::new(tuple(1), socket(), None)).unwrap();
    assert!(next != id && table.get(id).is_none(), "the old name finds nobody");
}

/// A card on a network where nobody says anything, and how much was sent.
#[derive(Default)]
struct Silent(AtomicU32);

impl NetDevice for Silent {
    fn info(&self) -> NetInfo {
        let (mac, offloads) = (MacAddress([2, 0, 0, 0, 0, 1]), Offloads::empty());
        NetInfo { mac, mtu: 1500, link_up: true, offloads, max_frame_bytes: 1514 }
    }

    fn queues(&self) -> u16 {
        1
    }

    fn receive(&self, _: u16) -> Option<Frame> {
        None
    }

    fn recycle(&self, _: Frame) {}

    fn buffer(&self, len: usize) -> Option<Frame> {
        Some(Frame::of_nobody(len))
    }

    fn send(&self, _: Frame, _: SendOffload) {
        self.0.fetch_add(1, Relaxed);
    }

    fn flush(&self) {}

    fn wait(&self, _: u16, _: &Waker) -> bool {
        true
    }

    fn control(&self, _: Control<'_>) -> Result<(), Error> {
        Err(Error::Request("it takes no commands"))
    }

    fn take_announcement(&self) -> bool {
        false
    }

    fn queue_counts(&self, _: u16) -> NetCounts {
        NetCounts::default()
    }
}

fn stack(card: &Silent) -> Stack {
    let capabilities = port::capabilities(card);
    let (mut interface, clock) = interfaces(card, &capabilities, 1, instant(0));
    addresses::set_up(&mut interface, card.info().mac, &Config::default());
    // One who waits for an answer, and looks at the clock meanwhile.
    let mut services = SocketSet::new(Vec::new());
    let dhcp = services.add(dhcpv4::Socket::new());
    Stack::new(interface, clock, services, capabilities, Some(dhcp), dhcp)
}

/// Sockets of connections that are gone are used again, and count as the listener's.
#[test]
fn a_listener_has_no_more_connections_than_it_may_however_many_come_and_go() {
    let mut stack = stack(&Silent::default());
    let options = Options { backlog: 3, connections: 3, receive_bytes: 64, send_bytes: 100 };
    let listener = stack.listen(80, options).unwrap();
    let open = |stack: &mut Stack, port| {
        stack
            .open(listener, Tuple { remote: IpEndpoint::new(V4[0], port), local: IpEndpoint::new(V4[1], 80) })
    };
    for round in 0..10 {
        let ids: Vec<_> = (0..3).map(|at| open(&mut stack, 1000 + 3 * round + at).expect("room")).collect();
        assert!(open(&mut stack, 1).is_none(), "no room for a fourth");
        for id in ids {
            let socket = stack.socket(id).unwrap();
            assert_eq!((socket.state(), socket.recv_queue(), socket.send_queue()), (State::Listen, 0, 0));
            assert_eq!((socket.recv_capacity(), socket.send_capacity()), (64, 100));
            assert!(!socket.nagle_enabled() && socket.timeout().is_some());
            stack.remove(id);
        }
    }
}

/// smoltcp 0.14 asks for routers three times, and from then on wants to be called again at once, for ever, whatever the sockets
/// wait for: the time comes from an interface that asks nobody (`Stack::clock`).
#[test]
fn a_network_without_a_router_does_not_keep_the_guest_awake() {
    const SECOND: u64 = 1_000_000_000;
    let card = Silent::default();
    let mut stack = stack(&card);
    let (mut now, mut calls) = (0, 0);
    while now < 100 * SECOND {
        stack.egress(&card, now);
        now = stack.deadline();
        calls += 1;
    }
    assert!(card.0.load(Relaxed) > 3, "routers and servers are asked");
    assert!(calls < 100, "{calls} calls in 100 s");
}

proptest! {
    #[test]
    fn any_frame_is_looked_at(
        kind in prop_oneof![Just([8, 0]), Just([0x86, 0xdd]), Just([8, 6]), any::<[u8; 2]>()],
        mut bytes in vec(any::<u8>(), 0..200),
        version in prop_oneof![Just(0x45u8), Just(0x60), any::<u8>()],
        is_good: bool,
    ) {
        if let Some(place) = bytes.get_mut(12..15) {
            place.copy_from_slice(&[kind[0], kind[1], version]);
        }
        classify(&bytes, is_good);
        offload(&mut bytes, NonZeroU16::new(1000));
    }

    /// What the card makes of a frame, summing from where it is told to and writing where it is told to, is a frame with
    /// the right checksum.
    #[test]
    fn a_checksum_that_is_left_to_the_card_comes_out_right(payload in vec(any::<u8>(), 0..3000), v6: bool) {
        let ends = if v6 { V6 } else { V4 };
        let mut frame = segment(ends, TcpControl::Psh, &payload, false);
        let told = offload(&mut frame, NonZeroU16::new(1000));
        let place = told.checksum.unwrap();
        let (start, at) = (usize::from(place.start), usize::from(place.start + place.offset));
        let sum = !checksum::data(&frame[start..]);
        frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        let is_tcp = matches!(classify(&frame, false), Kind::Tcp { .. });
        prop_assert!(is_tcp);
        prop_assert_eq!(frame, segment(ends, TcpControl::Psh, &payload, true));
        let segments = told.segments.unwrap();
        prop_assert_eq!((segments.header_bytes, segments.is_ipv6), (start as u16 + 20, v6));
    }

    /// Whatever comes and goes, each is found by its ends.
    #[test]
    fn the_table_is_a_map(steps in vec((any::<bool>(), 0u16..20), 0..100)) {
        let mut table = Table::default();
        let mut model = BTreeMap::new();
        for (adds, port) in steps {
            let tuple = Tuple { remote: IpEndpoint::new(V4[0], port), local: IpEndpoint::new(V4[1], 80) };
            if adds {
                let socket = Socket::new(SocketBuffer::new(vec![0; 8]), SocketBuffer::new(vec![0; 8]));
                let id = table.insert(Connection::new(tuple, socket, None));
                prop_assert_eq!(id.is_none(), model.contains_key(&port));
                if let Some(id) = id {
                    model.insert(port, id);
                }
            } else if let Some(id) = model.remove(&port) {
                prop_assert!(table.remove(id).is_some_and(|connection| connection.tuple == tuple));
            }
            prop_assert_eq!(table.find(&tuple), model.get(&port).copied());
            prop_assert_eq!(table.iter().count(), model.len());
        }
    }
}
