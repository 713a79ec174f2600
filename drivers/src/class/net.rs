//! A network card as the kernel sees it: Ethernet frames in and out, with what the card computes for them.
//!
//! Frames are not copied: each is a buffer that changes hands. Everything is done in batches: frames are taken and sent
//! one by one, but the device hears of it at [`NetDevice::flush`] only, and interrupts only when somebody
//! [waits](NetDevice::wait). A card may have several queues, one a CPU: a frame is sent by the queue of the CPU that asks for
//! room, and what comes is taken from each queue by who likes, each by another task or all by one.
//! Neighbours: `virtio::net` (a driver), the kernel's `net` (the protocols).
#![forbid(unsafe_code)]

use core::task::Waker;

use crate::{dma::DmaBuffer, error::Error};

/// Bytes of an Ethernet header: two addresses and a type.
pub const ETHERNET_HEADER_BYTES: usize = 14;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// Whether it can be the address of one card: neither a group's nor nobody's.
    pub fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl core::fmt::Display for MacAddress {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(out, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

bitflags::bitflags! {
    /// What the card computes in the CPU's place.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Offloads: u8 {
        /// Checksums of TCP and UDP in frames that are sent.
        const SEND_CHECKSUM = 1;
        /// Cuts long TCP segments over IPv4 into short ones.
        const SEND_TCP4 = 1 << 1;
        /// Cuts long TCP segments over IPv6 into short ones.
        const SEND_TCP6 = 1 << 2;
        /// Tells of received frames that their checksum is right.
        const RECEIVE_CHECKSUM = 1 << 3;
        /// Joins short TCP segments to long ones.
        const RECEIVE_TCP = 1 << 4;
    }
}

/// What a card is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetInfo {
    /// Its address.
    pub mac: MacAddress,
    /// Bytes behind the Ethernet header that the network takes in one frame.
    pub mtu: u16,
    /// The cable is in, and the card works.
    pub link_up: bool,
    /// What it computes.
    pub offloads: Offloads,
    /// Bytes of the longest frame that [`NetDevice::buffer`] has room for: more than `mtu` where it cuts segments.
    pub max_frame_bytes: usize,
}

/// A frame in a buffer: one that was received, or room for one to be sent.
#[derive(Debug)]
pub struct Frame {
    pub(crate) buffer: DmaBuffer,
    /// Bytes of the buffer before the frame, which are the driver's.
    pub(crate) start: usize,
    pub(crate) checksum_is_good: bool,
    pub(crate) home: Home,
    /// The queue that it is of.
    pub(crate) queue: u16,
}

/// Where a frame's buffer goes when it is not needed any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Home {
    /// To the device, for one more frame.
    Receive,
    /// To where frames are put together.
    Merged,
    /// To the buffers for frames to be sent.
    Transmit,
}

impl Frame {
    /// From the Ethernet header on.
    pub fn bytes(&self) -> &[u8] {
        self.buffer.bytes().get(self.start..).unwrap_or_default()
    }

    /// From the Ethernet header on, to be changed.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.buffer.bytes_mut().get_mut(self.start..).unwrap_or_default()
    }

    /// Makes it `len` bytes long, or as long as there is room for.
    pub fn set_len(&mut self, len: usize) {
        self.buffer.set_len(self.start.saturating_add(len));
    }

    /// The card says that the checksum of TCP or UDP is right, or that the sender is on this host and did not compute
    /// one. Nobody need look at it.
    pub fn checksum_is_good(&self) -> bool {
        self.checksum_is_good
    }
}

/// For cards that a test plays.
#[cfg(any(test, feature = "script"))]
impl Frame {
    /// Room for `len` bytes that no card has made.
    pub fn of_nobody(len: usize) -> Self {
        let (memory, _) = crate::dma::testing::shared(0, len, alloc::boxed::Box::new(()));
        let (home, queue) = (Home::Transmit, 0);
        Self { buffer: DmaBuffer::new(memory), start: 0, checksum_is_good: false, home, queue }
    }
}

/// What the card is to compute for a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendOffload {
    /// The checksum from byte `start` of the frame on goes to `start + offset`, where the sum of the pseudo header stands.
    pub checksum: Option<ChecksumPlace>,
    /// The frame is a TCP segment that is to be cut.
    pub segments: Option<Segments>,
}

/// Which bytes a checksum is about and where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChecksumPlace {
    /// First byte of the frame that it is about.
    pub start: u16,
    /// Where it goes, from there.
    pub offset: u16,
}

/// How to cut a TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segments {
    /// Bytes of data in each but the last; not 0.
    pub data_bytes: u16,
    /// Bytes of headers, which each gets: Ethernet, IP, TCP.
    pub header_bytes: u16,
    /// The IP version is 6, else 4.
    pub is_ipv6: bool,
}

/// What a card may be told beside frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control<'a> {
    /// Takes all frames, whoever they are for.
    Promiscuous(bool),
    /// Takes all frames for groups.
    AllMulticast(bool),
    /// Takes frames for its own address, and for these groups.
    Multicast(&'a [MacAddress]),
    /// Changes its address.
    Mac(MacAddress),
    /// Takes frames of this VLAN, 1 to 4094, or does not any more.
    Vlan(u16, bool),
}

/// What was sent to and fro so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetCounts {
    /// Frames received.
    pub received: u64,
    /// Frames sent.
    pub sent: u64,
    /// Frames of which the device had more to tell than fits, or nothing that makes sense.
    pub dropped: u64,
    /// Notifications sent to the device.
    pub notifications: u64,
    /// Interrupts that came.
    pub interrupts: u64,
    /// Of them, those that came to the CPU whose queue it was.
    pub own_interrupts: u64,
}

impl core::iter::Sum for NetCounts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |sum, more| Self {
            received: sum.received + more.received,
            sent: sum.sent + more.sent,
            dropped: sum.dropped + more.dropped,
            notifications: sum.notifications + more.notifications,
            interrupts: sum.interrupts + more.interrupts,
            own_interrupts: sum.own_interrupts + more.own_interrupts,
        })
    }
}

/// A network card.
pub trait NetDevice: Send + Sync {
    /// What it is like now; link and address may change.
    fn info(&self) -> NetInfo;

    /// Queues in use, for each direction: their numbers are below this.
    fn queues(&self) -> u16;

    /// Takes the next frame that was received in queue `queue`. It must be given to [`recycle`](Self::recycle) soon: buffers
    /// are few.
    fn receive(&self, queue: u16) -> Option<Frame>;

    /// Gives the buffer of a received frame, or of one that is not to be sent, back to the card.
    fn recycle(&self, frame: Frame);

    /// Room for a frame of `len` bytes in the queue of this CPU, to be filled and sent; `None` while there is none, and for
    /// more than [`NetInfo::max_frame_bytes`].
    fn buffer(&self, len: usize) -> Option<Frame>;

    /// Sends a frame that [`buffer`](Self::buffer) made room for.
    fn send(&self, frame: Frame, offload: SendOffload);

    /// Lets the device know of everything that was sent and recycled since.
    fn flush(&self);

    /// Calls `waker` when a frame is there in queue `queue`, when there is room again to send by it where there was none, or
    /// when [`info`](Self::info) has changed; false if a frame or room is there already. One can wait for a queue at a time.
    fn wait(&self, queue: u16, waker: &Waker) -> bool;

    /// The same for all queues.
    fn wait_for_all(&self, waker: &Waker) -> bool {
        (0..self.queues()).all(|queue| self.wait(queue, waker))
    }

    /// Tells the card something, and waits for a bounded time until it has taken it.
    ///
    /// # Errors
    /// The card cannot, will not, or does not answer.
    fn control(&self, control: Control<'_>) -> Result<(), Error>;

    /// Whether the guest should tell the network where it is, as after it was moved; each wish is told once.
    fn take_announcement(&self) -> bool;

    /// What was sent to and fro so far by queue `queue`.
    fn queue_counts(&self, queue: u16) -> NetCounts;

    /// What was sent to and fro so far.
    fn counts(&self) -> NetCounts {
        (0..self.queues()).map(|queue| self.queue_counts(queue)).sum()
    }
}
