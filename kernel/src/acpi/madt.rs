//! Multiple APIC description table: CPUs and interrupt controllers (ACPI 6.5 §5.2.12).
//! Neighbours: `irq::ioapic` and `irq::apic` (who use it).
#![forbid(unsafe_code)]

use super::{Error, sdt::Header, sdt::Table};
use alloc::vec::Vec;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned, little_endian as le};

/// What the MADT says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Madt {
    /// Physical address of every CPU's local APIC, if it is a sane one.
    pub local_apic: Option<u64>,
    /// A PC-compatible pair of 8259 controllers is there, too (`PCAT_COMPAT`).
    pub has_pic: bool,
    /// CPUs, each APIC ID once, in the firmware's order.
    pub processors: Vec<Processor>,
    /// I/O APICs, each first line once.
    pub io_apics: Vec<IoApic>,
    /// Where ISA interrupts go when not to the line of the same number.
    pub overrides: [Option<Override>; 16],
    /// Local APIC pins that carry a non-maskable interrupt.
    pub nmis: Vec<LocalNmi>,
}

/// A CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processor {
    /// APIC ID: above 254 only in x2APIC mode.
    pub apic_id: u32,
    /// May be started now; else only after the firmware added it (`Online Capable`).
    pub enabled: bool,
}

/// An I/O APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoApic {
    /// Its ID register.
    pub id: u8,
    /// Physical address of its registers.
    pub address: u64,
    /// The global system interrupt of its first line.
    pub first_gsi: u32,
}

/// How a line signals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signal {
    /// Level triggered, else edge.
    pub level: bool,
    /// Active low, else high.
    pub active_low: bool,
}

/// Interrupt source override (§5.2.12.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Override {
    /// The line on which this ISA interrupt arrives.
    pub gsi: u32,
    /// How it signals there.
    pub signal: Signal,
}

/// Local APIC NMI (§5.2.12.7, §5.2.12.13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalNmi {
    /// The CPU's ACPI UID; `None` for all.
    pub processor_uid: Option<u32>,
    /// Pin LINT0 or LINT1.
    pub lint: u8,
    /// Active low, else high.
    pub active_low: bool,
}

/// CPUs, I/O APICs and NMIs kept at most.
const MAX_PROCESSORS: usize = 1024;
const MAX_OTHERS: usize = 64;

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Fixed {
    header: Header,
    local_apic: le::U32,
    flags: le::U32,
}

const FLAG_PCAT_COMPAT: u32 = 1;
const LAPIC_ENABLED: u32 = 1;
const LAPIC_ONLINE_CAPABLE: u32 = 2;

#[derive(FromBytes)]
#[repr(C)]
struct LocalApicEntry {
    uid: u8,
    apic_id: u8,
    flags: le::U32,
}

#[derive(FromBytes)]
#[repr(C)]
struct IoApicEntry {
    id: u8,
    reserved: u8,
    address: le::U32,
    first_gsi: le::U32,
}

#[derive(FromBytes)]
#[repr(C)]
struct OverrideEntry {
    bus: u8,
    source: u8,
    gsi: le::U32,
    flags: le::U16,
}

#[derive(FromBytes)]
#[repr(C)]
struct LocalNmiEntry {
    uid: u8,
    flags: le::U16,
    lint: u8,
}

#[derive(FromBytes)]
#[repr(C)]
struct AddressEntry {
    reserved: [u8; 2],
    address: le::U64,
}

#[derive(FromBytes)]
#[repr(C)]
struct X2ApicEntry {
    reserved: [u8; 2],
    apic_id: le::U32,
    flags: le::U32,
    uid: le::U32,
}

#[derive(FromBytes)]
#[repr(C)]
struct X2ApicNmiEntry {
    flags: le::U16,
    uid: le::U32,
    lint: u8,
    reserved: [u8; 3],
}

impl Madt {
    /// Reads the table. An entry that does not fit ends the list; one that makes no sense is skipped.
    pub fn parse(table: &Table) -> Result<Self, Error> {
        let (fixed, entries) = table.fixed::<Fixed>()?;
        let mut madt = Self {
            local_apic: register_page(fixed.local_apic.get().into()),
            has_pic: fixed.flags.get() & FLAG_PCAT_COMPAT != 0,
            ..Self::default()
        };
        for (kind, body) in Entries(entries) {
            if madt.take(kind, body).is_none() {
                log::warn!("ACPI: MADT entry of type {kind} with {} bytes: ignored", body.len() + 2);
            }
        }
        Ok(madt)
    }

    /// Takes one entry over. `None` means that it is too short or makes no sense.
    fn take(&mut self, kind: u8, body: &[u8]) -> Option<()> {
        match kind {
            0 => {
                let entry = read::<LocalApicEntry>(body)?;
                if entry.apic_id != u8::MAX {
                    self.add_processor(entry.apic_id.into(), entry.flags.get());
                }
            }
            1 => {
                let entry = read::<IoApicEntry>(body)?;
                let io_apic = IoApic {
                    id: entry.id,
                    address: register_page(entry.address.get().into())?,
                    first_gsi: entry.first_gsi.get(),
                };
                let known = self
                    .io_apics
                    .iter()
                    .any(|other| other.first_gsi == io_apic.first_gsi || other.address == io_apic.address);
                if !known && self.io_apics.len() < MAX_OTHERS {
                    self.io_apics.push(io_apic);
                }
            }
            2 => {
                let entry = read::<OverrideEntry>(body)?;
                let slot = self.overrides.get_mut(usize::from(entry.source))?;
                let signal = Signal::from_flags(entry.flags.get());
                *slot = Some(Override { gsi: entry.gsi.get(), signal }).filter(|_| entry.bus == 0);
            }
            4 => {
                let entry = read::<LocalNmiEntry>(body)?;
                let uid = Some(entry.uid).filter(|&uid| uid != u8::MAX).map(u32::from);
                self.add_nmi(uid, entry.flags.get(), entry.lint)?;
            }
            5 => self.local_apic = Some(register_page(read::<AddressEntry>(body)?.address.get())?),
            9 => {
                let entry = read::<X2ApicEntry>(body)?;
                if entry.apic_id.get() != u32::MAX {
                    self.add_processor(entry.apic_id.get(), entry.flags.get());
                }
            }
            10 => {
                let entry = read::<X2ApicNmiEntry>(body)?;
                let uid = Some(entry.uid.get()).filter(|&uid| uid != u32::MAX);
                self.add_nmi(uid, entry.flags.get(), entry.lint)?;
            }
            _ => {}
        }
        Some(())
    }

    fn add_processor(&mut self, apic_id: u32, flags: u32) {
        let usable = flags & (LAPIC_ENABLED | LAPIC_ONLINE_CAPABLE) != 0;
        let known = self.processors.iter().any(|other| other.apic_id == apic_id);
        if usable && !known && self.processors.len() < MAX_PROCESSORS {
            self.processors.push(Processor { apic_id, enabled: flags & LAPIC_ENABLED != 0 });
        }
    }

    fn add_nmi(&mut self, processor_uid: Option<u32>, flags: u16, lint: u8) -> Option<()> {
        if lint > 1 {
            return None;
        }
        if self.nmis.len() < MAX_OTHERS {
            let active_low = Signal::from_flags(flags).active_low;
            self.nmis.push(LocalNmi { processor_uid, lint, active_low });
        }
        Some(())
    }

    /// Where ISA interrupt `irq` arrives, and how it signals there: its override, else the line of the same
    /// number, edge triggered and active high as the ISA bus has it.
    pub fn isa_line(&self, irq: u8) -> (u32, Signal) {
        match self.overrides.get(usize::from(irq)).copied().flatten() {
            Some(Override { gsi, signal }) => (gsi, signal),
            None => (irq.into(), Signal::default()),
        }
    }
}

impl Signal {
    /// MPS INTI flags (§5.2.12.5, table 5.26); "conforms to the bus" means ISA: edge, active high.
    fn from_flags(flags: u16) -> Self {
        Self { active_low: flags & 0b11 == 0b11, level: (flags >> 2) & 0b11 == 0b11 }
    }
}

fn read<T: FromBytes>(body: &[u8]) -> Option<T> {
    T::read_from_prefix(body).ok().map(|(entry, _)| entry)
}

/// The address of a page of device registers, if it can be one: not in low memory, on a 1 KiB boundary (two
/// I/O APICs may share a page) and below the architecture's 52 bits.
fn register_page(address: u64) -> Option<u64> {
    Some(address).filter(|address| (0x10_0000..1 << 52).contains(address) && address.is_multiple_of(0x400))
}

/// The list of entries: type, length (of the whole entry), body.
struct Entries<'a>(&'a [u8]);

impl<'a> Iterator for Entries<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&[kind, len], _) = self.0.split_first_chunk()?;
        let body = self.0.get(2..usize::from(len))?;
        self.0 = self.0.get(usize::from(len)..)?;
        Some((kind, body))
    }
}
