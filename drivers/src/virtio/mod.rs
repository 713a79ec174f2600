//! VirtIO 1.3: devices that hypervisors offer instead of emulated hardware.
//!
//! Reads in this order: [`transport`] (registers, over PCI or MMIO) · [`status`] and [`features`] (the handshake,
//! §3.1.1) · [`queue`] (rings shared with the device, split and packed) · `requests` (what waits for an answer) ·
//! `device` (one that runs) · one file a device: [`block`], [`entropy`], [`net`], [`console`], [`balloon`].
//!
//! Nothing that a device writes is trusted: a ring entry, a length or an index that cannot be true is a [`Fault`].
//! The device is reset then, what it was asked for fails, and the guest goes on without it. "§" without more means
//! "Virtual I/O Device (VIRTIO) Version 1.3".
#![forbid(unsafe_code)]

pub mod features;
pub mod queue;
pub mod status;
pub mod transport;

mod device;
mod init;
mod requests;

pub mod balloon;
pub mod block;
pub mod console;
pub mod entropy;
pub mod net;

#[cfg(any(test, feature = "script"))]
pub(crate) mod fake;
#[cfg(any(test, feature = "script"))]
pub mod script;
#[cfg(test)]
mod tests;

pub use features::Features;
pub use init::Init;
pub use requests::Token;
pub use status::Status;

/// What kind of device it is (§5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceId(pub u32);

impl DeviceId {
    /// Network card (§5.1).
    #[doc(alias = "VIRTIO_ID_NET")]
    pub const NET: Self = Self(1);
    /// Block device (§5.2).
    #[doc(alias = "VIRTIO_ID_BLOCK")]
    pub const BLOCK: Self = Self(2);
    /// Console (§5.3).
    #[doc(alias = "VIRTIO_ID_CONSOLE")]
    pub const CONSOLE: Self = Self(3);
    /// Entropy source (§5.4).
    #[doc(alias = "VIRTIO_ID_RNG")]
    pub const ENTROPY: Self = Self(4);
    /// Memory balloon (§5.5).
    #[doc(alias = "VIRTIO_ID_BALLOON")]
    pub const BALLOON: Self = Self(5);

    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::NET => "net",
            Self::BLOCK => "blk",
            Self::CONSOLE => "console",
            Self::ENTROPY => "rng",
            Self::BALLOON => "balloon",
            _ => "device of another kind",
        }
    }
}

/// What a device did that none may do. It is reset, and not used any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The ring says that more was used than was made available (§2.7.8, §2.8.6).
    #[error("{used} buffers used of {in_flight} that it has")]
    UsedTooMany {
        /// Steps of the ring's index.
        used: u16,
        /// What the device has.
        in_flight: u16,
    },
    /// A used entry names a buffer that the device does not have.
    #[error("buffer {id} used, which it does not have")]
    UsedId {
        /// The entry's id.
        id: u32,
    },
    /// A used entry claims more bytes than the buffer has for the device to write.
    #[error("{found} bytes written to a buffer for {limit}")]
    UsedLength {
        /// The entry's length.
        found: u32,
        /// Bytes that the device may write.
        limit: u32,
    },
    /// A received frame has fewer buffers than its header says, or a header that is cut (§5.1.6.4).
    #[error("a frame of {found} buffers, of which the header says {told}")]
    FrameBuffers {
        /// Buffers that were used.
        found: u16,
        /// What `num_buffers` says.
        told: u16,
    },
    /// The device asks for a reset (§2.1.1, DEVICE_NEEDS_RESET).
    #[error("it asks for a reset")]
    NeedsReset,
}
