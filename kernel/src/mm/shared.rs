//! Pages that somebody outside the guest reads and writes at the same time: rings, grant table, event words.
//!
//! They are seen as atomic words for good: memory that once was such a page never becomes ordinary memory again. Who
//! needs pages for a time keeps those given back for the next (`xen::hypervisor`).
//! Neighbours: `frame` (where they come from), `drivers::xen::page` (the type), `pv_ops::xen` (who else uses them).

use alloc::vec::Vec;
use core::ptr::NonNull;

use drivers::xen::SharedPage;
use pv_ops::xen::{
    event_channel::EventPage,
    grant_table::{
        Entries,
        set_up::{self, STATUS_PAGES, TABLE_PAGES, Version},
    },
    hypercall::Errno,
    rings::Ring,
};

use super::{
    Caching, MapError, OutOfMemory,
    frame::{self, Frame},
    layout::PAGE_SIZE,
    map,
};
use crate::sync::IrqMutex;

/// A page of zeroes, for good, with its physical address.
///
/// # Errors
/// When no frame is free.
pub fn page() -> Result<(&'static SharedPage, u64), OutOfMemory> {
    let mut frame = frame::alloc(0)?;
    frame.bytes().fill(0);
    let (page, address) = (frame.as_ptr().cast(), frame.into_raw());
    // SAFETY:
    // 1. The frame is RAM of the direct map, aligned to its size, and belongs to nobody else; it is never freed.
    // 2. All in a `SharedPage` is atomic, so whatever the other side writes is a value.
    Ok((unsafe { page.as_ref() }, address))
}

/// Pages for the words of event channels: those there are, and how many of them are in use.
static EVENT_PAGES: IrqMutex<(Vec<(&'static SharedPage, u64)>, usize)> = IrqMutex::new((Vec::new(), 0));

/// As [`page`], for the words of event channels.
pub fn event_page() -> Option<EventPage> {
    let (pages, used) = &mut *EVENT_PAGES.lock();
    if *used == pages.len() {
        pages.push(page().ok()?);
    }
    let (page, address) = *pages.get(*used)?;
    *used += 1;
    page.clear();
    Some(EventPage { words: page.words(), frame: host_frame(address) })
}

/// The pages for the words of event channels are nobody's any more: the domain was restored.
pub fn forget_event_pages() {
    EVENT_PAGES.lock().1 = 0;
}

/// The number under which the hypervisor knows the frame at this physical address: what it finds in a page table.
pub fn host_frame(address: u64) -> u64 {
    const PRESENT: u64 = 1;
    const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
    (pv_ops::pte_make(address | PRESENT) & ADDRESS) / PAGE_SIZE
}

/// The page of a ring that the toolstack made before the guest began.
///
/// # Errors
/// When it lies partly in the guest's own memory, or cannot be mapped.
pub fn ring(ring: Ring) -> Result<&'static SharedPage, MapError> {
    let page: NonNull<SharedPage> = map::device(ring.address(), PAGE_SIZE, Caching::WriteBack)?.cast();
    // SAFETY:
    // 1. The page is mapped for good, and is the ring's, as the hypervisor says: no memory that it gave for use.
    // 2. All in it is atomic.
    Ok(unsafe { page.as_ref() })
}

/// The grant table, in memory of the guest that is lost to it for good.
///
/// # Errors
/// "No memory", or what Xen says.
pub fn grant_table(version: Version) -> Result<Entries, Errno> {
    let order = (TABLE_PAGES + STATUS_PAGES).next_power_of_two().ilog2() as u8;
    let frame: Frame = frame::alloc(order).map_err(|_| Errno::NO_MEMORY)?;
    let place = frame.as_ptr();
    let first = frame.into_raw() / PAGE_SIZE;
    // SAFETY:
    // 1. The block was just taken from the allocator and never goes back.
    // 2. It is mapped in the direct map: by small pages where Xen does not translate, as nothing else exists there.
    unsafe { set_up::set_up(version, place, first) }
}
