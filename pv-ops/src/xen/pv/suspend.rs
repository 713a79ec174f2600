//! What a PV guest does before and after it is saved. The toolstack writes guest frames where it finds machine frames,
//! and at the restore those of the new domain: in page tables, p2m list and start_info. So a page table may hold this
//! domain's own frames only, and nothing else may hold machine frames at all.
//! Neighbours: `xen::suspend` (who calls), `mmu` (the shared page and the p2m list).

use super::{abi::StartInfo, mmu, p2m::PAGE, vcpu};
use crate::xen::{hypercall::Errno, rings, shared_info, suspend::Life};
use core::sync::atomic::{AtomicU64, Ordering};

/// The guest frame with start_info.
static START_INFO: AtomicU64 = AtomicU64::new(0);

/// Notes where start_info is.
pub(super) fn set_start_info(pfn: u64) {
    START_INFO.store(pfn, Ordering::Relaxed);
}

fn start_info() -> *mut StartInfo {
    let pfn = START_INFO.load(Ordering::Relaxed);
    core::ptr::with_exposed_provenance_mut(mmu::direct_map(pfn) as usize)
}

/// Makes the domain fit to be saved; the machine frame of start_info, for the toolstack. Interrupts are disabled.
///
/// # Errors
/// What Xen says; [`come_back`] is needed all the same.
pub(in crate::xen) fn leave() -> Result<u64, Errno> {
    let frame = |ring: Option<rings::Ring>| ring.map_or(0, |ring| ring.address() / PAGE);
    let (xenstore, console) = (frame(rings::xenstore()), frame(rings::console()));
    let start_info = start_info();
    // SAFETY: `start` found the struct there, in memory that is nobody else's.
    unsafe { (&raw mut (*start_info).store_mfn).write_volatile(xenstore) };
    // SAFETY: as above.
    unsafe { (&raw mut (*start_info).console_mfn).write_volatile(console) };
    mmu::unshare()?;
    mmu::machine_frame(START_INFO.load(Ordering::Relaxed)).ok_or(Errno::INVALID)
}

/// Puts the shared page back in its place, and notes where the next life's rings are.
///
/// # Errors
/// What Xen says.
pub(in crate::xen) fn come_back(life: Life) -> Result<(), Errno> {
    // SAFETY: as in `leave`; the toolstack is done with it.
    let start_info = unsafe { start_info().read_volatile() };
    mmu::share_again(start_info.shared_info / PAGE)?;
    if life == Life::Next {
        shared_info::set_mapped();
        vcpu::move_again();
        mmu::tell_list(shared_info::get());
        rings::set(
            (mmu::guest_frame(start_info.console_mfn), start_info.console_evtchn),
            (mmu::guest_frame(start_info.store_mfn), start_info.store_evtchn),
        );
    }
    Ok(())
}
