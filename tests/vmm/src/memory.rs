//! The guest's memory: one region from 0, given to KVM, the kernel's segments in it, and where everything else lies.

use std::fs::File;

use anyhow::{Context, Result, bail};
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use linux_loader::loader::KernelLoader;
use linux_loader::loader::elf::{Elf, PvhBootCapability};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use crate::options::Options;

/// Where the PVH start information is.
pub(crate) const START_INFO: u64 = 0x6000;
/// Where its memory map is.
pub(crate) const MEMORY_MAP: u64 = 0x7000;
/// Where the command line is, which may go on to [`LOW_END`].
pub(crate) const COMMAND_LINE: u64 = 0x8000;
/// Where low memory ends.
pub(crate) const LOW_END: u64 = 0xa_0000;
/// Where ACPI tables are, up to [`HIGH_START`].
pub(crate) const ACPI: u64 = 0xe_0000;
/// Where memory goes on.
pub(crate) const HIGH_START: u64 = 0x10_0000;

/// The guest's memory, mapped here too.
pub(crate) type Memory = GuestMemoryMmap<()>;

/// Makes the memory and gives it to KVM. It is never taken away: CPUs of the guest run as long as this program.
///
/// # Errors
/// There is not as much.
pub(crate) fn make(vm: &VmFd, options: &Options) -> Result<&'static Memory> {
    let size = options.megabytes << 20;
    let memory = Memory::from_ranges(&[(GuestAddress(0), usize::try_from(size)?)])
        .with_context(|| format!("cannot map {} MiB", options.megabytes))?;
    let memory: &'static Memory = Box::leak(Box::new(memory));
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: size,
        userspace_addr: memory.get_host_address(GuestAddress(0))?.addr() as u64,
    };
    // SAFETY: the mapping is `size` bytes long and stays: `memory` is leaked.
    unsafe { vm.set_user_memory_region(region) }.context("KVM does not take the memory")?;
    Ok(memory)
}

/// Loads the kernel; returns its PVH entry.
///
/// # Errors
/// It is no ELF file with such an entry, or does not fit.
pub(crate) fn load(memory: &Memory, options: &Options) -> Result<u64> {
    let name = options.elf.display();
    let mut file = File::open(&options.elf).with_context(|| format!("cannot open {name}"))?;
    let loaded = Elf::load(memory, None, &mut file, None).with_context(|| format!("cannot load {name}"))?;
    match loaded.pvh_boot_cap {
        PvhBootCapability::PvhEntryPresent(entry) => Ok(entry.0),
        _ => bail!("{name} has no PVH entry"),
    }
}

/// Writes bytes at a guest-physical address.
///
/// # Errors
/// There is no memory.
pub(crate) fn write(memory: &Memory, at: u64, bytes: &[u8]) -> Result<()> {
    memory.write_slice(bytes, GuestAddress(at)).with_context(|| format!("no memory at {at:#x}"))
}
