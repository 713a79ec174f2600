//! Feature bits that every kind of device may have (VirtIO 1.3 §6). Those of one kind are in its file.
#![forbid(unsafe_code)]

bitflags::bitflags! {
    /// Features; bits 0 to 23 and 50 to 63 belong to the kind of device (§2.2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Features: u64 {
        /// Descriptors may point to tables of descriptors (§2.7.5.3, §2.8.7).
        #[doc(alias = "VIRTIO_F_INDIRECT_DESC")]
        const INDIRECT_DESC = 1 << 28;
        /// Each side says at which index it wants to be told (§2.7.7, §2.7.10, §2.8.10).
        #[doc(alias = "VIRTIO_F_EVENT_IDX")]
        const EVENT_IDX = 1 << 29;
        /// Not a legacy device.
        #[doc(alias = "VIRTIO_F_VERSION_1")]
        const VERSION_1 = 1 << 32;
        /// Addresses are those of the platform's bus, not physical ones.
        #[doc(alias = "VIRTIO_F_ACCESS_PLATFORM")]
        const ACCESS_PLATFORM = 1 << 33;
        /// Packed virtqueues (§2.8).
        #[doc(alias = "VIRTIO_F_RING_PACKED")]
        const RING_PACKED = 1 << 34;
        /// Buffers are used in the order in which they were made available (§2.7.9, §2.8.9).
        #[doc(alias = "VIRTIO_F_IN_ORDER")]
        const IN_ORDER = 1 << 35;
        /// Memory accesses are ordered as the platform orders them for devices, not for CPUs.
        #[doc(alias = "VIRTIO_F_ORDER_PLATFORM")]
        const ORDER_PLATFORM = 1 << 36;
        /// Notifications tell how far the ring has come (§2.9).
        #[doc(alias = "VIRTIO_F_NOTIFICATION_DATA")]
        const NOTIFICATION_DATA = 1 << 38;
        /// A queue can be reset without its device (§2.6.1).
        #[doc(alias = "VIRTIO_F_RING_RESET")]
        const RING_RESET = 1 << 40;
        const _ = !0;
    }
}

impl Features {
    /// What the transport and the queues here can do, whatever the device is. ACCESS_PLATFORM and ORDER_PLATFORM
    /// are kept always: `hal` gives addresses of the bus, and the barriers of `queue` order accesses to ordinary
    /// memory on x86 for devices as for CPUs.
    pub const TRANSPORT: Self = Self::INDIRECT_DESC
        .union(Self::EVENT_IDX)
        .union(Self::VERSION_1)
        .union(Self::ACCESS_PLATFORM)
        .union(Self::RING_PACKED)
        .union(Self::IN_ORDER)
        .union(Self::ORDER_PLATFORM)
        .union(Self::NOTIFICATION_DATA)
        .union(Self::RING_RESET);

    /// The names of those that concern the rings, for a log line.
    pub fn ring_names(self) -> impl Iterator<Item = &'static str> {
        let names = [
            (Self::RING_PACKED, "packed"),
            (Self::INDIRECT_DESC, "indirect"),
            (Self::EVENT_IDX, "event index"),
            (Self::IN_ORDER, "in order"),
            (Self::NOTIFICATION_DATA, "notification data"),
            (Self::RING_RESET, "ring reset"),
        ];
        names.into_iter().filter(move |(feature, _)| self.contains(*feature)).map(|(_, name)| name)
    }
}
