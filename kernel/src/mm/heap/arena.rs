//! Middle-sized allocations: one arena that grows by mapping frames behind its end, managed by
//! `linked_list_allocator`. It never shrinks; what is larger than [`MAX_SIZE`] is mapped on its own (`huge`).

use core::{alloc::Layout, ptr::NonNull};
use linked_list_allocator::Heap;

use crate::{
    mm::{
        layout::{HEAP, HEAP_LEN_BYTES, PAGE_SIZE, align_up},
        map,
    },
    sync::IrqMutex,
};

/// Larger requests are not for the arena.
pub(super) const MAX_SIZE: usize = 256 << 10;
/// The arena grows by this much at least, if there is so much.
const GROWTH: u64 = 32 << 10;
/// What the allocator may need beside the request: a hole before an aligned block and one behind.
const OVERHEAD: u64 = 64;

static ARENA: IrqMutex<Arena> = IrqMutex::new(Arena { heap: Heap::empty(), len_bytes: 0 });

struct Arena {
    heap: Heap,
    /// Mapped bytes, from [`HEAP`] on.
    len_bytes: u64,
}

/// Bytes handed out and bytes mapped.
pub(super) fn used_and_len_bytes() -> (u64, u64) {
    let arena = ARENA.lock();
    (arena.heap.used() as u64, arena.len_bytes)
}

/// Memory for `layout`; `None` when it has run out.
pub(super) fn allocate(layout: Layout) -> Option<NonNull<u8>> {
    let mut arena = ARENA.lock();
    arena.heap.allocate_first_fit(layout).ok().or_else(|| {
        arena.grow(layout)?;
        arena.heap.allocate_first_fit(layout).ok()
    })
}

/// Gives memory back.
///
/// # Safety
/// `memory` came from [`allocate`] for the same `layout`, and nothing refers to it any more.
pub(super) unsafe fn free(memory: NonNull<u8>, layout: Layout) {
    // SAFETY: the caller's word is what `deallocate` asks for.
    unsafe { ARENA.lock().heap.deallocate(memory, layout) };
}

impl Arena {
    /// Maps as much behind the end as `layout` needs.
    fn grow(&mut self, layout: Layout) -> Option<()> {
        let needed = layout.size() as u64 + layout.align() as u64 + OVERHEAD;
        let needed = align_up(needed, PAGE_SIZE)?;
        let len = [needed.max(GROWTH), needed].into_iter().find(|len| self.map_more(*len))?;
        if self.len_bytes == 0 {
            let start = core::ptr::with_exposed_provenance_mut(HEAP as usize);
            // SAFETY: `len` bytes from `HEAP` were just mapped writable, for ever, and are nobody else's.
            unsafe { self.heap.init(start, len as usize) };
        } else {
            // SAFETY: `len` bytes behind the heap's end were just mapped writable, for ever, and are nobody else's.
            unsafe { self.heap.extend(len as usize) };
        }
        self.len_bytes += len;
        Some(())
    }

    fn map_more(&self, len: u64) -> bool {
        // SAFETY: the window from `HEAP` on is the arena's, and nothing is mapped behind its end.
        self.len_bytes + len <= HEAP_LEN_BYTES && unsafe { map::back(HEAP + self.len_bytes, len) }.is_ok()
    }
}
