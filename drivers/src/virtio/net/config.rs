//! Features and configuration of a network card (VirtIO 1.3 §5.1.3, §5.1.4).
#![forbid(unsafe_code)]

use super::super::{
    Features,
    transport::{Transport, read_config},
};
use crate::{
    class::net::{MacAddress, Offloads},
    error::{Error, Field},
};

bitflags::bitflags! {
    /// Feature bits (§5.1.3).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Feature: u64 {
        #[doc(alias = "VIRTIO_NET_F_CSUM")]
        const CSUM = 1 << 0;
        #[doc(alias = "VIRTIO_NET_F_GUEST_CSUM")]
        const GUEST_CSUM = 1 << 1;
        #[doc(alias = "VIRTIO_NET_F_MTU")]
        const MTU = 1 << 3;
        #[doc(alias = "VIRTIO_NET_F_MAC")]
        const MAC = 1 << 5;
        #[doc(alias = "VIRTIO_NET_F_GUEST_TSO4")]
        const GUEST_TSO4 = 1 << 7;
        #[doc(alias = "VIRTIO_NET_F_GUEST_TSO6")]
        const GUEST_TSO6 = 1 << 8;
        #[doc(alias = "VIRTIO_NET_F_HOST_TSO4")]
        const HOST_TSO4 = 1 << 11;
        #[doc(alias = "VIRTIO_NET_F_HOST_TSO6")]
        const HOST_TSO6 = 1 << 12;
        #[doc(alias = "VIRTIO_NET_F_MRG_RXBUF")]
        const MRG_RXBUF = 1 << 15;
        #[doc(alias = "VIRTIO_NET_F_STATUS")]
        const STATUS = 1 << 16;
        #[doc(alias = "VIRTIO_NET_F_CTRL_VQ")]
        const CTRL_VQ = 1 << 17;
        #[doc(alias = "VIRTIO_NET_F_CTRL_RX")]
        const CTRL_RX = 1 << 18;
        #[doc(alias = "VIRTIO_NET_F_CTRL_VLAN")]
        const CTRL_VLAN = 1 << 19;
        #[doc(alias = "VIRTIO_NET_F_GUEST_ANNOUNCE")]
        const GUEST_ANNOUNCE = 1 << 21;
        #[doc(alias = "VIRTIO_NET_F_MQ")]
        const MQ = 1 << 22;
        #[doc(alias = "VIRTIO_NET_F_CTRL_MAC_ADDR")]
        const CTRL_MAC_ADDR = 1 << 23;
    }
}

impl Feature {
    const GUEST_TSO: Self = Self::GUEST_TSO4.union(Self::GUEST_TSO6);
    const HOST_TSO: Self = Self::HOST_TSO4.union(Self::HOST_TSO6);
    const CTRL: Self = Self::CTRL_RX
        .union(Self::CTRL_VLAN)
        .union(Self::GUEST_ANNOUNCE)
        .union(Self::CTRL_MAC_ADDR)
        .union(Self::MQ);

    /// Those of `offered` that are used: none without what it requires (§5.1.3.1). Long segments are received in several
    /// buffers or not at all; they are sent if `can_send_long`. Several pairs of queues are of use to `cpus` if those are several.
    pub(super) fn choose(offered: Features, can_send_long: bool, cpus: u16) -> Self {
        let mut chosen = Self::from_bits_truncate(offered.bits());
        if !chosen.contains(Self::CSUM) || !can_send_long {
            chosen -= Self::HOST_TSO;
        }
        if !chosen.contains(Self::GUEST_CSUM | Self::MRG_RXBUF) {
            chosen -= Self::GUEST_TSO;
        }
        if !chosen.contains(Self::CTRL_VQ) {
            chosen -= Self::CTRL;
        }
        if !chosen.contains(Self::STATUS) {
            chosen -= Self::GUEST_ANNOUNCE;
        }
        if cpus < 2 {
            chosen -= Self::MQ;
        }
        chosen
    }

    /// What the card computes.
    pub(super) fn offloads(self) -> Offloads {
        let pairs = [
            (Self::CSUM, Offloads::SEND_CHECKSUM),
            (Self::HOST_TSO4, Offloads::SEND_TCP4),
            (Self::HOST_TSO6, Offloads::SEND_TCP6),
            (Self::GUEST_CSUM, Offloads::RECEIVE_CHECKSUM),
            (Self::GUEST_TSO4, Offloads::RECEIVE_TCP),
            (Self::GUEST_TSO6, Offloads::RECEIVE_TCP),
        ];
        let there = pairs.into_iter().filter(|(feature, _)| self.contains(*feature));
        there.fold(Offloads::empty(), |all, (_, offload)| all | offload)
    }
}

/// Fields by offset (§5.1.4).
mod field {
    pub(super) const MAC: usize = 0;
    pub(super) const STATUS: usize = 6;
    pub(super) const MAX_VIRTQUEUE_PAIRS: usize = 8;
    pub(super) const MTU: usize = 10;
}

/// The cable is in (`status`).
#[doc(alias = "VIRTIO_NET_S_LINK_UP")]
const LINK_UP: u16 = 1;
/// The guest should tell the network where it is (`status`).
#[doc(alias = "VIRTIO_NET_S_ANNOUNCE")]
const ANNOUNCE: u16 = 2;
/// MTU where the device names none: that of Ethernet.
const DEFAULT_MTU: u16 = 1500;
/// The least MTU of any network (§5.1.4.1).
const LEAST_MTU: u16 = 68;

/// The most pairs of queues (§5.1.4.1).
#[doc(alias = "VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MAX")]
const MOST_PAIRS: u16 = 0x8000;

/// Pairs of queues that the device has (§5.1.4).
///
/// # Errors
/// So many as no device has.
pub(super) fn pairs_offered(transport: &dyn Transport, features: Feature) -> Result<u16, Error> {
    if !features.contains(Feature::MQ) {
        return Ok(1);
    }
    let missing = Error::NoCapability { what: "network device configuration" };
    let read = |transport: &dyn Transport| transport.config_u16(field::MAX_VIRTQUEUE_PAIRS).ok_or(missing);
    match read_config(transport, read)? {
        pairs @ 1..=MOST_PAIRS => Ok(pairs),
        pairs => {
            let field = &Field { name: "max_virtqueue_pairs", expected: "1 to 0x8000" };
            Err(Error::BadConfig { field, found: pairs.into() })
        }
    }
}

/// The configuration, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Config {
    pub(super) mac: Option<MacAddress>,
    pub(super) link_up: bool,
    pub(super) announce: bool,
    pub(super) mtu: u16,
}

impl Config {
    pub(super) fn read(transport: &dyn Transport, features: Feature) -> Result<Self, Error> {
        let missing = Error::NoCapability { what: "network device configuration" };
        let word = |offset| transport.config_u16(offset).ok_or(missing);
        let mut mac = None;
        if features.contains(Feature::MAC) {
            let mut bytes = [0; 6];
            for (at, byte) in bytes.iter_mut().enumerate() {
                *byte = transport.config_u8(field::MAC + at).ok_or(missing)?;
            }
            mac = Some(MacAddress(bytes)).filter(|mac| mac.is_unicast());
            let found =
                u64::from_be_bytes([0, 0, bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5]]);
            let field = &Field { name: "mac", expected: "the address of one card" };
            mac.ok_or(Error::BadConfig { field, found })?;
        }
        let status = if features.contains(Feature::STATUS) { word(field::STATUS)? } else { LINK_UP };
        let mtu = if features.contains(Feature::MTU) { word(field::MTU)? } else { DEFAULT_MTU };
        if mtu < LEAST_MTU {
            let field = &Field { name: "mtu", expected: "68 at least" };
            return Err(Error::BadConfig { field, found: mtu.into() });
        }
        Ok(Self { mac, link_up: status & LINK_UP != 0, announce: status & ANNOUNCE != 0, mtu })
    }
}
