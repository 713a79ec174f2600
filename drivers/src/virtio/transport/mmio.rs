//! VirtIO over MMIO: one block of registers a device, found by firmware or command line (VirtIO 1.3 §4.2).
#![forbid(unsafe_code)]

use super::{Interrupt, Transport};
use crate::{
    error::Error,
    mmio::Mmio,
    virtio::{DeviceId, Status, queue::Addresses},
};

/// "virt", little-endian.
const MAGIC: u32 = 0x7472_6976;
const MODERN: u32 = 2;

/// Registers by their offset (§4.2.2).
mod register {
    pub(super) const MAGIC_VALUE: usize = 0x000;
    pub(super) const VERSION: usize = 0x004;
    pub(super) const DEVICE_ID: usize = 0x008;
    pub(super) const DEVICE_FEATURES: usize = 0x010;
    pub(super) const DEVICE_FEATURES_SEL: usize = 0x014;
    pub(super) const DRIVER_FEATURES: usize = 0x020;
    pub(super) const DRIVER_FEATURES_SEL: usize = 0x024;
    pub(super) const QUEUE_SEL: usize = 0x030;
    pub(super) const QUEUE_SIZE_MAX: usize = 0x034;
    pub(super) const QUEUE_SIZE: usize = 0x038;
    pub(super) const QUEUE_READY: usize = 0x044;
    pub(super) const QUEUE_NOTIFY: usize = 0x050;
    pub(super) const INTERRUPT_STATUS: usize = 0x060;
    pub(super) const INTERRUPT_ACK: usize = 0x064;
    pub(super) const STATUS: usize = 0x070;
    pub(super) const QUEUE_DESC: usize = 0x080;
    pub(super) const QUEUE_DRIVER: usize = 0x090;
    pub(super) const QUEUE_DEVICE: usize = 0x0a0;
    pub(super) const CONFIG_GENERATION: usize = 0x0fc;
    pub(super) const CONFIG: usize = 0x100;
}
use register as r;

/// The registers of a device on the MMIO transport.
#[derive(Debug)]
pub struct MmioTransport {
    registers: Mmio<u8>,
}

impl MmioTransport {
    /// The device behind `registers`; `Ok(None)` where the transport has no device (§4.2.2, DeviceID 0).
    ///
    /// # Errors
    /// Nothing that speaks this protocol is there, or only its legacy form.
    pub fn probe(registers: Mmio<u8>) -> Result<Option<Self>, Error> {
        if registers.len() < r::CONFIG {
            return Err(Error::NoCapability { what: "block of 256 registers" });
        }
        let transport = Self { registers };
        let magic = transport.read(r::MAGIC_VALUE);
        if magic != MAGIC {
            return Err(Error::BadMagic { found: magic });
        }
        // An empty place says its version too, and is not worth a complaint.
        if transport.device_id() == DeviceId(0) {
            return Ok(None);
        }
        match transport.read(r::VERSION) {
            MODERN => Ok(Some(transport)),
            found => Err(Error::Legacy { found }),
        }
    }

    /// A register; all lie inside, as `probe` has checked.
    fn read(&self, register: usize) -> u32 {
        self.registers.read_at(register).unwrap_or(0)
    }

    fn write(&mut self, register: usize, value: u32) {
        let _ = self.registers.write_at(register, value);
    }

    fn write_address(&mut self, register: usize, address: u64) {
        self.write(register, address as u32);
        self.write(register + 4, (address >> 32) as u32);
    }
}

impl Transport for MmioTransport {
    fn device_id(&self) -> DeviceId {
        DeviceId(self.read(r::DEVICE_ID))
    }

    fn device_features(&mut self) -> u64 {
        let mut half = |select| {
            self.write(r::DEVICE_FEATURES_SEL, select);
            u64::from(self.read(r::DEVICE_FEATURES))
        };
        half(0) | half(1) << 32
    }

    fn set_driver_features(&mut self, features: u64) {
        for (select, half) in [(0, features as u32), (1, (features >> 32) as u32)] {
            self.write(r::DRIVER_FEATURES_SEL, select);
            self.write(r::DRIVER_FEATURES, half);
        }
    }

    fn status(&self) -> Status {
        Status::from_bits_retain(self.read(r::STATUS) as u8)
    }

    fn set_status(&mut self, status: Status) {
        self.write(r::STATUS, status.bits().into());
    }

    fn queue_max_size(&mut self, index: u16) -> u32 {
        self.write(r::QUEUE_SEL, index.into());
        self.read(r::QUEUE_SIZE_MAX)
    }

    fn enable_queue(&mut self, index: u16, addresses: &Addresses) -> Result<(), Error> {
        // The steps of §4.2.3.2.
        self.write(r::QUEUE_SEL, index.into());
        if self.read(r::QUEUE_READY) != 0 {
            let found = self.read(r::QUEUE_READY);
            return Err(Error::BadQueue { index, found, expected: "a queue that is not in use" });
        }
        self.write(r::QUEUE_SIZE, addresses.size.into());
        self.write_address(r::QUEUE_DESC, addresses.descriptors);
        self.write_address(r::QUEUE_DRIVER, addresses.driver);
        self.write_address(r::QUEUE_DEVICE, addresses.device);
        self.write(r::QUEUE_READY, 1);
        Ok(())
    }

    /// Not here: QEMU offers the feature on this transport, and has no register QueueReset.
    fn can_reset_queues(&self) -> bool {
        false
    }

    fn reset_queue(&mut self, _index: u16) -> bool {
        false
    }

    fn notify(&mut self, index: u16, position: Option<u16>) {
        let position = u32::from(position.unwrap_or(0)) << 16;
        self.write(r::QUEUE_NOTIFY, u32::from(index) | position);
    }

    fn take_interrupt(&mut self) -> Interrupt {
        let status = self.read(r::INTERRUPT_STATUS);
        if status != 0 {
            self.write(r::INTERRUPT_ACK, status);
        }
        Interrupt::from_bits_truncate(status)
    }

    fn config_generation(&self) -> u32 {
        self.read(r::CONFIG_GENERATION)
    }

    fn config_u8(&self, offset: usize) -> Option<u8> {
        self.registers.read_at(r::CONFIG.checked_add(offset)?)
    }

    fn config_u16(&self, offset: usize) -> Option<u16> {
        self.registers.read_at(r::CONFIG.checked_add(offset)?)
    }

    fn config_u32(&self, offset: usize) -> Option<u32> {
        self.registers.read_at(r::CONFIG.checked_add(offset)?)
    }

    fn set_config_u32(&mut self, offset: usize, value: u32) {
        let _ = r::CONFIG.checked_add(offset).and_then(|offset| self.registers.write_at(offset, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mmio::testing::leaked;

    fn registers(words: &[(usize, u32)]) -> Mmio<u8> {
        let mut bytes = std::vec![0; 0x200];
        for (offset, word) in words {
            bytes[*offset..offset + 4].copy_from_slice(&word.to_le_bytes());
        }
        leaked(bytes).0
    }

    #[test]
    fn only_a_modern_device_is_driven() {
        let probe = |words: &[(usize, u32)]| MmioTransport::probe(registers(words));
        assert!(probe(&[(0, MAGIC), (4, 2), (8, 2)]).unwrap().is_some());
        assert_eq!(probe(&[(0, MAGIC), (4, 1), (8, 2)]).unwrap_err(), Error::Legacy { found: 1 });
        assert_eq!(probe(&[(0, !0)]).unwrap_err(), Error::BadMagic { found: !0 });
        assert!(probe(&[(0, MAGIC), (4, 1), (8, 0)]).unwrap().is_none(), "an empty place");
    }

    #[test]
    fn the_configuration_ends_where_the_registers_end() {
        let transport = MmioTransport::probe(registers(&[(0, MAGIC), (4, 2), (8, 2), (0x1fc, 7)])).unwrap();
        let transport = transport.unwrap();
        assert_eq!((transport.config_u32(0xfc), transport.config_u32(0x100)), (Some(7), None));
        assert_eq!((transport.config_u16(usize::MAX), transport.config_u32(0xfe)), (None, None));
    }
}
