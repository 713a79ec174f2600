//! Memory that a device reads and writes by itself (DMA): shared words, and buffers that change hands.
//!
//! [`Dma`] is memory that both sides may access at any time, such as a ring: every access of ours is atomic.
//! [`DmaBuffer`] is memory that has one owner at a time: the caller, who sees plain bytes, or a queue, which keeps
//! it for as long as the device may access it. Neighbours: `hal` (who allocates), `virtio::queue` (who shares).
//!
//! A device without an IOMMU in front can write wherever it likes; no driver can keep it from that. What these types
//! promise is that our side never tells it of memory that is somebody else's, and never believes what it wrote
//! without a check.

mod segment;

use alloc::boxed::Box;
use core::{
    ops::Range,
    ptr::NonNull,
    sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64},
};

pub use segment::{Direction, Piece, Segment};

/// Memory shared with a device. Dropping it gives it back to its allocator.
pub struct Dma {
    start: NonNull<u8>,
    address: u64,
    len: usize,
    /// `len` without what is left over from words of eight bytes.
    whole_words: usize,
    /// Frees the memory when it is dropped.
    owner: Box<dyn Send + Sync>,
}

// SAFETY: The memory is the same on every CPU (1 of `Dma::new`) and is accessed by atomic operations only.
unsafe impl Send for Dma {}
// SAFETY: As above.
unsafe impl Sync for Dma {}

impl Dma {
    /// Alignment of the first byte.
    pub const ALIGN: usize = 4096;

    /// The `len` bytes at `start`, which devices know as `address`. `owner` keeps them: its drop frees them.
    ///
    /// # Safety
    /// 1. The bytes are initialised memory, readable and writable on every CPU, until `owner` is dropped.
    /// 2. Nobody else accesses them until then, but devices that were told `address`.
    ///
    /// # Panics
    /// If `start` or `address` is not a multiple of [`ALIGN`](Self::ALIGN), or the range of addresses wraps around.
    pub unsafe fn new(start: NonNull<u8>, address: u64, len: usize, owner: Box<dyn Send + Sync>) -> Self {
        assert!(start.addr().get().is_multiple_of(Self::ALIGN) && address.is_multiple_of(Self::ALIGN as u64));
        assert!(address.checked_add(len as u64).is_some(), "{len} bytes at {address:#x}");
        Self { start, address, len, whole_words: len & !7, owner }
    }

    /// Where the device finds the first byte.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no byte at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Never frees the memory: a device that cannot be stopped may write to it at any time.
    pub fn keep_for_ever(&mut self) {
        core::mem::forget(core::mem::replace(&mut self.owner, Box::new(())));
    }

    /// The byte at `offset`.
    ///
    /// # Panics
    /// This and the methods for wider words: if the word does not lie inside, or is not aligned to its size.
    pub fn u8(&self, offset: usize) -> &AtomicU8 {
        self.word(offset)
    }

    /// The 16-bit word at `offset`.
    pub fn u16(&self, offset: usize) -> &AtomicU16 {
        self.word(offset)
    }

    /// The 32-bit word at `offset`.
    pub fn u32(&self, offset: usize) -> &AtomicU32 {
        self.word(offset)
    }

    /// The 64-bit word at `offset`.
    pub fn u64(&self, offset: usize) -> &AtomicU64 {
        self.word(offset)
    }

    /// Number `index` of the pieces of `WORDS` 64-bit words each that the memory is made of.
    ///
    /// # Panics
    /// If it does not lie inside.
    #[inline]
    pub fn piece<const WORDS: usize>(&self, index: usize) -> Piece<'_, WORDS> {
        let bytes = size_of::<[AtomicU64; WORDS]>();
        if index >= self.whole_words / bytes {
            self.has_no(index, bytes);
        }
        // SAFETY: inside the memory, as just checked, which is one allocation (1 of `new`).
        let words = unsafe { self.start.add(index * bytes) }.cast::<[AtomicU64; WORDS]>();
        // SAFETY: as in `word`, for each of them.
        Piece::new(unsafe { words.as_ref() }, self.address + (index * bytes) as u64)
    }

    /// Its arguments are values, so that who checks need not keep them in memory.
    #[cold]
    fn has_no(&self, index: usize, bytes: usize) -> ! {
        panic!("piece {index} of {bytes} bytes each, of {} bytes", self.len);
    }

    #[inline]
    fn word<A: Atomic>(&self, offset: usize) -> &A {
        // Where a word of eight bytes could begin, so could any other that is aligned.
        let inside = offset < self.whole_words && offset.is_multiple_of(align_of::<A>());
        if !inside {
            self.check(offset, size_of::<A>());
        }
        // SAFETY: inside the memory, as just checked, which is one allocation (1 of `new`).
        let word = unsafe { self.start.add(offset) }.cast::<A>();
        // SAFETY:
        // 1. The word is initialised and stays mapped while `self` keeps the owner (1 of `new`); it is aligned, as
        //    `start` is to `ALIGN` and `offset` was checked.
        // 2. The program accesses it by atomic operations only: there is no other way here, and nobody else may (2).
        unsafe { word.as_ref() }
    }

    /// Goes on only if the word of `size` bytes, as it is aligned, lies inside.
    #[cold]
    fn check(&self, offset: usize, size: usize) {
        let inside = self.len.checked_sub(size).is_some_and(|last| offset <= last);
        assert!(inside && offset.is_multiple_of(size), "word at {offset} of {} bytes", self.len);
    }
}

impl core::fmt::Debug for Dma {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(out, "{} bytes of DMA memory at {:#x}", self.len, self.address)
    }
}

trait Atomic: sealed::Sealed {}
impl Atomic for AtomicU8 {}
impl Atomic for AtomicU16 {}
impl Atomic for AtomicU32 {}
impl Atomic for AtomicU64 {}

mod sealed {
    use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};
    pub(super) trait Sealed {}
    impl Sealed for AtomicU8 {}
    impl Sealed for AtomicU16 {}
    impl Sealed for AtomicU32 {}
    impl Sealed for AtomicU64 {}
}

/// Memory for the data of a request. It is given to a driver with the request and comes back with the outcome; in
/// between nobody has a reference to it. To move it is to move a pointer.
#[derive(Debug)]
pub struct DmaBuffer(Box<Buffer>);

#[derive(Debug)]
struct Buffer {
    memory: Dma,
    len: usize,
}

impl DmaBuffer {
    /// All of `memory`.
    pub fn new(memory: Dma) -> Self {
        let len = memory.len();
        Self(Box::new(Buffer { memory, len }))
    }

    /// Bytes in use.
    pub fn len(&self) -> usize {
        self.0.len
    }

    /// Whether no byte is in use.
    pub fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    /// Bytes there is room for.
    pub fn capacity(&self) -> usize {
        self.0.memory.len()
    }

    /// Uses the first `len` bytes, or all if there are fewer.
    pub fn set_len(&mut self, len: usize) {
        self.0.len = len.min(self.capacity());
    }

    /// The bytes in use.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY:
        // 1. `len` bytes from `start` are initialised memory that lives as long as `memory` (1 of `Dma::new`).
        // 2. Who has a reference to the buffer owns it, so that no queue does, and no device was told of it that
        //    has not given it back; the exclusive way in is `bytes_mut`.
        unsafe { core::slice::from_raw_parts(self.0.memory.start.as_ptr(), self.0.len) }
    }

    /// The bytes in use, to be changed.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; `self` is borrowed exclusively.
        unsafe { core::slice::from_raw_parts_mut(self.0.memory.start.as_ptr(), self.0.len) }
    }

    /// What a device is told of the bytes in use.
    ///
    /// # Panics
    /// If there are none.
    #[inline]
    pub(crate) fn whole(&self, direction: Direction) -> Segment {
        // Not more than there are: see `set_len`.
        Segment::part(self.0.memory.address, self.0.len, 0..self.0.len, direction)
    }

    /// What a device is told of the bytes `range` of it.
    pub(crate) fn segment(&self, range: Range<usize>, direction: Direction) -> Segment {
        assert!(range.end <= self.0.len);
        Segment::new(&self.0.memory, range, direction)
    }
}

#[cfg(any(test, feature = "script"))]
pub(crate) mod testing {
    use super::*;
    use std::{sync::Arc, vec::Vec};

    /// A page-aligned piece of the test's heap.
    #[repr(C, align(4096))]
    pub(crate) struct Page([AtomicU64; 512]);

    /// Zeroed memory as DMA memory at `address`, twice: as the driver has it, and as the device sees it.
    pub(crate) fn shared(address: u64, len: usize, owner: Box<dyn Send + Sync>) -> (Dma, Dma) {
        let pages: Vec<Page> =
            (0..len.div_ceil(4096)).map(|_| Page([const { AtomicU64::new(0) }; 512])).collect();
        let pages = Arc::new(pages);
        let start = NonNull::from(pages.as_slice()).cast::<u8>();
        // SAFETY:
        // 1. The pages are initialised, and live until both owners are dropped.
        // 2. Both sides go through `Dma`; a `DmaBuffer` is accessed by the device only while a queue owns it.
        let driver = unsafe { Dma::new(start, address, len, Box::new((owner, pages.clone()))) };
        // SAFETY: as above.
        let device = unsafe { Dma::new(start, address, len, Box::new(pages)) };
        (driver, device)
    }
}
