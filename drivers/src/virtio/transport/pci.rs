//! VirtIO over PCI: structures in device memory that vendor-specific capabilities point to (VirtIO 1.3 §4.1).
//!
//! Transitional devices (§4.1.2.1) have these too and are driven as modern ones; legacy-only devices are refused.
//! Neighbours: `pci` (capabilities, BARs, MSI-X), `mmio` (the other transport).
#![forbid(unsafe_code)]

use alloc::vec::Vec;
use core::num::NonZeroU16;

use super::{Interrupt, Transport};
use crate::{
    error::{Error, Field},
    hal::Hal,
    mmio::Mmio,
    pci::{Function, VENDOR_SPECIFIC},
    virtio::{DeviceId, Status, queue::Addresses},
};

/// The vendor of all virtio devices (§4.1.2).
pub const VENDOR: u16 = 0x1af4;
/// A modern device has this plus its kind.
const MODERN_DEVICES: u16 = 0x1040;
/// Transitional devices (§4.1.2.1): PCI device IDs in a row, and the kinds behind.
const TRANSITIONAL: [(u16, u32); 7] =
    [(0x1000, 1), (0x1001, 2), (0x1002, 5), (0x1003, 3), (0x1004, 8), (0x1005, 4), (0x1009, 9)];
/// No MSI-X vector (§4.1.4.3).
#[doc(alias = "VIRTIO_MSI_NO_VECTOR")]
pub const NO_VECTOR: u16 = 0xffff;

/// Structures by the type in their capability (§4.1.4).
const COMMON_CFG: u8 = 1;
const NOTIFY_CFG: u8 = 2;
const ISR_CFG: u8 = 3;
const DEVICE_CFG: u8 = 4;

/// Common configuration by offset (§4.1.4.3).
mod common {
    pub(super) const DEVICE_FEATURE_SELECT: usize = 0;
    pub(super) const DEVICE_FEATURE: usize = 4;
    pub(super) const DRIVER_FEATURE_SELECT: usize = 8;
    pub(super) const DRIVER_FEATURE: usize = 12;
    pub(super) const CONFIG_MSIX_VECTOR: usize = 16;
    pub(super) const DEVICE_STATUS: usize = 20;
    pub(super) const CONFIG_GENERATION: usize = 21;
    pub(super) const QUEUE_SELECT: usize = 22;
    pub(super) const QUEUE_SIZE: usize = 24;
    pub(super) const QUEUE_MSIX_VECTOR: usize = 26;
    pub(super) const QUEUE_ENABLE: usize = 28;
    pub(super) const QUEUE_NOTIFY_OFF: usize = 30;
    pub(super) const QUEUE_DESC: usize = 32;
    pub(super) const QUEUE_DRIVER: usize = 40;
    pub(super) const QUEUE_DEVICE: usize = 48;
    pub(super) const LEN_BYTES: usize = 56;
    /// Only devices with VIRTIO_F_RING_RESET have this one.
    pub(super) const QUEUE_RESET: usize = 58;
}

/// The kind of a virtio device by its PCI IDs; `None` if it is none.
pub fn device_id(vendor: u16, device: u16) -> Option<DeviceId> {
    if vendor != VENDOR {
        return None;
    }
    let transitional = TRANSITIONAL.iter().find(|(id, _)| *id == device).map(|(_, kind)| DeviceId(*kind));
    let modern = (MODERN_DEVICES + 1..MODERN_DEVICES + 64).contains(&device);
    transitional.or(modern.then(|| DeviceId((device - MODERN_DEVICES).into())))
}

/// The registers of a device on the PCI transport.
#[derive(Debug)]
pub struct PciTransport {
    id: DeviceId,
    common: Mmio<u8>,
    notify: Mmio<u8>,
    notify_multiplier: u32,
    /// Where in `notify` each queue that was enabled is notified.
    notify_offsets: Vec<Option<usize>>,
    isr: Mmio<u8>,
    config: Option<Mmio<u8>>,
    vectors: Vectors,
}

/// By which entries of its MSI-X table a device interrupts (§4.1.4.3, §4.1.5.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vectors {
    /// By none: it raises its interrupt line.
    Line,
    /// By entry 0 for everything.
    Shared,
    /// By entry 0 for its configuration, and by so many entries from 1 on for its queues, in turn.
    Queues(NonZeroU16),
}

impl Vectors {
    /// Of a table of `entries`, no more than `queues` of them for queues.
    pub fn of(entries: u16, queues: u16) -> Self {
        match NonZeroU16::new(entries.saturating_sub(1).min(queues)) {
            Some(queues) => Self::Queues(queues),
            None if entries > 0 => Self::Shared,
            None => Self::Line,
        }
    }

    /// The entry of the configuration.
    fn config(self) -> u16 {
        if self == Self::Line { NO_VECTOR } else { 0 }
    }

    /// The entry of queue `index`.
    fn queue(self, index: u16) -> u16 {
        match self {
            Self::Line => NO_VECTOR,
            Self::Shared => 0,
            Self::Queues(count) => 1 + index % count,
        }
    }
}

/// Reads of the register in which a queue's reset must be done.
const QUEUE_RESET_READS: u32 = 100_000;

/// Queues of one device that can be notified: a network card's, with 256 pairs.
pub const MAX_QUEUES: usize = 513;

impl PciTransport {
    /// The device behind `function`, which interrupts as `vectors` says.
    ///
    /// # Errors
    /// It is no virtio device, or not a modern one, or its structures are not where device memory is.
    pub fn probe(function: &Function<'_>, hal: &dyn Hal, vectors: Vectors) -> Result<Self, Error> {
        let (vendor, device) = function.id();
        let id = device_id(vendor, device).ok_or(Error::NoCapability { what: "virtio device ID" })?;
        let structure = |kind: u8, what: &'static str, least: usize| {
            find(function, hal, kind, least)?.ok_or(Error::NoCapability { what })
        };
        let (common, _) = structure(COMMON_CFG, "virtio common configuration", common::LEN_BYTES)?;
        let (notify, multiplier_at) = structure(NOTIFY_CFG, "virtio notification structure", 2)?;
        let (isr, _) = structure(ISR_CFG, "virtio ISR status", 1)?;
        let config = find(function, hal, DEVICE_CFG, 1)?.map(|(config, _)| config);
        let notify_multiplier = function.read(multiplier_at);
        Ok(Self { id, common, notify, notify_multiplier, notify_offsets: Vec::new(), isr, config, vectors })
    }

    /// Fields of the common configuration lie inside, as `find` has checked.
    fn read8(&self, field: usize) -> u8 {
        self.common.read_at(field).unwrap_or(0)
    }

    fn read16(&self, field: usize) -> u16 {
        self.common.read_at(field).unwrap_or(0)
    }

    fn write16(&mut self, field: usize, value: u16) {
        let _ = self.common.write_at(field, value);
    }

    fn write32(&mut self, field: usize, value: u32) {
        let _ = self.common.write_at(field, value);
    }

    fn write_address(&mut self, field: usize, address: u64) {
        self.write32(field, address as u32);
        self.write32(field + 4, (address >> 32) as u32);
    }

    /// Writes a vector; a device that has no resources for it reads back as none (§4.1.4.3.2).
    fn set_vector(&mut self, field: usize, vector: u16) -> Result<(), Error> {
        // Without MSI-X the device has no such field: it reads as anything (§4.1.4.3).
        if vector == NO_VECTOR {
            return Ok(());
        }
        self.write16(field, vector);
        match self.read16(field) {
            found if found == vector => Ok(()),
            found => {
                let field = &Field { name: "MSI-X vector", expected: "the one that was written" };
                Err(Error::BadConfig { field, found: found.into() })
            }
        }
    }
}

/// The first capability of `kind` whose structure can be reached, and the offset of what follows it (§4.1.4).
fn find(
    function: &Function<'_>,
    hal: &dyn Hal,
    kind: u8,
    least: usize,
) -> Result<Option<(Mmio<u8>, u16)>, Error> {
    for capability in function.capabilities().filter(|capability| capability.id == VENDOR_SPECIFIC) {
        let at = capability.offset;
        let (first, bar) = (function.read(at), function.read(at + 4));
        let (offset, len) = (function.read(at + 8), function.read(at + 12));
        if (first >> 24) as u8 != kind || (len as usize) < least {
            continue;
        }
        let Some(bar) = function.memory_bar(bar as u8) else { continue };
        let Some(address) = bar.part(offset.into(), len.into()) else { continue };
        return Ok(Some((hal.device_memory(address, len as usize)?, at + 16)));
    }
    Ok(None)
}

impl Transport for PciTransport {
    fn device_id(&self) -> DeviceId {
        self.id
    }

    fn device_features(&mut self) -> u64 {
        let mut half = |select| {
            self.write32(common::DEVICE_FEATURE_SELECT, select);
            u64::from(self.common.read_at::<u32>(common::DEVICE_FEATURE).unwrap_or(0))
        };
        half(0) | half(1) << 32
    }

    fn set_driver_features(&mut self, features: u64) {
        for (select, half) in [(0, features as u32), (1, (features >> 32) as u32)] {
            self.write32(common::DRIVER_FEATURE_SELECT, select);
            self.write32(common::DRIVER_FEATURE, half);
        }
    }

    fn status(&self) -> Status {
        Status::from_bits_retain(self.read8(common::DEVICE_STATUS))
    }

    fn set_status(&mut self, status: Status) {
        let _ = self.common.write_at(common::DEVICE_STATUS, status.bits());
    }

    fn queue_max_size(&mut self, index: u16) -> u32 {
        self.write16(common::QUEUE_SELECT, index);
        self.read16(common::QUEUE_SIZE).into()
    }

    fn enable_queue(&mut self, index: u16, addresses: &Addresses) -> Result<(), Error> {
        self.write16(common::QUEUE_SELECT, index);
        let offset = u64::from(self.read16(common::QUEUE_NOTIFY_OFF)) * u64::from(self.notify_multiplier);
        let bad = Error::BadQueue { index, found: offset as u32, expected: "a place to notify it at" };
        let place =
            usize::try_from(offset).ok().filter(|&offset| offset.saturating_add(2) <= self.notify.len());
        let index = usize::from(index);
        if index >= MAX_QUEUES {
            return Err(bad);
        }
        self.notify_offsets.resize(self.notify_offsets.len().max(index + 1), None);
        self.notify_offsets[index] = Some(place.ok_or(bad)?);
        self.set_vector(common::CONFIG_MSIX_VECTOR, self.vectors.config())?;
        self.set_vector(common::QUEUE_MSIX_VECTOR, self.vectors.queue(index as u16))?;
        self.write16(common::QUEUE_SIZE, addresses.size);
        self.write_address(common::QUEUE_DESC, addresses.descriptors);
        self.write_address(common::QUEUE_DRIVER, addresses.driver);
        self.write_address(common::QUEUE_DEVICE, addresses.device);
        self.write16(common::QUEUE_ENABLE, 1);
        Ok(())
    }

    fn can_reset_queues(&self) -> bool {
        self.common.len() >= common::QUEUE_RESET + 2
    }

    /// §4.1.4.3.2: the register reads 0 once the reset is done.
    fn reset_queue(&mut self, index: u16) -> bool {
        self.write16(common::QUEUE_SELECT, index);
        self.write16(common::QUEUE_RESET, 1);
        (0..QUEUE_RESET_READS).any(|_| self.read16(common::QUEUE_RESET) == 0)
    }

    fn notify(&mut self, index: u16, position: Option<u16>) {
        let place = self.notify_offsets.get(usize::from(index)).copied().flatten();
        let Some(place) = place else { return };
        let _ = match position {
            None => self.notify.write_at(place, index),
            Some(position) => self.notify.write_at(place, u32::from(index) | u32::from(position) << 16),
        };
    }

    /// With MSI-X the status is not kept by the device (§4.1.4.5.1): the message says all.
    fn take_interrupt(&mut self) -> Interrupt {
        match self.vectors {
            Vectors::Line => Interrupt::from_bits_truncate(self.isr.read_at::<u8>(0).unwrap_or(0).into()),
            _ => Interrupt::QUEUE | Interrupt::CONFIG,
        }
    }

    fn config_generation(&self) -> u32 {
        self.read8(common::CONFIG_GENERATION).into()
    }

    fn config_u8(&self, offset: usize) -> Option<u8> {
        self.config.as_ref()?.read_at(offset)
    }

    fn config_u16(&self, offset: usize) -> Option<u16> {
        self.config.as_ref()?.read_at(offset)
    }

    fn config_u32(&self, offset: usize) -> Option<u32> {
        self.config.as_ref()?.read_at(offset)
    }

    fn set_config_u32(&mut self, offset: usize, value: u32) {
        let _ = self.config.as_mut().and_then(|config| config.write_at(offset, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_share_the_vectors_that_there_are() {
        let entries =
            |vectors: Vectors| (vectors.config(), vectors.queue(0), vectors.queue(1), vectors.queue(2));
        assert_eq!(entries(Vectors::of(0, 9)), (NO_VECTOR, NO_VECTOR, NO_VECTOR, NO_VECTOR));
        assert_eq!(entries(Vectors::of(1, 9)), (0, 0, 0, 0));
        assert_eq!(entries(Vectors::of(3, 9)), (0, 1, 2, 1));
        assert_eq!(entries(Vectors::of(9, 1)), (0, 1, 1, 1));
    }
}
