//! Physical memory: who owns which frame.
//!
//! [`alloc()`] and [`free`] go to the CPU's own spare frames first, then to the buddy allocator that all CPUs
//! share. An owned block of memory is a [`Frame`]; it is readable and writable through the direct map.
//! Neighbours: `early` gives the memory at boot, `heap` and `map` take it from here.

mod bits;
pub(super) mod buddy;
mod cache;

use core::{ops::Range, ptr::NonNull};

pub(super) use self::cache::Cache as SpareFrames;

use self::{buddy::Buddy, cache::Cache};
use super::layout::{self, PAGE_SIZE};
use crate::sync::{IrqMutex, OnceCell};

pub use buddy::MAX_ORDER;

static BUDDY: IrqMutex<Option<Buddy<'static>>> = IrqMutex::new(None);

/// Called when memory has run out, with locks held by who needs some: gives some back, or says that it cannot.
static RELIEF: OnceCell<fn() -> bool> = OnceCell::uninit();

/// There is not enough memory, or not in one piece. An app can handle it: free something, or do with less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("out of memory: {} KiB are not free in one piece", len_bytes.div_ceil(1024))]
pub struct OutOfMemory {
    /// Bytes that were asked for.
    pub len_bytes: u64,
}

/// A block of 2^order frames, aligned to its size, that the holder alone owns. Its content is whatever was
/// there before. Dropping it gives it back.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct Frame {
    /// Physical address of the first byte. Invariant: handed out by the allocator, in the direct map.
    address: u64,
    order: u8,
}

/// Memory in numbers of frames of 4 KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Frames the allocator has in all.
    pub total: u64,
    /// Frames that are free, the CPUs' spare frames included.
    pub free: u64,
    /// Order of the largest free block: 2^order frames in one piece. `None` when no block is free.
    pub largest_order: Option<u8>,
}

impl Statistics {
    /// Bytes in all.
    pub fn total_bytes(&self) -> u64 {
        self.total * PAGE_SIZE
    }

    /// Bytes that are free.
    pub fn free_bytes(&self) -> u64 {
        self.free * PAGE_SIZE
    }
}

/// A block of 2^`order` frames; order 0 is one frame of 4 KiB, [`MAX_ORDER`] is 4 MiB.
///
/// # Errors
/// [`OutOfMemory`] when no block of that size is free, and always above [`MAX_ORDER`].
pub fn alloc(order: u8) -> Result<Frame, OutOfMemory> {
    loop {
        match alloc_spare(order) {
            // Memory that is there in smaller pieces is the caller's to ask for.
            Err(_) if order <= MAX_ORDER && statistics().free < 1 << order && relief() => {}
            result => return result,
        }
    }
}

/// Whether `len_bytes` bytes are free, in pieces of whatever size, if need be because somebody gave some back.
pub fn make_free(len_bytes: u64) -> bool {
    loop {
        let free_bytes = statistics().free_bytes();
        if len_bytes <= free_bytes {
            return true;
        }
        // No relief brings what the machine does not have.
        if len_bytes > statistics().total_bytes() || !relief() {
            return false;
        }
    }
}

/// As [`alloc()`], but nobody is asked to give memory back for it.
///
/// # Errors
/// As [`alloc()`].
pub fn alloc_spare(order: u8) -> Result<Frame, OutOfMemory> {
    let take = || match order {
        0 => alloc_one(),
        _ => with_buddy(|buddy| buddy.allocate(order)).flatten(),
    };
    or_with_spare_frames(take).map(|number| Frame::new(number, order)).ok_or_else(|| out_of_memory(order))
}

/// From now on `relief` is called when an allocation fails, as long as it says that it gave some memory back. Its caller
/// may hold any lock from the heap on: it must neither allocate nor wait for a lock further out. The first one stays.
pub fn on_shortage(relief: fn() -> bool) {
    let _ = RELIEF.try_init_once(|| relief);
}

#[cold]
fn relief() -> bool {
    RELIEF.try_get().is_ok_and(|relief| relief())
}

/// A free block of order [`MAX_ORDER`] of which the host was not told that it is free. It was when the block is dropped
/// by [`free_reported`].
pub fn alloc_unreported() -> Option<Frame> {
    with_buddy(|buddy| buddy.allocate_unreported()).flatten().map(|number| Frame::new(number, MAX_ORDER))
}

/// Frees a block of which the host knows that its content is not needed.
pub fn free_reported(frame: Frame) {
    let (number, order) = (frame.address / PAGE_SIZE, frame.order);
    drop(frame);
    if order == MAX_ORDER {
        with_buddy(|buddy| buddy.set_reported(number));
    }
}

/// A block that lies below the physical address `limit`, for devices and CPU start-up code that reach no further.
///
/// # Errors
/// [`OutOfMemory`] when no block of that size is free there.
pub fn alloc_below(order: u8, limit: u64) -> Result<Frame, OutOfMemory> {
    let take = || with_buddy(|buddy| buddy.allocate_below(order, limit / PAGE_SIZE)).flatten();
    or_with_spare_frames(take).map(|number| Frame::new(number, order)).ok_or_else(|| out_of_memory(order))
}

/// Gives a block back: the same as dropping it.
pub fn free(frame: Frame) {
    drop(frame);
}

/// How much memory there is.
pub fn statistics() -> Statistics {
    let spare: u64 = super::locals().map(|local| local.frames.lock().len() as u64).sum();
    with_buddy(|buddy| Statistics {
        total: buddy.total_frames(),
        free: buddy.free_frames() + spare,
        largest_order: buddy.largest_free_order(),
    })
    .unwrap_or_default()
}

/// Gives the CPUs' spare frames back to the shared allocator, so that they merge to larger blocks.
pub fn drain_caches() {
    for local in super::locals() {
        give_back(&mut local.frames.lock(), cache::CAPACITY);
    }
}

impl Frame {
    /// The block that the allocator gave out under this frame number.
    fn new(number: u64, order: u8) -> Self {
        Self { address: number * PAGE_SIZE, order }
    }

    /// Physical address of the first byte.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// The block has 2^order frames.
    pub fn order(&self) -> u8 {
        self.order
    }

    /// Bytes of the block.
    pub fn len_bytes(&self) -> u64 {
        PAGE_SIZE << self.order
    }

    /// Its first byte in the direct map: valid for reads and writes of [`len_bytes`](Self::len_bytes) while
    /// the frame is owned.
    pub fn as_ptr(&self) -> NonNull<u8> {
        let virt = layout::direct_map(self.address);
        NonNull::new(core::ptr::with_exposed_provenance_mut(virt as usize))
            .expect("the direct map is not at 0")
    }

    /// Its bytes.
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY:
        // 1. The block is RAM of the direct map, mapped writable, `len_bytes` long (invariant of `address`).
        // 2. The frame is owned and borrowed for as long as the slice lives: nothing else refers to it.
        // 3. Every bit pattern is a valid `u8`.
        unsafe { core::slice::from_raw_parts_mut(self.as_ptr().as_ptr(), self.len_bytes() as usize) }
    }

    /// Its two halves; a single frame comes back whole.
    ///
    /// # Errors
    /// The frame, if it has no halves.
    pub fn split(self) -> Result<(Self, Self), Self> {
        let Some(order) = self.order.checked_sub(1) else { return Err(self) };
        let address = self.into_raw();
        Ok((Self { address, order }, Self { address: address + (PAGE_SIZE << order), order }))
    }

    /// Gives up the ownership without freeing; [`from_raw`](Self::from_raw) takes it up again.
    pub fn into_raw(self) -> u64 {
        let address = self.address;
        core::mem::forget(self);
        address
    }

    /// Takes up the ownership of a block that [`into_raw`](Self::into_raw) gave up.
    ///
    /// # Safety
    /// `address` and `order` are those of a block (or of an aligned part of a block) given up by `into_raw`,
    /// it was not taken up since, and nothing refers to its memory any more.
    pub unsafe fn from_raw(address: u64, order: u8) -> Self {
        Self { address, order }
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        let number = self.address / PAGE_SIZE;
        if self.order == 0 { free_one(number) } else { free_block(number, self.order) }
    }
}

/// Hands the allocator over to this module; called once, by `early`, before any other function here.
pub(super) fn install(buddy: Buddy<'static>) {
    *BUDDY.lock() = Some(buddy);
}

/// Gives memory that is in use no more to the allocator for good.
///
/// # Safety
/// The frames `frames` are RAM of the direct map, within the allocator's range, were not given to it before, and
/// nothing refers to them.
pub(super) unsafe fn donate(frames: Range<u64>) {
    with_buddy(|buddy| buddy.add(frames));
}

/// Keeps those of `frames` that are free from ever being handed out.
pub(super) fn reserve(frames: Range<u64>) {
    with_buddy(|buddy| buddy.reserve(frames));
}

fn out_of_memory(order: u8) -> OutOfMemory {
    OutOfMemory { len_bytes: PAGE_SIZE.checked_shl(order.into()).unwrap_or(u64::MAX) }
}

fn with_buddy<R>(act: impl FnOnce(&mut Buddy<'static>) -> R) -> Option<R> {
    BUDDY.lock().as_mut().map(act)
}

/// What `take` finds, at the second try among the CPUs' spare frames too.
fn or_with_spare_frames(take: impl Fn() -> Option<u64>) -> Option<u64> {
    take().or_else(|| {
        drain_caches();
        take()
    })
}

fn alloc_one() -> Option<u64> {
    let mut cache = super::local().frames.lock();
    if let Some(number) = cache.pop() {
        return Some(number);
    }
    with_buddy(|buddy| {
        let number = buddy.allocate(0);
        for spare in (1..cache::BATCH).map_while(|_| buddy.allocate(0)) {
            cache.push(spare);
        }
        number
    })
    .flatten()
}

fn free_one(number: u64) {
    let mut cache = super::local().frames.lock();
    assert!(!cache.contains(number), "frame {number:#x} was freed twice");
    if cache.is_full() {
        give_back(&mut cache, cache::BATCH);
    }
    cache.push(number);
}

fn free_block(number: u64, order: u8) {
    if let Some(Err(error)) = with_buddy(|buddy| buddy.free(number, order)) {
        panic!("{error}");
    }
}

fn give_back(cache: &mut Cache, count: usize) {
    with_buddy(|buddy| {
        for number in cache.take_oldest(count) {
            if let Err(error) = buddy.free(number, 0) {
                panic!("{error}");
            }
        }
    });
}

crate::kernel_test! {
    /// Every frame is handed out once, can be written to, and comes back.
    fn all_memory_can_be_taken_and_comes_back() {
        let mut end = 0;
        super::map::for_each_page(|leaf| {
            end = layout::direct_map_phys(leaf.virt).map_or(end, |phys| end.max(phys + leaf.level.span()));
        });
        let mut taken = alloc::vec![false; (end / PAGE_SIZE) as usize];
        super::heap::trim();
        let before = statistics();
        while let Ok(mut frame) = alloc(0) {
            let number = (frame.address() / PAGE_SIZE) as usize;
            // A few are written to: a host that has to find memory for all of them takes a second for it.
            if number.is_multiple_of(8191) {
                frame.bytes().fill(0xa5);
            }
            assert!(!core::mem::replace(&mut taken[number], true), "handed out twice: {frame:x?}");
            frame.into_raw();
        }
        assert_eq!(statistics().free, 0);
        assert_eq!(alloc(3), Err(OutOfMemory { len_bytes: 32 << 10 }));
        let mut count = 0;
        for (number, _) in taken.iter().enumerate().filter(|(_, taken)| **taken) {
            // SAFETY: each was given up above, once, and is taken up here, once.
            drop(unsafe { Frame::from_raw(number as u64 * PAGE_SIZE, 0) });
            count += 1;
        }
        drain_caches();
        assert_eq!((count, statistics()), (before.free, before));
    }
}

crate::kernel_test! {
    /// Halves of a block are blocks, and come back one by one.
    fn a_block_can_be_split() {
        let before = statistics().free;
        let (low, high) = alloc(3).unwrap().split().unwrap();
        assert_eq!((low.order(), high.order(), high.address() - low.address()), (2, 2, low.len_bytes()));
        drop(low);
        let (_, frame) = high.split().unwrap().0.split().unwrap();
        assert!(frame.split().is_err_and(|frame| frame.order() == 0));
        drain_caches();
        assert_eq!(statistics().free, before);
    }
}

crate::kernel_test! {
    fn blocks_are_aligned_to_their_size() {
        for order in 0..=MAX_ORDER {
            let Ok(frame) = alloc(order) else { continue };
            assert_eq!(frame.address() % frame.len_bytes(), 0);
            assert_eq!(super::map::translate(frame.as_ptr().addr().get() as u64), Some(frame.address()));
        }
        assert!(alloc(MAX_ORDER + 1).is_err() && alloc(u8::MAX).is_err());
    }
}

crate::kernel_test! {
    fn low_memory_is_there_for_who_needs_it() {
        let frame = alloc_below(0, 1 << 20).unwrap();
        assert!(frame.address() > 0 && frame.address() < 1 << 20);
        assert!(alloc_below(0, PAGE_SIZE).is_err());
    }
}
