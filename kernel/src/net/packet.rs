//! Frames as far as the stack must look into them itself: whose they are, whether their checksum holds, and what a card
//! is to compute. Everything else is smoltcp's.
#![forbid(unsafe_code)]

use core::num::NonZeroU16;

use drivers::class::net::{ChecksumPlace, ETHERNET_HEADER_BYTES, Segments, SendOffload};
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, IpAddress, IpEndpoint, IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket,
    UdpPacket, checksum,
};

/// Both ends of a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tuple {
    pub(super) remote: IpEndpoint,
    pub(super) local: IpEndpoint,
}

impl Tuple {
    /// A number that few others have: ports, and the end of the other's address.
    pub(super) fn key(&self) -> u64 {
        let address = match &self.remote.addr {
            IpAddress::Ipv4(address) => address.octets(),
            IpAddress::Ipv6(address) => {
                let [.., a, b, c, d] = address.octets();
                [a, b, c, d]
            }
        };
        u64::from(u32::from_be_bytes(address)) << 32
            | u64::from(self.remote.port) << 16
            | u64::from(self.local.port)
    }
}

/// What a received frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A segment of a connection; the first one, if it `opens` it.
    Tcp { tuple: Tuple, opens: bool },
    /// It may tell where a neighbour is: ARP, ICMPv6.
    Neighbor,
    /// Something else that may be of interest.
    Other,
    /// Damaged, or of a kind that nobody here understands.
    Broken,
}

/// Looks at a received frame. The checksum of TCP and UDP is verified here, unless the card says that it is good.
pub(super) fn classify(frame: &[u8], checksum_is_good: bool) -> Kind {
    let Ok(frame) = EthernetFrame::new_checked(frame) else { return Kind::Broken };
    match frame.ethertype() {
        EthernetProtocol::Arp => Kind::Neighbor,
        EthernetProtocol::Ipv4 => match Ipv4Packet::new_checked(frame.payload()) {
            // A fragment has no checksum of its own, and is not put together.
            Ok(packet) if packet.more_frags() || packet.frag_offset() != 0 => Kind::Broken,
            Ok(packet) => {
                let ends = (packet.src_addr().into(), packet.dst_addr().into());
                transport(packet.next_header(), ends, packet.payload(), checksum_is_good)
            }
            Err(_) => Kind::Broken,
        },
        EthernetProtocol::Ipv6 => match Ipv6Packet::new_checked(frame.payload()) {
            Ok(packet) => {
                let ends = (packet.src_addr().into(), packet.dst_addr().into());
                transport(packet.next_header(), ends, packet.payload(), checksum_is_good)
            }
            Err(_) => Kind::Broken,
        },
        EthernetProtocol::Unknown(_) => Kind::Broken,
    }
}

fn transport(protocol: IpProtocol, ends: (IpAddress, IpAddress), payload: &[u8], is_good: bool) -> Kind {
    let (source, destination) = ends;
    match protocol {
        IpProtocol::Tcp => match TcpPacket::new_checked(payload) {
            Ok(tcp) if is_good || tcp.verify_checksum(&source, &destination) => Kind::Tcp {
                tuple: Tuple {
                    remote: IpEndpoint::new(source, tcp.src_port()),
                    local: IpEndpoint::new(destination, tcp.dst_port()),
                },
                opens: tcp.syn() && !tcp.ack() && !tcp.rst(),
            },
            _ => Kind::Broken,
        },
        IpProtocol::Udp => match UdpPacket::new_checked(payload) {
            Ok(udp) if is_good || udp.verify_checksum(&source, &destination) => Kind::Other,
            _ => Kind::Broken,
        },
        IpProtocol::Icmpv6 => Kind::Neighbor,
        // Behind a hop-by-hop header stands ICMPv6, or what nobody has verified.
        IpProtocol::HopByHop if payload.first() == Some(&IpProtocol::Icmpv6.into()) => Kind::Other,
        IpProtocol::HopByHop | IpProtocol::Ipv6Route | IpProtocol::Ipv6Frag | IpProtocol::Ipv6Opts => {
            Kind::Broken
        }
        _ => Kind::Other,
    }
}

/// What a card that computes checksums has to do for `frame`, which stands there without; the sum of the pseudo header,
/// which the card begins with, is put in its place. A segment of more than `data_bytes` is to be cut.
pub(super) fn offload(frame: &mut [u8], data_bytes: Option<NonZeroU16>) -> SendOffload {
    try_offload(frame, data_bytes).unwrap_or_default()
}

fn try_offload(frame: &mut [u8], data_bytes: Option<NonZeroU16>) -> Option<SendOffload> {
    let ethernet = EthernetFrame::new_checked(&*frame).ok()?;
    let (protocol, source, destination, ip_bytes, is_ipv6) = match ethernet.ethertype() {
        EthernetProtocol::Ipv4 => {
            let packet = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
            let (source, destination) = (packet.src_addr().into(), packet.dst_addr().into());
            (packet.next_header(), source, destination, usize::from(packet.header_len()), false)
        }
        EthernetProtocol::Ipv6 => {
            let packet = Ipv6Packet::new_checked(ethernet.payload()).ok()?;
            let (source, destination) = (packet.src_addr().into(), packet.dst_addr().into());
            (packet.next_header(), source, destination, packet.header_len(), true)
        }
        _ => return None,
    };
    let start = ETHERNET_HEADER_BYTES + ip_bytes;
    let payload = frame.get_mut(start..)?;
    let sum = |len: usize| checksum::pseudo_header(&source, &destination, protocol, len as u32);
    let (header_bytes, offset) = match protocol {
        IpProtocol::Tcp => {
            let sum = sum(payload.len());
            let mut tcp = TcpPacket::new_checked(payload).ok()?;
            tcp.set_checksum(sum);
            (usize::from(tcp.header_len()), TCP_CHECKSUM)
        }
        IpProtocol::Udp => {
            let sum = sum(payload.len());
            UdpPacket::new_checked(payload).ok()?.set_checksum(sum);
            (0, UDP_CHECKSUM)
        }
        _ => return None,
    };
    let segments = data_bytes.map(|data_bytes| Segments {
        data_bytes: data_bytes.get(),
        header_bytes: (start + header_bytes) as u16,
        is_ipv6,
    });
    Some(SendOffload { checksum: Some(ChecksumPlace { start: start as u16, offset }), segments })
}

/// Where the checksum stands in the headers of TCP (RFC 9293 §3.1) and UDP (RFC 768).
const TCP_CHECKSUM: u16 = 16;
const UDP_CHECKSUM: u16 = 6;
