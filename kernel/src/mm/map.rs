//! The kernel's address space: what is mapped where, memory behind fresh pages, devices.
//!
//! A device mapping never aliases the guest's own memory: RAM is reached through the direct map alone, where
//! its protection and caching are the right ones.
//! Neighbours: `page_table` (the algorithm), `layout` (the windows), `stack` and `heap` (who need memory here).

use core::ptr::NonNull;

use super::{
    frame::{self, Frame, OutOfMemory},
    layout::{
        self, DEVICES, DEVICES_LEN_BYTES, DIRECT_MAP_LEN_BYTES, PAGE_SIZE, PAGE_SIZE_2M, align_down, align_up,
    },
    registers, tables,
    window::Window,
};
use crate::sync::IrqMutex;

pub use super::{
    page_table::{Caching, Leaf, Level, MapError, Protection},
    stack::{Stack, stack},
};

/// Made when first asked for: until then all zeros, so that the file does not carry it.
static DEVICE_WINDOW: IrqMutex<Option<Window>> = IrqMutex::new(None);

fn with_device_window<R>(act: impl FnOnce(&mut Window) -> R) -> R {
    act(DEVICE_WINDOW.lock().get_or_insert_with(|| Window::new(DEVICES, DEVICES_LEN_BYTES)))
}

/// Bytes that are unmapped at a time, before one flush.
const UNBACK_LEN_BYTES: u64 = 128 * PAGE_SIZE;
/// Order of the block behind a page of 2 MiB.
const ORDER_2M: u8 = (PAGE_SIZE_2M / PAGE_SIZE).ilog2() as u8;

/// The physical address behind `virt`; `None` when nothing is mapped there. Works at any time: before the
/// kernel has tables of its own it reads those of the loader.
pub fn translate(virt: u64) -> Option<u64> {
    tables::with(|tables| tables.translate(virt))
        .unwrap_or_else(|| super::early::entry_tables().translate(virt))
}

/// The page that maps `virt`, with its size and protection.
pub fn find(virt: u64) -> Option<Leaf> {
    tables::with(|tables| tables.find(virt)).flatten()
}

/// As [`find`], for exception handlers: `None` too when the tables are being changed.
pub fn try_find(virt: u64) -> Option<Leaf> {
    tables::try_with(|tables| tables.find(virt)).flatten()
}

/// Calls `each` with every mapped page of the address space, in order of addresses. It must not map or allocate.
pub fn for_each_page(mut each: impl FnMut(Leaf)) {
    const HALF: u64 = 1 << 47;
    tables::with(|tables| {
        for start in [0, HALF.wrapping_neg()] {
            tables.visit(start, HALF, &mut |leaf| {
                each(leaf);
                true
            });
        }
    });
}

/// Maps `len_bytes` bytes from `virt` to the physical memory from `phys`, all three multiples of 4 KiB, with
/// the largest pages that fit.
///
/// # Errors
/// When a part of the range is mapped, the range is not one, or memory for tables runs out. Nothing has changed then.
///
/// # Safety
/// The range is the caller's to map, and whoever is given the addresses respects who owns the memory behind.
pub unsafe fn map(
    virt: u64,
    phys: u64,
    len_bytes: u64,
    protection: Protection,
    caching: Caching,
) -> Result<(), MapError> {
    with_tables(|tables| tables.map(virt, phys, len_bytes, protection, caching))
}

/// Unmaps what is mapped of `len_bytes` bytes from `virt`; the memory behind stays whose it is.
///
/// # Errors
/// When the range is not one, or a large page must be split and memory for that runs out.
///
/// # Safety
/// Nothing refers to the range any more.
pub unsafe fn unmap(virt: u64, len_bytes: u64) -> Result<(), MapError> {
    with_tables(|tables| tables.unmap(virt, len_bytes, &mut |_| {}))
}

/// Changes what may be done with `len_bytes` mapped bytes from `virt`.
///
/// # Errors
/// When a part of the range is not mapped, or a large page must be split and memory for that runs out.
///
/// # Safety
/// Nothing relies on what is no longer allowed, and nothing but code lies in what becomes executable.
pub unsafe fn protect(virt: u64, len_bytes: u64, protection: Protection) -> Result<(), MapError> {
    with_tables(|tables| tables.protect(virt, len_bytes, protection))
}

/// Maps fresh memory of unspecified content at `len_bytes` bytes from `virt`, writable; in pages of 2 MiB where
/// range and memory allow.
///
/// # Errors
/// When memory runs out or a part of the range is mapped already. Nothing has changed then.
///
/// # Safety
/// The range is the caller's to map.
pub unsafe fn back(virt: u64, len_bytes: u64) -> Result<(), MapError> {
    let mut done = 0;
    while done < len_bytes {
        let backed =
            largest_block(virt + done, len_bytes - done).and_then(|frame| back_one(virt + done, frame));
        match backed {
            Ok(len_bytes) => done += len_bytes,
            Err(error) => {
                if done > 0 {
                    // SAFETY: what was mapped above nobody has seen yet.
                    unsafe { unback(virt, done) };
                }
                return Err(error);
            }
        }
    }
    Ok(())
}

/// The largest free block that can be mapped at `virt` as a whole and is not longer than `len_bytes`.
fn largest_block(virt: u64, len_bytes: u64) -> Result<Frame, MapError> {
    let aligned = (virt / PAGE_SIZE).trailing_zeros();
    let order = (len_bytes / PAGE_SIZE).max(1).ilog2().min(aligned).min(ORDER_2M.into()) as u8;
    let smaller = || (0..order).rev().find_map(|order| frame::alloc(order).ok());
    frame::alloc(order).or_else(|error| smaller().ok_or(MapError::from(error)))
}

/// Maps one block at `virt`, which takes it over.
fn back_one(virt: u64, frame: Frame) -> Result<u64, MapError> {
    let len_bytes = frame.len_bytes();
    let (protection, caching) = (Protection::ReadWrite, Caching::WriteBack);
    with_tables(|tables| tables.map(virt, frame.address(), len_bytes, protection, caching))?;
    frame.into_raw();
    Ok(len_bytes)
}

/// Unmaps what [`back`] mapped at `len_bytes` bytes from `virt` and frees the memory.
///
/// # Safety
/// The range was mapped by `back`, in one call or several, and nothing refers to it any more.
pub unsafe fn unback(virt: u64, len_bytes: u64) {
    let mut done = 0;
    while done < len_bytes {
        let next = virt + done;
        // A page of 2 MiB goes in one piece: the range was mapped whole. Small pages go many at a time, but not
        // beyond where a page of 2 MiB may begin.
        let (step, order) = match find(next) {
            Some(leaf) if leaf.level > Level::One => (leaf.level.span(), ORDER_2M),
            _ => ((len_bytes - done).min(UNBACK_LEN_BYTES).min(PAGE_SIZE_2M - next % PAGE_SIZE_2M), 0),
        };
        let mut gone: heapless::Vec<u64, { (UNBACK_LEN_BYTES / PAGE_SIZE) as usize }> = heapless::Vec::new();
        let unmapped = with_tables(|tables| {
            tables.unmap(next, step, &mut |leaf| {
                let _ = gone.push(leaf.phys);
            })
        });
        if let Err(error) = unmapped {
            panic!("{error}");
        }
        for phys in gone {
            // SAFETY:
            // 1. `back_one` gave up the block of which this is a page, or the whole, in `into_raw`.
            // 2. It is unmapped on every CPU, and the caller says that nothing refers to it.
            drop(unsafe { Frame::from_raw(phys, order) });
        }
        done += step;
    }
}

/// Maps `len_bytes` bytes of a device, or of a table of the firmware, from the physical address `phys`, which
/// need not be aligned. The mapping stays for ever. Each call makes a new one.
///
/// RAM is not mapped again: asked for with [`Caching::WriteBack`] it is found in the direct map.
///
/// # Errors
/// [`MapError::BadRange`] for a range that is empty, wraps around or exceeds the CPU's physical addresses;
/// [`MapError::OverlapsRam`] for RAM with any other caching, or for a range that is RAM only in part;
/// [`MapError::OutOfMemory`].
pub fn device(phys: u64, len_bytes: u64, caching: Caching) -> Result<NonNull<u8>, MapError> {
    mapping(phys, len_bytes, caching).map(|mapping| {
        let address = mapping.as_ptr();
        core::mem::forget(mapping);
        address
    })
}

/// As [`device`], for as long as the returned value lives.
///
/// # Errors
/// As [`device`].
pub fn mapping(phys: u64, len_bytes: u64, caching: Caching) -> Result<Mapping, MapError> {
    let (start, len) = pages(phys, len_bytes)?;
    let in_ram = ram_bytes(start, len);
    if in_ram == len && caching == Caching::WriteBack {
        return Ok(Mapping { address: non_null(layout::direct_map(phys)), len_bytes, window: None });
    }
    if in_ram > 0 {
        return Err(MapError::OverlapsRam { phys, len_bytes });
    }
    let align = if len >= PAGE_SIZE_2M { PAGE_SIZE_2M } else { PAGE_SIZE };
    let virt = with_device_window(|window| window.allocate(len, align, start))
        .ok_or(OutOfMemory { len_bytes: len })?;
    if let Err(error) = map_device(virt, start, len, caching) {
        with_device_window(|window| window.release(virt, len));
        return Err(error);
    }
    Ok(Mapping { address: non_null(virt + (phys - start)), len_bytes, window: Some((virt, len)) })
}

/// Maps the local APIC's registers at the fixed address that pv-ops writes the end of interrupt to.
///
/// # Errors
/// As [`device`]; [`MapError::AlreadyMapped`] the second time.
pub fn local_apic(phys: u64) -> Result<NonNull<u8>, MapError> {
    let (start, len) = pages(phys, PAGE_SIZE)?;
    if start != phys || ram_bytes(start, len) > 0 {
        return Err(MapError::OverlapsRam { phys, len_bytes: PAGE_SIZE });
    }
    let virt = pv_ops::native::LOCAL_APIC;
    map_device(virt, phys, len, Caching::Uncached)?;
    Ok(non_null(virt))
}

/// Maps registers. A hypervisor that checks page tables may refuse some, which then read as not mapped.
fn map_device(virt: u64, phys: u64, len_bytes: u64, caching: Caching) -> Result<(), MapError> {
    with_tables(|tables| {
        tables.map(virt, phys, len_bytes, Protection::ReadWrite, caching)?;
        let mut mapped = 0;
        tables.visit(virt, len_bytes, &mut |leaf| {
            mapped += leaf.level.span();
            true
        });
        if mapped < len_bytes {
            tables.unmap(virt, len_bytes, &mut |_| {})?;
            return Err(MapError::Refused { phys, len_bytes });
        }
        Ok(())
    })
}

/// Registers or tables, mapped while it lives.
#[derive(Debug)]
pub struct Mapping {
    address: NonNull<u8>,
    len_bytes: u64,
    /// What to give back: first page and bytes in the device window. `None` for RAM of the direct map.
    window: Option<(u64, u64)>,
}

// SAFETY: the mapping belongs to the address space, not to a CPU; the pointer is only handed out.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Its first byte.
    pub fn as_ptr(&self) -> NonNull<u8> {
        self.address
    }

    /// Its bytes.
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let Some((virt, len)) = self.window else { return };
        // The range is one that `map` mapped, so no page is split and it cannot fail.
        if with_tables(|tables| tables.unmap(virt, len, &mut |_| {})).is_ok() {
            with_device_window(|window| window.release(virt, len));
        }
    }
}

/// The whole pages around a physical range: first address and bytes.
fn pages(phys: u64, len_bytes: u64) -> Result<(u64, u64), MapError> {
    let bad = MapError::BadRange { start: phys, len_bytes };
    let start = align_down(phys, PAGE_SIZE);
    let end = phys.checked_add(len_bytes).and_then(|end| align_up(end, PAGE_SIZE)).ok_or(bad)?;
    if len_bytes == 0 || end > registers::physical_limit() { Err(bad) } else { Ok((start, end - start)) }
}

/// How many of the pages' bytes are RAM: the direct map maps all of it and nothing else.
fn ram_bytes(start: u64, len_bytes: u64) -> u64 {
    if start >= DIRECT_MAP_LEN_BYTES {
        return 0;
    }
    let (first, len) = (layout::direct_map(start), len_bytes.min(DIRECT_MAP_LEN_BYTES - start));
    let mut ram = 0;
    tables::with(|tables| {
        tables.visit(first, len, &mut |leaf| {
            ram += (leaf.virt + leaf.level.span()).min(first + len) - leaf.virt.max(first);
            true
        });
    });
    ram
}

fn non_null(virt: u64) -> NonNull<u8> {
    let pointer = core::ptr::with_exposed_provenance_mut(virt as usize);
    NonNull::new(pointer).expect("no window of the kernel begins at 0")
}

fn with_tables(
    act: impl FnOnce(&mut super::page_table::PageTable<tables::Live>) -> Result<(), MapError>,
) -> Result<(), MapError> {
    tables::with(act).expect("mm::init has built the page tables")
}

crate::kernel_test! {
    fn what_is_mapped_translates_until_it_is_unmapped() {
        let mut frame = frame::alloc(0).unwrap();
        frame.bytes()[5] = 42;
        let free = frame::statistics().free;
        let virt = DEVICES + DEVICES_LEN_BYTES - PAGE_SIZE;
        // SAFETY: the window's last page, which no allocation reaches; read only, while `frame` is owned.
        unsafe { map(virt, frame.address(), PAGE_SIZE, Protection::ReadOnly, Caching::WriteBack) }.unwrap();
        assert_eq!(translate(virt + 5), Some(frame.address() + 5));
        let byte: *const u8 = core::ptr::with_exposed_provenance(virt as usize + 5);
        // SAFETY: just mapped readable.
        assert_eq!(unsafe { byte.read_volatile() }, 42);
        // SAFETY: as above.
        let again = unsafe { map(virt, frame.address(), PAGE_SIZE, Protection::ReadOnly, Caching::WriteBack) };
        assert_eq!(again, Err(MapError::AlreadyMapped { virt }));
        // SAFETY: nothing refers to the page.
        unsafe { unmap(virt, PAGE_SIZE) }.unwrap();
        assert_eq!(translate(virt), None);
        assert_eq!(frame::statistics().free, free, "tables were not freed");
    }
}

crate::kernel_test! {
    fn ram_is_not_mapped_as_a_device() {
        let frame = frame::alloc(0).unwrap();
        for caching in [Caching::Uncached, Caching::WriteCombining] {
            let result = device(frame.address() + 8, 8, caching);
            assert_eq!(result, Err(MapError::OverlapsRam { phys: frame.address() + 8, len_bytes: 8 }));
        }
        let address = device(frame.address() + 8, 8, Caching::WriteBack).unwrap();
        assert_eq!(layout::direct_map_phys(address.addr().get() as u64), Some(frame.address() + 8));
        assert!(local_apic(frame.address()).is_err());
    }
}

crate::kernel_test! {
    fn absurd_device_ranges_are_refused() {
        let limit = registers::physical_limit();
        for (phys, len_bytes) in [(0xfee0_0000, 0), (u64::MAX - 8, 16), (limit, 8), (limit - 8, 16), (1 << 35, u64::MAX)] {
            let result = device(phys, len_bytes, Caching::Uncached);
            assert!(matches!(result, Err(MapError::BadRange { .. })), "{phys:#x} {len_bytes:#x}: {result:?}");
        }
    }
}

crate::kernel_test! {
    fn a_dropped_device_mapping_leaves_nothing_behind() {
        let phys = registers::physical_limit() - 0x1000;
        match mapping(phys, 8, Caching::Uncached) {
            Err(error @ MapError::Refused { .. }) => crate::skip!("{error}"),
            mapped => drop(mapped.unwrap()),
        }
        let free = frame::statistics().free;
        let mapped = mapping(phys + 0x10, 8, Caching::Uncached).unwrap();
        let virt = mapped.as_ptr().addr().get() as u64;
        assert_eq!(translate(virt), Some(phys + 0x10));
        drop(mapped);
        assert_eq!(translate(virt), None);
        assert_eq!(frame::statistics().free, free);
    }
}
