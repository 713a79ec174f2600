//! What the guest is told at its PVH entry: memory map, command line, ACPI tables (Xen `docs/misc/pvh.pandoc`).

use anyhow::{Context, Result, ensure};
use linux_loader::configurator::pvh::PvhBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::elf::start_info::{hvm_memmap_table_entry, hvm_start_info};
use vm_memory::GuestAddress;

use crate::memory::{self, ACPI, COMMAND_LINE, HIGH_START, LOW_END, MEMORY_MAP, Memory, START_INFO};
use crate::options::Options;

/// `XEN_HVM_START_MAGIC_VALUE`.
const MAGIC: u32 = 0x336e_c578;
/// The first version with a memory map.
const VERSION: u32 = 1;
/// Types of memory, as in E820.
const RAM: u32 = 1;
const RESERVED: u32 = 2;

/// Writes it to the guest's memory.
///
/// # Errors
/// The command line is too long.
pub(crate) fn write(memory: &Memory, options: &Options, rsdp: u64) -> Result<()> {
    let line = options.append.as_bytes();
    ensure!(COMMAND_LINE + (line.len() as u64) < LOW_END, "the command line is too long");
    memory::write(memory, COMMAND_LINE, &[line, b"\0"].concat())?;
    let entry = |start: u64, end: u64, type_: u32| hvm_memmap_table_entry {
        addr: start,
        size: end - start,
        type_,
        reserved: 0,
    };
    let map = [
        entry(0, LOW_END, RAM),
        entry(ACPI, HIGH_START, RESERVED),
        entry(HIGH_START, options.megabytes << 20, RAM),
    ];
    let info = hvm_start_info {
        magic: MAGIC,
        version: VERSION,
        cmdline_paddr: COMMAND_LINE,
        rsdp_paddr: rsdp,
        memmap_paddr: MEMORY_MAP,
        memmap_entries: u32::try_from(map.len())?,
        ..Default::default()
    };
    let mut parameters = BootParams::new(&info, GuestAddress(START_INFO));
    parameters.set_sections(&map, GuestAddress(MEMORY_MAP));
    PvhBootConfigurator::write_bootparams(&parameters, memory).context("cannot write the start information")
}
