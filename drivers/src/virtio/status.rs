//! How far driver and device have come with each other (VirtIO 1.3 §2.1). Neighbours: `init` (who takes the steps).
#![forbid(unsafe_code)]

bitflags::bitflags! {
    /// The device status field (§2.1).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Status: u8 {
        /// The guest has noticed the device.
        #[doc(alias = "VIRTIO_CONFIG_S_ACKNOWLEDGE")]
        const ACKNOWLEDGE = 1;
        /// The guest knows how to drive it.
        #[doc(alias = "VIRTIO_CONFIG_S_DRIVER")]
        const DRIVER = 2;
        /// The driver is set up and ready to drive it.
        #[doc(alias = "VIRTIO_CONFIG_S_DRIVER_OK")]
        const DRIVER_OK = 4;
        /// The driver has chosen its features.
        #[doc(alias = "VIRTIO_CONFIG_S_FEATURES_OK")]
        const FEATURES_OK = 8;
        /// The device cannot go on without a reset.
        #[doc(alias = "VIRTIO_CONFIG_S_NEEDS_RESET")]
        const DEVICE_NEEDS_RESET = 64;
        /// The guest has given up on it.
        #[doc(alias = "VIRTIO_CONFIG_S_FAILED")]
        const FAILED = 128;
    }
}
