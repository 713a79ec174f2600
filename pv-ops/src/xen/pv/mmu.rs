//! Page tables through Xen: entries hold machine frames, tables are read-only for the guest, every change is a
//! hypercall that Xen checks (xen.h, `mmu_update`, `mmuext_op`, `update_va_mapping`).
//! Neighbours: `p2m` (the translation), `start` (the first tables), `balloon` (memory that comes and goes).

use super::{
    abi::{
        M2P, M2P_LEN_BYTES, MMUEXT_INVLPG_LOCAL, MMUEXT_NEW_BASEPTR, MMUEXT_PIN_L1_TABLE,
        MMUEXT_TLB_FLUSH_LOCAL, MMUEXT_UNPIN_TABLE, MmuUpdate, MmuextOp, UVMF_INVLPG,
    },
    irq,
    p2m::{self, ACCESSED, ADDRESS, DEVICE, DIRTY, NO_EXECUTE, PAGE, PRESENT, WRITABLE},
};
use crate::xen::{
    abi::DOMID_SELF,
    hypercall::{self, Answer, Call, Errno, Number},
    shared_info::{self, SharedInfo},
};
use core::{
    ptr::null_mut,
    sync::atomic::{AtomicU64, Ordering},
};

/// The p2m list: its address and its length.
static LIST: AtomicU64 = AtomicU64::new(0);
static FRAMES: AtomicU64 = AtomicU64::new(0);
/// The shared page: its machine frame, the guest frame in whose place it is, and the machine frame that would be there.
/// Xen's table does not know it.
static SHARED_MFN: AtomicU64 = AtomicU64::new(u64::MAX);
static SHARED_PFN: AtomicU64 = AtomicU64::new(u64::MAX);
static SHARED_OWN: AtomicU64 = AtomicU64::new(u64::MAX);
/// Where guest-physical memory is mapped.
static DIRECT_MAP: AtomicU64 = AtomicU64::new(0);
/// The root's address, as CR3 would have it.
static ROOT: AtomicU64 = AtomicU64::new(0);

/// What `start` found out.
pub(super) fn init(list: u64, frames: u64, direct_map: u64, root: u64) {
    LIST.store(list, Ordering::Relaxed);
    FRAMES.store(frames, Ordering::Relaxed);
    DIRECT_MAP.store(direct_map, Ordering::Relaxed);
    ROOT.store(root, Ordering::Relaxed);
}

pub(super) fn entry_of_list(pfn: u64) -> Option<&'static AtomicU64> {
    if pfn >= FRAMES.load(Ordering::Relaxed) {
        return None;
    }
    let list: *const AtomicU64 = core::ptr::with_exposed_provenance(LIST.load(Ordering::Relaxed) as usize);
    // SAFETY: Xen's loader made the list, one word for each of the frames that `init` was told of; it stays mapped.
    Some(unsafe { &*list.add(pfn as usize) })
}

/// The machine frame of a guest frame; `None` beyond the guest's memory.
pub fn machine_frame(pfn: u64) -> Option<u64> {
    entry_of_list(pfn).map(|entry| entry.load(Ordering::Relaxed))
}

/// The guest frame of a machine frame, if that is the guest's own.
pub fn guest_frame(mfn: u64) -> Option<u64> {
    if mfn == SHARED_MFN.load(Ordering::Relaxed) {
        return Some(SHARED_PFN.load(Ordering::Relaxed));
    }
    let place = M2P + mfn.checked_mul(8).filter(|&offset| offset < M2P_LEN_BYTES)?;
    let place: *const u64 = core::ptr::with_exposed_provenance(place as usize);
    // SAFETY: the frame is in a page table, so Xen knows it as memory, and maps its part of the table here.
    let pfn = unsafe { place.read_volatile() };
    // The table is Xen's and of the whole machine: what it says counts if our own list says the same.
    (machine_frame(pfn) == Some(mfn)).then_some(pfn)
}

/// Puts the machine frame `mfn`, which Xen shares, in the place of the guest frame `pfn`.
///
/// # Safety
/// Nothing relies on what is in the guest frame, and no table maps it but by [`map_page`] from now on.
pub(super) unsafe fn replace_frame(pfn: u64, mfn: u64) {
    if let Some(entry) = entry_of_list(pfn) {
        SHARED_OWN.store(entry.swap(mfn, Ordering::Relaxed), Ordering::Relaxed);
        SHARED_PFN.store(pfn, Ordering::Relaxed);
        SHARED_MFN.store(mfn, Ordering::Relaxed);
    }
}

/// Where the shared page is mapped: in the direct map, at its place in the image, at its fixed address.
fn shared_addresses() -> [u64; 3] {
    [direct_map(SHARED_PFN.load(Ordering::Relaxed)), shared_info::address(), irq::SHARED_PAGE]
}

/// Puts the guest's own frame in the place of the shared page, everywhere. There, events are held back.
///
/// # Errors
/// What Xen says.
pub(super) fn unshare() -> Result<(), Errno> {
    let (pfn, own) = (SHARED_PFN.load(Ordering::Relaxed), SHARED_OWN.load(Ordering::Relaxed));
    entry_of_list(pfn).ok_or(Errno::INVALID)?.store(own, Ordering::Relaxed);
    for virt in shared_addresses() {
        // SAFETY: all in the page is atomic, and a frame of zeroes but for the next line.
        unsafe { map_page(virt, own, true) }?;
        let page: *const SharedInfo = core::ptr::with_exposed_provenance(virt as usize);
        // SAFETY: just mapped; all in it is atomic. The first address is not the one by which the flag is asked for.
        unsafe { &*page }.vcpu_info[0].evtchn_upcall_mask.store(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Puts the shared page, which may have another machine frame now, back in its place.
///
/// # Errors
/// What Xen says.
pub(super) fn share_again(mfn: u64) -> Result<(), Errno> {
    for virt in shared_addresses() {
        // SAFETY: the page of the image that is nobody's but Xen's.
        unsafe { map_page(virt, mfn, true) }?;
    }
    // SAFETY: as above.
    unsafe { replace_frame(SHARED_PFN.load(Ordering::Relaxed), mfn) };
    Ok(())
}

/// The p2m list, whose first guest frame is `pfn`, by the direct map from now on, where it may be written.
pub(super) fn set_list(pfn: u64) {
    LIST.store(direct_map(pfn), Ordering::Relaxed);
}

/// Tells the toolstack where the p2m list is (arch-x86/xen.h, `arch_shared_info`).
#[doc(alias = "xen_pfn_to_cr3")]
pub(super) fn tell_list(shared: &SharedInfo) {
    let root = machine_frame(ROOT.load(Ordering::Relaxed) / PAGE).unwrap_or(0);
    shared.max_pfn.store(FRAMES.load(Ordering::Relaxed), Ordering::Relaxed);
    shared.p2m_vaddr.store(LIST.load(Ordering::Relaxed), Ordering::Relaxed);
    shared.p2m_cr3.store(root << 12 | root >> 20, Ordering::Relaxed);
}

pub(super) extern "sysv64" fn pte_make(entry: u64) -> u64 {
    p2m::make(entry, machine_frame)
}

pub(super) extern "sysv64" fn pte_value(entry: u64) -> u64 {
    p2m::value(entry, guest_frame)
}

/// Hypercalls made here.
static CALLS: AtomicU64 = AtomicU64::new(0);

/// How many hypercalls page tables have cost so far.
pub fn hypercalls() -> u64 {
    CALLS.load(Ordering::Relaxed)
}

pub(super) fn count() {
    CALLS.fetch_add(1, Ordering::Relaxed);
}

/// Replaces an entry of a table of any level.
///
/// # Panics
/// When Xen refuses memory: the tables would not say what the kernel believes.
///
/// # Safety
/// As for [`set_pte`](crate::set_pte); `entry` is an address of the direct map.
pub(super) unsafe extern "sysv64" fn set_entry(entry: *mut u64, value: u64) {
    // SAFETY: the caller's promise.
    let updated = unsafe { update(machine_address(entry), value) };
    // A device that is not this domain's: the entry stays empty, and who mapped it finds it so.
    if let Err(error) = updated
        && value & DEVICE == 0
    {
        panic!("page-table entry {value:#x} for {entry:p}: {error}");
    }
}

/// Entries in one list.
const LIST_LEN: usize = 64;

/// Replaces `count` entries of a table of any level, many at a time.
///
/// # Panics
/// As [`set_entry`].
///
/// # Safety
/// As for [`set_ptes`](crate::set_ptes()); `first` is an address of the direct map.
pub(super) unsafe extern "sysv64" fn set_entries(first: *mut u64, values: *const u64, count: u64) {
    let machine = machine_address(first);
    // SAFETY: the caller's promise.
    let values = unsafe { core::slice::from_raw_parts(values, count as usize) };
    for (chunk, values) in values.chunks(LIST_LEN).enumerate() {
        let start = chunk * LIST_LEN;
        let mut list = [MmuUpdate { ptr: 0, val: 0 }; LIST_LEN];
        for (index, (request, &val)) in list.iter_mut().zip(values).enumerate() {
            *request = MmuUpdate { ptr: machine + (start + index) as u64 * 8, val };
        }
        // SAFETY: the caller's promise.
        let done = unsafe { update_many(&list[..values.len()]) };
        // What Xen stopped at is looked at one by one.
        for (index, &value) in values.iter().enumerate().skip(done) {
            // SAFETY: the caller's promise.
            unsafe { set_entry(first.wrapping_add(start + index), value) };
        }
    }
}

/// The machine address of a table's entry.
///
/// # Panics
/// When it is not in the direct map.
fn machine_address(entry: *mut u64) -> u64 {
    let address = (entry.addr() as u64).wrapping_sub(DIRECT_MAP.load(Ordering::Relaxed));
    match machine_frame(address / PAGE) {
        Some(mfn) => mfn * PAGE + address % PAGE,
        None => panic!("page-table entry at {entry:p}, outside the direct map"),
    }
}

/// Replaces entries at machine addresses; how many, up to the first that Xen refuses.
///
/// # Safety
/// As for [`set_pte`](crate::set_pte), for each.
unsafe fn update_many(requests: &[MmuUpdate]) -> usize {
    let mut done = 0u32;
    let place = (&raw mut done).expose_provenance() as u64;
    let address = requests.as_ptr().expose_provenance() as u64;
    count();
    let arguments = [address, requests.len() as u64, place, DOMID_SELF.into()];
    // SAFETY: so many requests, which Xen reads; what they do is the caller's promise.
    match unsafe { hypercall::call4(Number::MmuUpdate, arguments) } {
        Ok(_) => requests.len(),
        Err(_) => done as usize,
    }
}

/// Replaces the entry at a machine address.
///
/// # Safety
/// As for [`set_pte`](crate::set_pte).
pub(super) unsafe fn update(machine: u64, value: u64) -> Answer {
    let request = MmuUpdate { ptr: machine, val: value };
    let address = (&raw const request).expose_provenance() as u64;
    let done = null_mut::<u32>().addr() as u64;
    count();
    // SAFETY: one request, which Xen reads; what it does is the caller's promise.
    unsafe { hypercall::call4(Number::MmuUpdate, [address, 1, done, DOMID_SELF.into()]) }
}

/// Lets the page at `virt`, whose tables are there, be the machine frame `mfn`.
///
/// # Safety
/// As for [`set_pte`](crate::set_pte).
pub(in crate::xen) unsafe fn map_page(virt: u64, mfn: u64, writable: bool) -> Answer {
    count();
    // SAFETY: three words; what the mapping does is the caller's promise.
    unsafe { hypercall::call3(Number::UpdateVaMapping, virt, entry(mfn, writable), UVMF_INVLPG) }
}

/// An entry of the lowest level for data.
pub(super) fn entry(mfn: u64, writable: bool) -> u64 {
    p2m::address(mfn) | PRESENT | ACCESSED | DIRTY | NO_EXECUTE | if writable { WRITABLE } else { 0 }
}

/// Frames that the guest began with.
pub(in crate::xen) fn frames() -> u64 {
    FRAMES.load(Ordering::Relaxed)
}

/// A command of `mmuext_op`, to be made while `request` is there.
fn extended(request: &MmuextOp) -> Call {
    let address = core::ptr::from_ref(request).expose_provenance() as u64;
    Call::new(Number::MmuextOp, [address, 1, 0, DOMID_SELF.into()])
}

/// The mapping of a page by a multicall.
fn mapping(virt: u64, entry: u64) -> Call {
    Call::new(Number::UpdateVaMapping, [virt, entry, UVMF_INVLPG, 0])
}

/// # Safety
/// As for each of the calls.
unsafe fn make<const COUNT: usize>(mut calls: [Call; COUNT]) -> Result<(), Errno> {
    count();
    // SAFETY: the caller's promise.
    unsafe { hypercall::multicall(&mut calls) }
}

pub(super) extern "sysv64" fn read_cr3() -> u64 {
    ROOT.load(Ordering::Relaxed)
}

/// # Panics
/// When Xen refuses the tables.
///
/// # Safety
/// As for [`write_cr3`](crate::write_cr3).
pub(super) unsafe extern "sysv64" fn write_cr3(value: u64) {
    let mfn = machine_frame((value & ADDRESS) / PAGE).unwrap_or(u64::MAX);
    let request = MmuextOp { cmd: MMUEXT_NEW_BASEPTR, arg1: mfn, arg2: 0 };
    // SAFETY: the caller's promise.
    if let Err(error) = unsafe { make([extended(&request)]) } {
        panic!("root table {value:#x}: {error}");
    }
    ROOT.store(value & ADDRESS, Ordering::Relaxed);
}

pub(super) extern "sysv64" fn flush_tlb() {
    let request = MmuextOp { cmd: MMUEXT_TLB_FLUSH_LOCAL, arg1: 0, arg2: 0 };
    // SAFETY: flushes.
    let _ = unsafe { make([extended(&request)]) };
}

pub(super) extern "sysv64" fn flush_tlb_one(address: u64) {
    let request = MmuextOp { cmd: MMUEXT_INVLPG_LOCAL, arg1: address, arg2: 0 };
    // SAFETY: flushes.
    let _ = unsafe { make([extended(&request)]) };
}

/// The direct map's address of a guest frame.
pub(super) fn direct_map(pfn: u64) -> u64 {
    DIRECT_MAP.load(Ordering::Relaxed) + pfn * PAGE
}

/// Read-only first: Xen takes no table that the guest could still write.
///
/// # Panics
/// When Xen refuses the table.
///
/// # Safety
/// As for [`pin_table`](crate::pin_table).
pub(super) unsafe extern "sysv64" fn pin_table(frame: u64, level: u8) {
    let mfn = machine_frame(frame).unwrap_or(u64::MAX);
    let request = MmuextOp { cmd: MMUEXT_PIN_L1_TABLE + u32::from(level) - 1, arg1: mfn, arg2: 0 };
    let read_only = mapping(direct_map(frame), entry(mfn, false));
    // SAFETY: the frame is a table of this level from now on, which nobody writes (the caller's promise).
    if let Err(error) = unsafe { make([read_only, extended(&request)]) } {
        panic!("table of level {level} in frame {frame:#x}: {error}");
    }
}

/// # Panics
/// When Xen still needs the table.
///
/// # Safety
/// As for [`unpin_table`](crate::unpin_table).
pub(super) unsafe extern "sysv64" fn unpin_table(frame: u64) {
    let mfn = machine_frame(frame).unwrap_or(u64::MAX);
    let request = MmuextOp { cmd: MMUEXT_UNPIN_TABLE, arg1: mfn, arg2: 0 };
    let writable = mapping(direct_map(frame), entry(mfn, true));
    // SAFETY: nothing refers to the table any more (the caller's promise), so that it is ordinary memory now.
    if let Err(error) = unsafe { make([extended(&request), writable]) } {
        panic!("table in frame {frame:#x}: {error}");
    }
}
