//! Where the grant table is: asked of Xen once at start, and again after the domain was restored.
//! Neighbours: `entries` (what lies there), `memory` (pages put where a PVH guest wants them).

use super::entries::Entries;
use crate::xen::{
    abi::{DOMID_SELF, memory::SPACE_GRANT_TABLE},
    has_feature,
    hypercall::{self, Errno, Number},
    memory,
    pv::mmu,
    rings::FEATURE_AUTO_TRANSLATED,
};
use core::{
    ptr::NonNull,
    slice,
    sync::atomic::{AtomicU8, AtomicU64, Ordering},
};

/// Commands of `grant_table_op`.
mod command {
    pub(super) const SETUP_TABLE: u32 = 2;
    pub(super) const QUERY_SIZE: u32 = 6;
    pub(super) const SET_VERSION: u32 = 8;
    pub(super) const GET_STATUS_FRAMES: u32 = 9;
}

/// Beside the index of a page of `SPACE_GRANT_TABLE`: one of the status words (memory.h).
#[doc(alias = "XENMAPIDX_grant_table_status")]
const STATUS_INDEX: u64 = 1 << 31;

const PAGE: usize = 4096;
/// Pages of the table that are used, at most.
pub const TABLE_PAGES: u32 = 8;
/// Pages of status words behind them, in version 2.
pub const STATUS_PAGES: u32 = 1;

/// The layout of the entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Frame numbers of 32 bits.
    V1 = 1,
    /// Frame numbers of 64 bits.
    V2 = 2,
}

#[repr(C)]
#[doc(alias = "gnttab_setup_table")]
struct SetupTable {
    dom: u16,
    _pad0: u16,
    nr_frames: u32,
    status: i16,
    _pad1: [u16; 3],
    frame_list: u64,
}

#[repr(C)]
#[doc(alias = "gnttab_get_status_frames")]
struct GetStatusFrames {
    nr_frames: u32,
    dom: u16,
    status: i16,
    frame_list: u64,
}

#[repr(C)]
#[doc(alias = "gnttab_query_size")]
struct QuerySize {
    dom: u16,
    _pad: u16,
    nr_frames: u32,
    max_nr_frames: u32,
    status: i16,
}

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<SetupTable>() == 24 && offset_of!(SetupTable, frame_list) == 16);
    assert!(size_of::<GetStatusFrames>() == 16 && offset_of!(GetStatusFrames, status) == 6);
    assert!(size_of::<QuerySize>() == 16 && offset_of!(QuerySize, status) == 12);
};

/// Where the table is, for good: its version (0 is none yet), its address, the guest frame number of its first page.
static VERSION: AtomicU8 = AtomicU8::new(0);
static PLACE: AtomicU64 = AtomicU64::new(0);
static FRAME: AtomicU64 = AtomicU64::new(0);

/// # Safety
/// `argument` is the struct of this command, and a list of frames in it has room for them.
unsafe fn op<T>(command: u32, argument: &mut T) -> Result<(), Errno> {
    let address = core::ptr::from_mut(argument).expose_provenance() as u64;
    // SAFETY: the caller's promise; one struct.
    unsafe { hypercall::call3(Number::GrantTableOp, command.into(), address, 1) }.map(|_| ())
}

/// `GNTST_*` as an error.
fn checked(status: i16) -> Result<(), Errno> {
    if status == 0 { Ok(()) } else { Err(Errno::INVALID) }
}

/// Pages that the table has and may have.
///
/// # Errors
/// What Xen says.
#[doc(alias = "GNTTABOP_query_size")]
pub fn size() -> Result<(u32, u32), Errno> {
    let mut argument = QuerySize { dom: DOMID_SELF, _pad: 0, nr_frames: 0, max_nr_frames: 0, status: 0 };
    // SAFETY: the struct is this command's; it is filled.
    unsafe { op(command::QUERY_SIZE, &mut argument) }?;
    checked(argument.status)?;
    Ok((argument.nr_frames, argument.max_nr_frames))
}

/// Chooses the version and has the table appear at `place`, [`TABLE_PAGES`] and [`STATUS_PAGES`] pages whose first has
/// the guest frame number `frame`. What the RAM there held is lost to the guest.
///
/// # Errors
/// What Xen says; the pages are not to be used again then.
///
/// # Safety
/// The pages are the caller's, mapped by pages of 4 KiB or, where Xen translates, of any size; they stay mapped for good
/// and are used by nobody else.
#[doc(alias = "GNTTABOP_setup_table")]
#[doc(alias = "GNTTABOP_set_version")]
pub unsafe fn set_up(version: Version, place: NonNull<u8>, frame: u64) -> Result<Entries, Errno> {
    // SAFETY: the caller's promise.
    let (table_pages, _) = unsafe { put(version, place.addr().get() as u64, frame) }?;
    PLACE.store(place.expose_provenance().get() as u64, Ordering::Relaxed);
    FRAME.store(frame, Ordering::Relaxed);
    VERSION.store(version as u8, Ordering::Release);
    let entries = place.as_ptr().cast_const();
    let entries_bytes = table_pages as usize * PAGE;
    Ok(match version {
        // SAFETY:
        // 1. Xen's table is at `place` now, for good, in the layout of this version; words of atomics have no
        //    invalid values.
        // 2. `place` is aligned to pages.
        Version::V1 => Entries::V1(unsafe { slice::from_raw_parts(entries.cast(), entries_bytes / 8) }),
        Version::V2 => {
            // SAFETY: behind the pages for entries, within the caller's.
            let status = unsafe { entries.add(TABLE_PAGES as usize * PAGE) };
            // SAFETY: as for version 1.
            let status = unsafe { slice::from_raw_parts(status.cast(), STATUS_PAGES as usize * PAGE / 2) };
            // SAFETY: as for version 1.
            let entries = unsafe { slice::from_raw_parts(entries.cast(), entries_bytes / 16) };
            Entries::V2(entries, status)
        }
    })
}

/// Takes the table away before the domain is saved: a PV guest's page tables are to hold its own frames only then.
/// Nobody uses the table until [`come_back`].
///
/// # Errors
/// What Xen says.
pub fn leave() -> Result<(), Errno> {
    if VERSION.load(Ordering::Acquire) == 0 || has_feature(FEATURE_AUTO_TRANSLATED) {
        return Ok(());
    }
    let (place, frame) = (PLACE.load(Ordering::Relaxed), FRAME.load(Ordering::Relaxed));
    for page in 0..u64::from(TABLE_PAGES + STATUS_PAGES) {
        let own = mmu::machine_frame(frame + page).ok_or(Errno::INVALID)?;
        // SAFETY: the page's own RAM, which nobody uses.
        unsafe { mmu::map_page(place + page * PAGE as u64, own, true) }?;
    }
    Ok(())
}

/// Has the table appear in its place again. After the domain was restored all its entries are unused.
///
/// # Errors
/// What Xen says: no grant works then.
pub fn come_back() -> Result<(), Errno> {
    let version = match VERSION.load(Ordering::Acquire) {
        0 => return Ok(()),
        1 => Version::V1,
        _ => Version::V2,
    };
    // SAFETY: `set_up` was promised these pages for good.
    unsafe { put(version, PLACE.load(Ordering::Relaxed), FRAME.load(Ordering::Relaxed)) }.map(|_| ())
}

/// Chooses the version and has the table appear; how many pages it and the status words have.
///
/// # Safety
/// As for [`set_up`].
unsafe fn put(version: Version, place: u64, frame: u64) -> Result<(u32, u32), Errno> {
    let mut number = version as u32;
    // SAFETY: the struct is the number alone; no grant is in force yet.
    let chosen = unsafe { op(command::SET_VERSION, &mut number) };
    // A Xen that knows version 1 only does not know the command either.
    if version == Version::V2 {
        chosen?;
    }
    // A toolstack may allow less.
    let table_pages = size()?.1.min(TABLE_PAGES);
    let status_pages = if version == Version::V2 { STATUS_PAGES } else { 0 };
    if has_feature(FEATURE_AUTO_TRANSLATED) {
        for page in 0..u64::from(table_pages) {
            // SAFETY: the frame is the caller's (its promise).
            unsafe { memory::add_to_physmap(SPACE_GRANT_TABLE, page, frame + page) }?;
        }
        for page in 0..u64::from(status_pages) {
            let gpfn = frame + u64::from(TABLE_PAGES) + page;
            // SAFETY: as above.
            unsafe { memory::add_to_physmap(SPACE_GRANT_TABLE, STATUS_INDEX | page, gpfn) }?;
        }
    } else {
        // SAFETY: the caller's promise.
        unsafe { map_frames(place, table_pages, status_pages) }?;
    }
    Ok((table_pages, status_pages))
}

/// Asks for the machine frames of the table and maps them in place of the RAM.
///
/// # Safety
/// As for [`set_up`].
unsafe fn map_frames(place: u64, table_pages: u32, status_pages: u32) -> Result<(), Errno> {
    let mut frames = [0_u64; (TABLE_PAGES + STATUS_PAGES) as usize];
    let (table, status) = frames.split_at_mut(TABLE_PAGES as usize);
    let mut argument = SetupTable {
        dom: DOMID_SELF,
        _pad0: 0,
        nr_frames: table_pages,
        status: 0,
        _pad1: [0; 3],
        frame_list: table.as_mut_ptr().expose_provenance() as u64,
    };
    // SAFETY: the struct is this command's; the list has room for as many as are asked for.
    unsafe { op(command::SETUP_TABLE, &mut argument) }?;
    checked(argument.status)?;
    if status_pages > 0 {
        let mut argument = GetStatusFrames {
            nr_frames: status_pages,
            dom: DOMID_SELF,
            status: 0,
            frame_list: status.as_mut_ptr().expose_provenance() as u64,
        };
        // SAFETY: as above.
        unsafe { op(command::GET_STATUS_FRAMES, &mut argument) }?;
        checked(argument.status)?;
    }
    let is_told = |page: usize| page < table_pages as usize || page >= TABLE_PAGES as usize;
    let told = frames.into_iter().take((TABLE_PAGES + status_pages) as usize).enumerate();
    for (page, machine_frame) in told.filter(|&(page, _)| is_told(page)) {
        // SAFETY: the page is the caller's, and nobody's memory in the RAM behind it.
        unsafe { mmu::map_page(place + (page * PAGE) as u64, machine_frame, true) }?;
    }
    Ok(())
}
