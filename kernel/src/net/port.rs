//! A card as smoltcp sees it: one received frame at a time, and as many to be sent as there is room for.
//! Neighbours: `stack` (who hands frames in), `packet` (what the card is to compute), `drivers::class::net` (the card).
#![forbid(unsafe_code)]

use alloc::vec;
use core::num::{NonZeroU16, NonZeroUsize};

use drivers::class::net::{ETHERNET_HEADER_BYTES, Frame, NetDevice, Offloads, SendOffload};
use smoltcp::{
    phy::{Checksum, Device, DeviceCapabilities, Medium, PacketMeta, RxToken, TxToken},
    time::Instant,
};

use super::packet;

/// A card, for the time of one call of smoltcp.
pub(super) struct Port<'a> {
    card: &'a dyn NetDevice,
    capabilities: &'a DeviceCapabilities,
    /// The frame that was received, until smoltcp has taken it.
    pub(super) frame: Option<Frame>,
    /// Bytes of the frames to be sent, at most.
    frame_bytes: usize,
    /// There was no room for a frame to be sent.
    pub(super) is_exhausted: bool,
}

/// What smoltcp may leave to the card. What it receives was verified before smoltcp sees it (`packet::classify`).
pub(super) fn capabilities(card: &dyn NetDevice) -> DeviceCapabilities {
    let info = card.info();
    let mut capabilities = DeviceCapabilities::default();
    capabilities.medium = Medium::Ethernet;
    capabilities.max_transmission_unit = usize::from(info.mtu) + ETHERNET_HEADER_BYTES;
    let checksum =
        if info.offloads.contains(Offloads::SEND_CHECKSUM) { Checksum::None } else { Checksum::Tx };
    capabilities.checksum.tcp = checksum;
    capabilities.checksum.udp = checksum;
    // Over IPv4 only: smoltcp 0.14 drops IPv6 packets that are longer than the network takes, also those to be cut.
    let cuts = info.offloads.contains(Offloads::SEND_TCP4);
    capabilities.segmentation.tcpv4 = NonZeroUsize::new(info.max_frame_bytes).filter(|_| cuts);
    capabilities
}

impl<'a> Port<'a> {
    /// With room for frames that the network takes, or for long ones that the card cuts.
    pub(super) fn new(card: &'a dyn NetDevice, capabilities: &'a DeviceCapabilities, is_long: bool) -> Self {
        let long = capabilities.segmentation.tcpv4.filter(|_| is_long);
        let frame_bytes = long.map_or(capabilities.max_transmission_unit, NonZeroUsize::get);
        Self { card, capabilities, frame: None, frame_bytes, is_exhausted: false }
    }
}

impl Device for Port<'_> {
    type RxToken<'b>
        = Received<'b>
    where
        Self: 'b;
    type TxToken<'b>
        = Outgoing<'b>
    where
        Self: 'b;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Outgoing<'_>)> {
        let frame = self.frame.take()?;
        let offloads = self.capabilities.checksum.tcp.tx();
        let answer = Outgoing { card: self.card, frame: None, computes: offloads, data_bytes: None };
        Some((Received { card: self.card, frame }, answer))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_>> {
        let frame = self.card.buffer(self.frame_bytes);
        self.is_exhausted |= frame.is_none();
        let computes = self.capabilities.checksum.tcp.tx();
        Some(Outgoing { card: self.card, frame: Some(frame?), computes, data_bytes: None })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.capabilities.clone()
    }
}

/// A received frame, which goes back to the card when smoltcp has looked at it.
pub(super) struct Received<'a> {
    card: &'a dyn NetDevice,
    frame: Frame,
}

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, look: F) -> R {
        let result = look(self.frame.bytes());
        self.card.recycle(self.frame);
        result
    }
}

/// Room for a frame to be sent.
pub(super) struct Outgoing<'a> {
    card: &'a dyn NetDevice,
    /// None yet for the answer to a received frame, which most frames do not get.
    frame: Option<Frame>,
    /// smoltcp computes checksums, so the card need not.
    computes: bool,
    data_bytes: Option<NonZeroU16>,
}

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, fill: F) -> R {
        let Some(mut frame) = self.frame.or_else(|| self.card.buffer(len)) else {
            // An answer for which there is no room is lost, as it may be on any network.
            return fill(&mut vec![0; len]);
        };
        frame.set_len(len);
        let result = fill(frame.bytes_mut());
        let offload = match self.computes {
            true => SendOffload::default(),
            false => packet::offload(frame.bytes_mut(), self.data_bytes),
        };
        self.card.send(frame, offload);
        result
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.data_bytes = meta.segmentation_offload_size;
    }
}
