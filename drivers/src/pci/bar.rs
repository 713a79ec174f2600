//! Base address registers: where a function answers in memory (PCI §6.2.5.1).
#![forbid(unsafe_code)]

use super::{Function, MEMORY_SPACE, register};

/// Registers of an ordinary header.
const BARS: u8 = 6;
/// Low bits of a register.
const IO_SPACE: u32 = 1;
const TYPE: u32 = 0b110;
const TYPE_64_BIT: u32 = 0b100;
const FLAGS: u64 = 0xf;

/// A range of memory in which a function answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryBar {
    /// Physical address of the first byte.
    pub address: u64,
    /// Bytes: a power of two.
    pub len_bytes: u64,
}

impl MemoryBar {
    /// The address of `len_bytes` bytes from `offset`, if they lie inside.
    pub fn part(&self, offset: u64, len_bytes: u64) -> Option<u64> {
        offset.checked_add(len_bytes).filter(|&end| end <= self.len_bytes)?;
        self.address.checked_add(offset)
    }
}

impl Function<'_> {
    /// The memory behind register `index`; `None` if there is none: no such register, I/O ports, not set up by the
    /// firmware, or a range that cannot be.
    pub fn memory_bar(&self, index: u8) -> Option<MemoryBar> {
        if index >= BARS {
            return None;
        }
        let offset = register::FIRST_BAR + 4 * u16::from(index);
        let low = self.read(offset);
        if low & IO_SPACE != 0 {
            return None;
        }
        let is_64_bit = low & TYPE == TYPE_64_BIT;
        if is_64_bit && index + 1 >= BARS {
            return None;
        }
        let read = || {
            let high = if is_64_bit { self.read(offset + 4) } else { 0 };
            u64::from(high) << 32 | u64::from(self.read(offset))
        };
        let write = |value: u64| {
            self.write(offset, value as u32);
            if is_64_bit {
                self.write(offset + 4, (value >> 32) as u32);
            }
        };
        // The size is what cannot be written; meanwhile the function answers nowhere.
        let value = read();
        let command = self.read(register::COMMAND);
        self.update_command(0, MEMORY_SPACE);
        write(u64::MAX);
        let mask = read() & !FLAGS;
        write(value);
        self.update_command(command & MEMORY_SPACE, 0);
        let mask = if is_64_bit { mask } else { mask | 0xffff_ffff_0000_0000 };
        let (address, len_bytes) = (value & !FLAGS, (!mask).wrapping_add(1));
        let is_sane = address != 0
            && len_bytes.is_power_of_two()
            && address.is_multiple_of(len_bytes)
            && address.checked_add(len_bytes).is_some();
        is_sane.then_some(MemoryBar { address, len_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::fake::FakeConfig, *};
    use crate::pci::{Address, ConfigAccess};

    const ADDRESS: Address = Address { bus: 0, device: 3, function: 0 };

    #[test]
    fn a_bar_is_sized_and_left_as_it_was() {
        let config = FakeConfig::default();
        config.add(ADDRESS, 1, 2);
        config.set(ADDRESS, 4, 2);
        config.set_bar(ADDRESS, 0x10, 0xfebf_1000, 0xffff_f000);
        config.set_bar(ADDRESS, 0x20, 0x4000_000c, 0xffff_c000);
        config.set_bar(ADDRESS, 0x24, 0x80, 0xffff_ffff);
        let function = Function::new(&config, ADDRESS);
        assert_eq!(function.memory_bar(0), Some(MemoryBar { address: 0xfebf_1000, len_bytes: 0x1000 }));
        assert_eq!(function.memory_bar(4), Some(MemoryBar { address: 0x80_4000_0000, len_bytes: 0x4000 }));
        assert_eq!((config.read(ADDRESS, 4), config.read(ADDRESS, 0x20)), (2, 0x4000_000c));
    }

    #[test]
    fn what_is_no_memory_is_no_bar() {
        let config = FakeConfig::default();
        config.add(ADDRESS, 1, 2);
        config.set_bar(ADDRESS, 0x10, 0xc001, 0xffff_fffc);
        config.set_bar(ADDRESS, 0x14, 0xfebf_1000, 0xffff_0f00);
        config.set_bar(ADDRESS, 0x24, 0xfebf_1004, 0xffff_f000);
        let function = Function::new(&config, ADDRESS);
        assert!((0..=255).all(|index| function.memory_bar(index).is_none()));
    }

    #[test]
    fn a_part_lies_inside() {
        let bar = MemoryBar { address: 0x1000, len_bytes: 0x1000 };
        assert_eq!(bar.part(0xff0, 0x10), Some(0x1ff0));
        assert_eq!((bar.part(0xff1, 0x10), bar.part(u64::MAX, 1)), (None, None));
    }
}
