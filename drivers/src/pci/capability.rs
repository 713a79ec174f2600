//! What a function can do: a linked list in its configuration space (PCI §6.7).
#![forbid(unsafe_code)]

use super::{Function, HAS_CAPABILITIES, register};

/// Vendor-specific capability (PCI appendix H).
pub const VENDOR_SPECIFIC: u8 = 0x09;
/// MSI-X (PCI §6.8.2).
pub const MSI_X: u8 = 0x11;

/// Entries that fit: the list lies between the header and byte 256, four bytes each at least.
const MAX_ENTRIES: u8 = 192 / 4;
const FIRST_OFFSET: u16 = 0x40;

/// An entry of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// What it is.
    pub id: u8,
    /// Where it begins.
    pub offset: u16,
}

/// The entries of a function, in the order of the list; a list that does not end is cut.
#[derive(Clone, Debug)]
pub struct Capabilities<'a> {
    function: Function<'a>,
    next: u16,
    left: u8,
}

impl<'a> Function<'a> {
    /// What it can do.
    pub fn capabilities(&self) -> Capabilities<'a> {
        let has_list = self.read(register::COMMAND) & HAS_CAPABILITIES != 0;
        let next = if has_list { self.read(register::CAPABILITIES) as u8 } else { 0 };
        Capabilities { function: *self, next: next.into(), left: MAX_ENTRIES }
    }
}

impl Iterator for Capabilities<'_> {
    type Item = Capability;

    fn next(&mut self) -> Option<Capability> {
        let offset = self.next & !3;
        if offset < FIRST_OFFSET {
            return None;
        }
        self.left = self.left.checked_sub(1)?;
        let header = self.function.read(offset);
        self.next = u16::from((header >> 8) as u8);
        Some(Capability { id: header as u8, offset })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::fake::FakeConfig, *};
    use crate::pci::Address;

    #[test]
    fn a_list_in_a_circle_ends() {
        let address = Address { bus: 0, device: 3, function: 0 };
        let config = FakeConfig::default();
        config.add(address, 1, 2);
        let function = Function::new(&config, address);
        assert_eq!(function.capabilities().count(), 0);
        config.set(address, 4, HAS_CAPABILITIES);
        config.set(address, 0x34, 0x40);
        config.set(address, 0x40, 0x5009);
        config.set(address, 0x50, 0x0011);
        let ids = |function: Function<'_>| function.capabilities().map(|entry| entry.id).collect::<Vec<_>>();
        assert_eq!(ids(function), [VENDOR_SPECIFIC, MSI_X]);
        config.set(address, 0x50, 0x4011);
        assert_eq!(function.capabilities().count(), usize::from(MAX_ENTRIES));
    }
}
