//! Fixed ACPI description table: power registers, PM timer, what legacy hardware is missing (ACPI 6.5 §5.2.9).
//! Neighbours: `power` (what is made of it), `time` (PM timer, century, CMOS).
#![forbid(unsafe_code)]

use super::{Error, sdt::Table};
use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned, little_endian as le};

bitflags! {
    /// Fixed feature flags (§5.2.9, table 5.10).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Flags: u32 {
        /// The PM timer has 32 bits, else 24.
        const TMR_VAL_EXT = 1 << 8;
        /// The reset register is there.
        const RESET_REG_SUP = 1 << 10;
        /// No fixed hardware: power off through the sleep control register.
        const HW_REDUCED_ACPI = 1 << 20;
    }

    /// IA-PC boot architecture flags (§5.2.9.3, table 5.11).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct BootFlags: u16 {
        /// There are devices on an ISA or LPC bus.
        const LEGACY_DEVICES = 1 << 0;
        /// There is an i8042 keyboard controller.
        const I8042 = 1 << 1;
        /// No VGA: its ports and memory must not be touched.
        const NO_VGA = 1 << 2;
        /// No CMOS clock.
        const NO_CMOS_RTC = 1 << 5;
    }
}

/// Generic address structure (§5.2.3.2).
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct GenericAddress {
    space: u8,
    bit_width: u8,
    bit_offset: u8,
    access_size: u8,
    address: le::U64,
}

/// Where a register is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// An I/O port.
    Port(u16),
    /// A physical address.
    Memory(u64),
}

impl GenericAddress {
    /// The register, if it is in a space that the kernel reaches and at an address that can be.
    pub fn register(&self) -> Option<Register> {
        let address = self.address.get();
        match self.space {
            _ if address == 0 => None,
            0 => (address < (1 << 52)).then_some(Register::Memory(address)),
            1 => u16::try_from(address).ok().map(Register::Port),
            _ => None,
        }
    }
}

/// What the FADT says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fadt {
    /// Fixed feature flags.
    pub flags: Flags,
    /// Boot flags; tables before revision 2 have none, and a full PC is assumed.
    pub boot_flags: BootFlags,
    /// Physical address of the DSDT.
    pub dsdt: Option<u64>,
    /// Port and value by which the firmware hands over to ACPI mode.
    pub acpi_enable: Option<(u16, u8)>,
    /// PM1a control register.
    pub pm1a_control: Option<Register>,
    /// PM1b control register.
    pub pm1b_control: Option<Register>,
    /// PM timer, 3.579545 MHz.
    pub pm_timer: Option<Register>,
    /// Sleep control register, of hardware-reduced machines.
    pub sleep_control: Option<Register>,
    /// Reset register and the value to write.
    pub reset: Option<(Register, u8)>,
    /// CMOS register that holds the century.
    pub century: Option<u8>,
}

/// Offsets of the fields (table 5.9).
mod offset {
    pub(super) const DSDT: usize = 40;
    pub(super) const SMI_CMD: usize = 48;
    pub(super) const ACPI_ENABLE: usize = 52;
    pub(super) const PM1A_CNT_BLK: usize = 64;
    pub(super) const PM1B_CNT_BLK: usize = 68;
    pub(super) const PM_TMR_BLK: usize = 76;
    pub(super) const CENTURY: usize = 108;
    pub(super) const IAPC_BOOT_ARCH: usize = 109;
    pub(super) const FLAGS: usize = 112;
    pub(super) const RESET_REG: usize = 116;
    pub(super) const RESET_VALUE: usize = 128;
    pub(super) const X_DSDT: usize = 140;
    pub(super) const X_PM1A_CNT_BLK: usize = 172;
    pub(super) const X_PM1B_CNT_BLK: usize = 184;
    pub(super) const X_PM_TMR_BLK: usize = 208;
    pub(super) const SLEEP_CONTROL_REG: usize = 244;
}

/// Bytes of the table as of ACPI 1.0.
const LEN_V1: usize = 116;

impl Fadt {
    /// Reads the table. Fields that a shorter, older table lacks are `None`.
    pub fn parse(table: &Table) -> Result<Self, Error> {
        let bytes = table.bytes();
        if bytes.len() < LEN_V1 {
            return Err(Error::Length { found: bytes.len(), min: LEN_V1, max: super::sdt::MAX_LEN });
        }
        let byte = |offset| field::<u8>(bytes, offset).unwrap_or(0);
        let dword = |offset| field::<le::U32>(bytes, offset).map_or(0, le::U32::get);
        let generic = |offset| field::<GenericAddress>(bytes, offset).and_then(|gas| gas.register());
        let port = |offset| u16::try_from(dword(offset)).ok().filter(|&port| port != 0);
        // The 64-bit field rules where it is filled (§5.2.9).
        let either = |extended, old| generic(extended).or_else(|| port(old).map(Register::Port));

        let revision = bytes.get(8).copied().unwrap_or(1);
        let flags = Flags::from_bits_truncate(dword(offset::FLAGS));
        let boot_flags = match field::<le::U16>(bytes, offset::IAPC_BOOT_ARCH) {
            Some(flags) if revision >= 2 => BootFlags::from_bits_truncate(flags.get()),
            _ => BootFlags::LEGACY_DEVICES | BootFlags::I8042,
        };
        let dsdt = match field::<le::U64>(bytes, offset::X_DSDT).map_or(0, le::U64::get) {
            0 => u64::from(dword(offset::DSDT)),
            address => address,
        };
        let reset = generic(offset::RESET_REG).filter(|_| flags.contains(Flags::RESET_REG_SUP));
        Ok(Self {
            flags,
            boot_flags,
            dsdt: Some(dsdt).filter(|&address| address != 0),
            acpi_enable: port(offset::SMI_CMD)
                .zip(Some(byte(offset::ACPI_ENABLE)).filter(|&value| value != 0)),
            pm1a_control: either(offset::X_PM1A_CNT_BLK, offset::PM1A_CNT_BLK),
            pm1b_control: either(offset::X_PM1B_CNT_BLK, offset::PM1B_CNT_BLK),
            pm_timer: either(offset::X_PM_TMR_BLK, offset::PM_TMR_BLK),
            sleep_control: generic(offset::SLEEP_CONTROL_REG),
            reset: reset.map(|register| (register, byte(offset::RESET_VALUE))),
            century: Some(byte(offset::CENTURY)).filter(|&register| (0x0e..0x80).contains(&register)),
        })
    }
}

fn field<T: FromBytes>(bytes: &[u8], offset: usize) -> Option<T> {
    T::read_from_prefix(bytes.get(offset..)?).ok().map(|(value, _)| value)
}
