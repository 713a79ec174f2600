//! Memory that comes and goes: machine frames behind guest frames, in p2m list and direct map.
//! Neighbours: `xen::memory` (who gives and takes), `mmu` (the list, the entries).

use super::{
    abi::UVMF_TLB_FLUSH_ALL,
    mmu::{count, direct_map, entry, entry_of_list, machine_frame},
    p2m::NONE,
};
use crate::xen::{
    hypercall::{self, Call, Errno, Number},
    memory::BATCH,
};
use core::sync::atomic::Ordering;

/// Takes the guest frames from `first` on out of direct map and p2m list; `list`, as long as there are frames, says
/// then which machine frames they were.
///
/// # Errors
/// What Xen says, or [`Errno::INVALID`] for frames beyond the guest's memory.
///
/// # Safety
/// Nothing refers to the frames.
pub(in crate::xen) unsafe fn remove(first: u64, list: &mut [u64]) -> Result<(), Errno> {
    for (pfn, place) in (first..).zip(list.iter_mut()) {
        *place = machine_frame(pfn).ok_or(Errno::INVALID)?;
    }
    // SAFETY: nothing refers to the frames.
    unsafe { map_in_direct_map(first, list.iter().map(|_| 0)) }?;
    (first..)
        .zip(list)
        .filter_map(|(pfn, _)| entry_of_list(pfn))
        .for_each(|entry| entry.store(NONE, Ordering::Relaxed));
    Ok(())
}

/// Puts machine frames behind the guest frames from `first` on, in p2m list and direct map.
///
/// # Errors
/// As [`remove`].
///
/// # Safety
/// The machine frames are this guest's and not in use; there are none behind the guest frames.
pub(in crate::xen) unsafe fn insert(first: u64, list: &[u64]) -> Result<(), Errno> {
    for (pfn, &mfn) in (first..).zip(list) {
        entry_of_list(pfn).ok_or(Errno::INVALID)?.store(mfn, Ordering::Relaxed);
    }
    // SAFETY: the direct map shows what is the guest's.
    unsafe { map_in_direct_map(first, list.iter().map(|&mfn| entry(mfn, true))) }
}

/// Replaces the direct map's entries from guest frame `first` on, [`BATCH`] at most, by one hypercall.
///
/// # Safety
/// As for [`set_pte`](crate::set_pte).
unsafe fn map_in_direct_map(first: u64, entries: impl ExactSizeIterator<Item = u64>) -> Result<(), Errno> {
    let len = entries.len();
    let mut calls = [Call::new(Number::UpdateVaMapping, [0; 4]); BATCH];
    let calls = &mut calls[..len];
    for (index, (call, entry)) in calls.iter_mut().zip(entries).enumerate() {
        let flush = if index + 1 == len { UVMF_TLB_FLUSH_ALL } else { 0 };
        *call = Call::new(Number::UpdateVaMapping, [direct_map(first + index as u64), entry, flush, 0]);
    }
    count();
    // SAFETY: three words each; what the mappings do is the caller's promise.
    unsafe { hypercall::multicall(calls) }
}
