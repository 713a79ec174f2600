//! Memory by hypercall: the domain's memory map, memory given and taken (the balloon), special pages put where the guest
//! wants them, HVM parameters.
//! Neighbours: `abi::memory`, `abi::hvm` (structs), `hvm` (uses them at set-up).

use super::{
    abi::{DOMID_SELF, hvm, memory},
    has_feature,
    hypercall::{self, Errno, Number},
    pv,
    rings::FEATURE_AUTO_TRANSLATED,
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

/// Frames that [`take`] and [`give`] deal with at once.
pub const BATCH: usize = 32;

/// Gives memory back to Xen: the guest frames from `first` on, [`BATCH`] at most. There is nothing in their place
/// afterwards; a PV guest's direct map has holes there.
///
/// # Errors
/// What Xen says, or [`Errno::NO_MEMORY`] when it took only a part. Nothing is taken then.
///
/// # Safety
/// The frames are the caller's, and nothing refers to them.
pub unsafe fn give(first: u64, count: usize) -> Result<(), Errno> {
    let mut list = numbers(first);
    let list = &mut list[..count.min(BATCH)];
    let is_translated = has_feature(FEATURE_AUTO_TRANSLATED);
    if !is_translated {
        // SAFETY: nothing refers to the frames.
        unsafe { pv::balloon::remove(first, list) }?;
    }
    match reservation(memory::DECREASE_RESERVATION, list) {
        Ok(taken) if taken == list.len() => Ok(()),
        other => {
            let taken = other.unwrap_or(0);
            // What is left of a PV guest's machine frames goes back in place; what was taken, anew.
            if !is_translated {
                // SAFETY: they were there.
                unsafe { pv::balloon::insert(first + taken as u64, &list[taken..]) }?;
            }
            if taken > 0 {
                // SAFETY: there is nothing in their place.
                unsafe { take(first, taken) }?;
            }
            Err(other.err().unwrap_or(Errno::NO_MEMORY))
        }
    }
}

/// Asks Xen for memory behind the guest frames from `first` on, [`BATCH`] at most. Its content is unspecified.
///
/// # Errors
/// What Xen says, or [`Errno::NO_MEMORY`] when it gave only a part. Nothing is there then.
///
/// # Safety
/// The frames are the caller's, and [`give`] gave all of them away.
pub unsafe fn take(first: u64, count: usize) -> Result<(), Errno> {
    let mut list = numbers(first);
    let list = &mut list[..count.min(BATCH)];
    let given = reservation(memory::POPULATE_PHYSMAP, list)?;
    let inserted = if has_feature(FEATURE_AUTO_TRANSLATED) {
        Ok(())
    } else {
        // SAFETY: fresh memory for frames of the caller, which have none.
        unsafe { pv::balloon::insert(first, &list[..given]) }
    };
    if given < list.len() {
        // SAFETY: they were just got, and nobody has seen them.
        unsafe { give(first, given) }?;
        return Err(Errno::NO_MEMORY);
    }
    inserted
}

fn numbers(first: u64) -> [u64; BATCH] {
    core::array::from_fn(|index| first + index as u64)
}

fn reservation(command: u32, list: &mut [u64]) -> Result<usize, Errno> {
    let mut argument = memory::Reservation {
        extent_start: list.as_mut_ptr().expose_provenance() as u64,
        nr_extents: list.len() as u64,
        extent_order: 0,
        mem_flags: 0,
        domid: DOMID_SELF,
    };
    // SAFETY: the struct is this command's, with a list of so many entries; whose frames they are is the affair of
    // `give` and `take`.
    let done = unsafe { hypercall::command(Number::MemoryOp, command, &mut argument) }?;
    Ok((done as usize).min(list.len()))
}

/// Frames that a PV guest began with; `None` where Xen translates: others ask their toolstack.
#[doc(alias = "nr_pages")]
pub fn frames_at_start() -> Option<u64> {
    (!has_feature(FEATURE_AUTO_TRANSLATED)).then(pv::mmu::frames)
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
