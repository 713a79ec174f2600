//! The heap: Rust's global allocator.
//!
//! Three ways by size. Small (to 2 KiB): an object of a size class from the CPU's own magazine, in a few instructions.
//! Middle (to 256 KiB): a first-fit arena that grows. Huge: pages of their own. Each is safe to use from
//! interrupt handlers. When memory has run out an allocation returns null, so that `try_reserve` and its
//! relatives report an error.
//! Neighbours: `small` and `magazine`, `arena`, `huge`; `frame` and `map` give the memory.

mod arena;
mod classes;
mod huge;
mod magazine;
mod slab;
mod small;
mod torture;

pub(super) use self::small::{Magazines, no_magazines, trim_own};
pub(crate) use self::{magazine::begin_anew, small::serve};

use core::{
    alloc::{GlobalAlloc, Layout},
    ptr::NonNull,
};

use self::classes::Class;

/// Rust's global allocator. Before `mm::init` every allocation fails.
#[derive(Debug)]
pub struct KernelHeap;

#[cfg(target_os = "none")]
#[global_allocator]
static HEAP: KernelHeap = KernelHeap;

/// Memory of the heap in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// In slabs of small objects, used or not.
    pub small_bytes: u64,
    /// Handed out of the arena for middle-sized allocations.
    pub arena_used_bytes: u64,
    /// Mapped for the arena.
    pub arena_bytes: u64,
    /// In huge allocations.
    pub huge_bytes: u64,
}

/// How much memory the heap holds.
pub fn statistics() -> Statistics {
    let (arena_used_bytes, arena_bytes) = arena::used_and_len_bytes();
    let small_bytes = small::len_bytes() as u64;
    Statistics { small_bytes, arena_used_bytes, arena_bytes, huge_bytes: huge::len_bytes() }
}

/// Gives memory that is only kept ready back to the frame allocator.
pub fn trim() {
    small::trim();
    super::frame::drain_caches();
}

/// Which of the three ways a layout goes.
enum Way {
    Small(Class),
    Arena,
    Huge,
}

fn way(layout: Layout) -> Way {
    match Class::of(layout) {
        Some(class) => Way::Small(class),
        None if layout.size() <= arena::MAX_SIZE && layout.align() <= arena::MAX_SIZE => Way::Arena,
        None => Way::Huge,
    }
}

/// Memory that the magazine does not have; a second time with what was kept ready.
#[cold]
fn allocate(layout: Layout) -> Option<NonNull<u8>> {
    let once = || match way(layout) {
        Way::Small(class) => small::allocate(class),
        Way::Arena => arena::allocate(layout),
        Way::Huge => huge::allocate(layout),
    };
    once().or_else(|| {
        trim();
        once()
    })
}

/// Gives memory back for which the magazine has no room.
///
/// # Safety
/// It came from [`KernelHeap`] for the same `layout`, and nothing refers to it any more.
#[cold]
unsafe fn free(memory: NonNull<u8>, layout: Layout) {
    match way(layout) {
        // SAFETY: here and below: the caller's word; the way depends on the layout alone.
        Way::Small(class) => unsafe { small::free(class, memory) },
        // SAFETY: as above.
        Way::Arena => unsafe { arena::free(memory, layout) },
        // SAFETY: as above.
        Way::Huge => unsafe { huge::free(memory, layout) },
    }
}

// SAFETY:
// 1. Each way returns memory that is the caller's alone, of the layout's size and alignment: objects of a class
//    chosen for both, `allocate_first_fit`, whole pages.
// 2. `dealloc` goes the same way, because the way depends on the layout alone.
// 3. Nothing here unwinds, and nothing here allocates.
unsafe impl GlobalAlloc for KernelHeap {
    /// With a layout that the compiler knows, the common case is a call of a few instructions.
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let memory = Class::of(layout).and_then(magazine::take).or_else(|| allocate(layout));
        memory.map_or(core::ptr::null_mut(), NonNull::as_ptr)
    }

    #[inline]
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's word: memory that was allocated is somewhere.
        let memory = unsafe { NonNull::new_unchecked(memory) };
        // SAFETY: the caller gives the memory up, which is of this class, with 2. above.
        let was_put = Class::of(layout).is_some_and(|class| unsafe { magazine::put(class, memory) });
        if !was_put {
            // SAFETY: the caller's word.
            unsafe { free(memory, layout) };
        }
    }

    #[inline]
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's word: `new_size`, rounded up to the alignment, does not overflow.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        if let (Way::Small(old), Way::Small(new)) = (way(layout), way(new_layout))
            && old == new
        {
            return memory;
        }
        // SAFETY: the caller's word: the new size is not zero.
        let new = unsafe { self.alloc(new_layout) };
        if !new.is_null() {
            let len = layout.size().min(new_size);
            // SAFETY: both are owned, apart, and at least so long.
            unsafe { core::ptr::copy_nonoverlapping(memory, new, len) };
            // SAFETY: the caller gives the old memory, of this layout, up.
            unsafe { self.dealloc(memory, layout) };
        }
        new
    }
}

crate::kernel_test! {
    fn memory_of_every_size_and_alignment_is_apart_and_keeps_its_content() {
        let layouts = (0..20).flat_map(|size| (0..14).map(move |align| (1usize << size, 1usize << align)));
        let layouts = layouts.flat_map(|(size, align)| [size - size / 3, size].map(|size| (size, align)));
        let mut owned = alloc::vec::Vec::new();
        let mut left = crate::mm::frame::statistics().free_bytes() as usize / 2;
        for (nth, (size, align)) in layouts.enumerate() {
            if left < size + align {
                continue;
            }
            left -= size + align;
            let layout = Layout::from_size_align(size, align).unwrap();
            // SAFETY: the size is not zero.
            let memory = NonNull::new(unsafe { alloc::alloc::alloc(layout) }).unwrap();
            assert_eq!(memory.addr().get() % align, 0);
            // SAFETY: just allocated, `size` bytes long.
            unsafe { memory.write_bytes(nth as u8, size) };
            owned.push((memory, layout, nth as u8));
        }
        for (memory, layout, mark) in owned {
            // SAFETY: allocated and filled above.
            let bytes = unsafe { core::slice::from_raw_parts(memory.as_ptr(), layout.size()) };
            assert!(bytes.iter().all(|&byte| byte == mark), "{layout:?}");
            // SAFETY: allocated above for this layout.
            unsafe { alloc::alloc::dealloc(memory.as_ptr(), layout) };
        }
    }
}

crate::kernel_test! {
    fn grows_on_demand() {
        let before = statistics();
        let wanted = before.arena_bytes - before.arena_used_bytes + 1;
        let blocks = wanted as usize / arena::MAX_SIZE + 1;
        if (blocks * arena::MAX_SIZE) as u64 > crate::mm::frame::statistics().free_bytes() / 2 {
            crate::skip!("too little memory is free")
        }
        let owned: alloc::vec::Vec<_> = (0..blocks).map(|_| alloc::vec![1u8; arena::MAX_SIZE]).collect();
        assert!(statistics().arena_bytes > before.arena_bytes);
        assert!(owned.iter().flatten().all(|&byte| byte == 1));
    }
}

crate::kernel_test! {
    fn a_request_that_cannot_be_met_is_an_error() {
        let mut bytes = alloc::vec::Vec::<u8>::new();
        for len in [1 << 40, isize::MAX as usize, usize::MAX] {
            assert!(bytes.try_reserve(len).is_err());
        }
        assert!(bytes.try_reserve(100).is_ok());
    }
}

crate::kernel_test! {
    /// An app that takes all there is gets an error, and when it gives all back all is free.
    fn memory_that_ran_out_is_an_error_and_comes_back() {
        let mut owned = alloc::vec::Vec::<alloc::vec::Vec<u8>>::with_capacity(1024);
        trim();
        let before = crate::mm::frame::statistics().free;
        let mut len = 64 << 20;
        while len >= 16 {
            let mut bytes = alloc::vec::Vec::<u8>::new();
            // The arena does not shrink: it is spared here.
            let spared = (classes::MAX_SIZE + 1..=arena::MAX_SIZE).contains(&len);
            if spared || owned.len() == owned.capacity() || bytes.try_reserve_exact(len).is_err() {
                len /= 2;
                continue;
            }
            owned.push(bytes);
        }
        assert!(crate::mm::frame::statistics().free < before / 2);
        owned.clear();
        trim();
        assert_eq!(crate::mm::frame::statistics().free, before);
    }
}

crate::kernel_test! {
    fn small_memory_is_reused_without_new_frames() {
        let keep: alloc::vec::Vec<_> = (0..1000u64).map(alloc::boxed::Box::new).collect();
        let free = crate::mm::frame::statistics().free;
        for nth in 0..10_000u64 {
            assert_eq!(*core::hint::black_box(alloc::boxed::Box::new(nth)), nth);
        }
        assert_eq!(crate::mm::frame::statistics().free, free);
        assert!(keep.iter().enumerate().all(|(nth, kept)| **kept == nth as u64));
    }
}
