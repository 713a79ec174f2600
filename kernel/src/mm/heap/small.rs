//! Small allocations: a magazine of free objects for each CPU and size, slabs of that size behind it.
//!
//! Taking from or putting into the CPU's magazine is a push or pop of a list that no other CPU wants; only when
//! it runs empty or full is the lock of the size's slabs taken, for a batch of objects.
//! Neighbours: `classes` (the sizes), `slab`.

use core::ptr::NonNull;

use super::{
    classes::{self, SIZES},
    slab::{Blocks, FreeList, Slabs},
};
use crate::{
    mm::{
        frame::{self, Frame},
        layout::{self, PAGE_SIZE},
        local, locals,
    },
    sync::IrqMutex,
};

/// A CPU's free objects of every class.
pub(in crate::mm) type Magazines = [FreeList; SIZES.len()];

/// No objects.
pub(in crate::mm) const NO_MAGAZINES: Magazines = [const { FreeList::EMPTY }; SIZES.len()];

static SLABS: [IrqMutex<Slabs>; SIZES.len()] = {
    let mut slabs = [const { IrqMutex::new(Slabs::new(16, PAGE_SIZE as usize)) }; SIZES.len()];
    let mut class = 1;
    while class < SIZES.len() {
        slabs[class] = IrqMutex::new(Slabs::new(SIZES[class], classes::slab_len(class)));
        class += 1;
    }
    slabs
};

/// Slabs are blocks of frames in the direct map: nothing need be mapped.
struct Frames;

// SAFETY: a `Frame` is a block of its length, aligned to it in physical memory and, because the direct map
// begins at a multiple of every order, there; it is owned until freed.
unsafe impl Blocks for Frames {
    fn allocate(&mut self, len: usize) -> Option<NonNull<u8>> {
        let frame = frame::alloc(order(len)).ok()?;
        let block = frame.as_ptr();
        frame.into_raw();
        Some(block)
    }

    unsafe fn free(&mut self, block: NonNull<u8>, len: usize) {
        if let Some(phys) = layout::direct_map_phys(block.addr().get() as u64) {
            // SAFETY: `allocate` gave up this very block; the caller says that nothing refers to it.
            drop(unsafe { Frame::from_raw(phys, order(len)) });
        }
    }
}

fn order(len: usize) -> u8 {
    (len as u64 / PAGE_SIZE).ilog2() as u8
}

/// An object of `class`; `None` when memory has run out.
#[inline]
pub(super) fn allocate(class: usize) -> Option<NonNull<u8>> {
    let mut magazines = local().magazines.lock();
    let magazine = &mut magazines[class];
    magazine.pop().or_else(|| refill(class, magazine))
}

/// Gives an object of `class` back.
///
/// # Safety
/// `object` came from [`allocate`] of the same class, and nothing refers to it any more.
#[inline]
pub(super) unsafe fn free(class: usize, object: NonNull<u8>) {
    let mut magazines = local().magazines.lock();
    let magazine = &mut magazines[class];
    // SAFETY: the caller gives the object up; every class has 16 bytes at least, aligned to 16.
    unsafe { magazine.push(object) };
    if magazine.len() > 2 * classes::batch(class) {
        flush(class, magazine, classes::batch(class));
    }
}

/// Gives all magazines' objects back to the slabs, and with them the slabs that empty to the frames.
pub(super) fn trim() {
    for local in locals() {
        for (class, magazine) in local.magazines.lock().iter_mut().enumerate() {
            flush(class, magazine, usize::MAX);
        }
    }
}

/// Bytes of all slabs.
pub(super) fn len_bytes() -> usize {
    SLABS.iter().map(|slabs| slabs.lock().len_bytes()).sum()
}

#[cold]
fn refill(class: usize, magazine: &mut FreeList) -> Option<NonNull<u8>> {
    let mut slabs = SLABS[class].lock();
    let wanted = slabs.allocate(&mut Frames)?;
    for spare in (1..classes::batch(class)).map_while(|_| slabs.allocate(&mut Frames)) {
        // SAFETY: the object was just allocated; every class has 16 bytes at least, aligned to 16.
        unsafe { magazine.push(spare) };
    }
    Some(wanted)
}

#[cold]
fn flush(class: usize, magazine: &mut FreeList, count: usize) {
    let mut slabs = SLABS[class].lock();
    for object in core::iter::from_fn(|| magazine.pop()).take(count) {
        // SAFETY: the magazine of a class holds objects of that class's slabs, and owns them.
        unsafe { slabs.free(object, &mut Frames) };
    }
}
