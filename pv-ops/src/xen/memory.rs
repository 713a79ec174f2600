//! Memory by hypercall: the domain's memory map, special pages put where the guest wants them, HVM parameters.
//! Neighbours: `abi::memory`, `abi::hvm` (structs), `hvm` (uses them at set-up).

use super::{
    abi::{DOMID_SELF, hvm, memory},
    hypercall::{self, Errno, Number},
};
use crate::backend::Region;
use core::cell::UnsafeCell;

/// Entries of the memory map that are taken; Xen's tools make less than ten, a PC's firmware less than a hundred.
const MAX_ENTRIES: usize = 256;

/// Where Xen writes the map. Static, since it is larger than a stack frame should be.
struct Buffer(UnsafeCell<[memory::E820Entry; MAX_ENTRIES]>);

// SAFETY: `map` alone touches it, at boot, on the one CPU that runs (its contract).
unsafe impl Sync for Buffer {}

static BUFFER: Buffer =
    Buffer(UnsafeCell::new([memory::E820Entry { addr: 0, size: 0, kind: 0 }; MAX_ENTRIES]));

/// Tells `each` every region of this domain's memory, in Xen's order.
///
/// # Errors
/// What Xen says; nothing is told then.
///
/// # Safety
/// No other CPU runs this meanwhile, and `each` does not call it.
pub(super) unsafe fn map(each: &mut dyn FnMut(Region)) -> Result<(), Errno> {
    let place = BUFFER.0.get();
    let mut argument = memory::MemoryMap {
        nr_entries: MAX_ENTRIES as u32,
        _pad: 0,
        buffer: place.cast::<u8>().expose_provenance() as u64,
    };
    // SAFETY: the struct is this command's, and the buffer has room for the entries that it tells of.
    unsafe { hypercall::command(Number::MemoryOp, memory::MEMORY_MAP, &mut argument) }?;
    // SAFETY: nobody else uses the buffer (the caller's promise), and Xen is done with it.
    let entries = unsafe { &*place };
    for entry in &entries[..(argument.nr_entries as usize).min(MAX_ENTRIES)] {
        let memory::E820Entry { addr, size, kind } = *entry;
        each(Region { start: addr, len_bytes: size, kind });
    }
    Ok(())
}

/// Puts page `index` of a special space (`abi::memory::SPACE_*`) at the guest's frame `gpfn`. The RAM that was there
/// is lost to the guest.
///
/// # Errors
/// What Xen says; the frame is then as it was.
///
/// # Safety
/// The frame is the caller's, and nothing relies on what is in it.
pub unsafe fn add_to_physmap(space: u32, index: u64, gpfn: u64) -> Result<(), Errno> {
    let mut argument = memory::AddToPhysmap { domid: DOMID_SELF, size: 0, space, index, gpfn };
    // SAFETY: the struct is this command's; the frame is the caller's to lose.
    unsafe { hypercall::command(Number::MemoryOp, memory::ADD_TO_PHYSMAP, &mut argument) }?;
    Ok(())
}

/// Reads a parameter of this domain (`abi::hvm::*`).
///
/// # Errors
/// What Xen says.
pub fn hvm_param(index: u32) -> Result<u64, Errno> {
    let mut param = hvm::Param { domid: DOMID_SELF, _pad: 0, index, value: 0 };
    // SAFETY: the struct is this command's, and all it does is to be filled.
    unsafe { hypercall::command(Number::HvmOp, hvm::GET_PARAM, &mut param) }?;
    Ok(param.value)
}

/// Sets a parameter of this domain (`abi::hvm::*`).
///
/// # Errors
/// What Xen says.
///
/// # Safety
/// What the parameter changes is sound: a callback vector has a handler.
pub unsafe fn set_hvm_param(index: u32, value: u64) -> Result<(), Errno> {
    let mut param = hvm::Param { domid: DOMID_SELF, _pad: 0, index, value };
    // SAFETY: the struct is this command's; what it does is the caller's promise.
    unsafe { hypercall::command(Number::HvmOp, hvm::SET_PARAM, &mut param) }?;
    Ok(())
}
