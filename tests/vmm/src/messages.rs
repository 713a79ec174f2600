//! A device that sends messages (MSI) where the guest wants them: it writes the address's lower 32 bits to four ports, then
//! the data's lowest byte to the fifth, which sends. Reads there say that it is there.
//!
//! The address has 8 bits for an APIC ID, and, for guests that were told of it (KVM_FEATURE_MSI_EXT_DEST_ID), 7 more in
//! bits 5 to 11, which KVM takes above the address (Linux `Documentation/virt/kvm/api.rst`, KVM_SIGNAL_MSI).

use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use kvm_bindings::kvm_msi;
use kvm_ioctls::VmFd;

use crate::report::Counts;

const FIRST_PORT: u16 = 0x608;
const DATA_PORT: u16 = 0x60c;
/// What the ports read as.
pub(crate) const PRESENT: u8 = 0x4d;
/// Bits 8 to 14 of the destination, in the address.
const FAR: u32 = 0x7f << 5;

/// The device.
pub(crate) struct Messages {
    vm: Arc<VmFd>,
    /// The guest knows of the long destinations.
    long: bool,
    counts: Arc<Counts>,
    address: Mutex<[u8; 4]>,
}

impl Messages {
    pub(crate) fn new(vm: Arc<VmFd>, long: bool, counts: Arc<Counts>) -> Self {
        Self { vm, long, counts, address: Mutex::default() }
    }

    /// Whether `port` is one of its own.
    pub(crate) fn is_at(port: u16) -> bool {
        (FIRST_PORT..=DATA_PORT).contains(&port)
    }

    /// # Errors
    /// KVM takes no such message.
    pub(crate) fn write(&self, port: u16, value: u8) -> Result<()> {
        let mut address = self.address.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(place) = address.get_mut(usize::from(port - FIRST_PORT)) {
            *place = value;
            return Ok(());
        }
        let message = message(u32::from_le_bytes(*address), value, self.long);
        if message.address_hi != 0 {
            Counts::add(&self.counts.far_messages);
        }
        self.vm.signal_msi(message).map(|_| ()).context("KVM_SIGNAL_MSI")
    }
}

fn message(address: u32, data: u8, long: bool) -> kvm_msi {
    let far = if long { address & FAR } else { 0 };
    kvm_msi { address_lo: address & !far, address_hi: far << 3, data: data.into(), ..Default::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_destinations_come_from_bits_that_else_mean_nothing() {
        let far = message(0xfee2_c020, 0x31, true);
        assert_eq!((far.address_lo, far.address_hi, far.data), (0xfee2_c000, 0x100, 0x31));
        let near = message(0xfee2_c020, 0x31, false);
        assert_eq!((near.address_lo, near.address_hi), (0xfee2_c020, 0));
    }
}
