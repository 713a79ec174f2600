//! Small allocations: a magazine of free objects for each CPU and size, slabs of that size behind it.
//!
//! Only when the CPU's magazine runs empty or full is the lock of the size's slabs taken, for a batch of objects.
//! Neighbours: `classes` (the sizes), `magazine`, `slab`.

use core::{
    ptr::NonNull,
    sync::atomic::{AtomicBool, Ordering},
};

use super::{
    classes::{self, Class, SIZES},
    magazine::{self, Magazine},
    slab::{Blocks, Slabs},
};
use crate::{
    cpu::{self, PerCpu, percpu},
    mm::{
        frame::{self, Frame},
        layout::{self, PAGE_SIZE},
        local,
    },
    sync::{IrqMutex, IrqState},
};

/// A CPU's free objects of every class.
pub(in crate::mm) type Magazines = [Magazine; SIZES.len()];

/// No objects.
pub(in crate::mm) const fn no_magazines() -> Magazines {
    [const { Magazine::new() }; SIZES.len()]
}

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

/// An object of `class` from the slabs, and some for the magazine; `None` when memory has run out.
pub(super) fn allocate(class: Class) -> Option<NonNull<u8>> {
    // Interrupts are disabled as long as it is locked: the magazine is that of one CPU.
    let mut slabs = SLABS[class.index()].lock();
    let wanted = slabs.allocate(&mut Frames)?;
    for _ in 1..class.batch() {
        let Some(spare) = slabs.allocate(&mut Frames) else { break };
        // SAFETY: the object was just allocated. A handler may have filled the magazine before the lock was taken.
        if !unsafe { magazine::put(class, spare) } {
            // SAFETY: as above.
            unsafe { slabs.free(spare, &mut Frames) };
        }
    }
    Some(wanted)
}

/// Gives an object of `class` back to the slabs, and some of the magazine.
///
/// # Safety
/// `object` came from [`allocate`] of the same class, and nothing refers to it any more.
pub(super) unsafe fn free(class: Class, object: NonNull<u8>) {
    let mut slabs = SLABS[class.index()].lock();
    // SAFETY: the caller's word.
    unsafe { slabs.free(object, &mut Frames) };
    flush(class, &mut slabs, class.batch());
}

/// Gives so many objects of this CPU's magazine back to the slabs, or all.
fn flush(class: Class, slabs: &mut Slabs, count: usize) {
    for object in core::iter::from_fn(|| magazine::take(class)).take(count) {
        // SAFETY: the magazine of a class holds objects of that class's slabs, and owns them.
        unsafe { slabs.free(object, &mut Frames) };
    }
}

/// Gives the objects of this CPU's magazines back to the slabs, and with them the slabs that empty to the frames. Interrupts
/// are disabled.
pub(in crate::mm) fn trim_own() {
    for class in Class::all() {
        flush(class, &mut SLABS[class.index()].lock(), usize::MAX);
    }
}

/// As [`trim_own`], on every CPU: the others are asked to, and waited for where interrupts are enabled. Where they are not
/// somebody could wait for this CPU, who cannot wait for others: they do it soon.
pub(super) fn trim() {
    // On one CPU, so that no other is left out.
    let here = IrqState::disable();
    trim_own();
    let has_some = |cpu: &&PerCpu| !cpu.memory().magazines.iter().all(Magazine::is_empty);
    let others = percpu::others();
    let others = others.iter().filter_map(percpu::by_id).filter(has_some);
    others.for_each(|cpu| {
        cpu.memory().trims.store(true, Ordering::Relaxed);
        cpu::kick(cpu.id());
    });
    drop(here);
    if pv_ops::irq_flags() & cpu::RFLAGS_IF == 0 {
        return;
    }
    for cpu in percpu::all() {
        while cpu.memory().trims.load(Ordering::Acquire) && percpu::is_up(cpu.id()) {
            pv_ops::sched_yield();
        }
    }
}

/// Does what another CPU asked this one for; interrupts are disabled.
pub(crate) fn serve() {
    let trims: &AtomicBool = &local().trims;
    if trims.load(Ordering::Relaxed) {
        trim_own();
        trims.store(false, Ordering::Release);
    }
}

/// Bytes of all slabs.
pub(super) fn len_bytes() -> usize {
    SLABS.iter().map(|slabs| slabs.lock().len_bytes()).sum()
}
