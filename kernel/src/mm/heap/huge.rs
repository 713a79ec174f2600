//! Huge allocations: each on pages of its own, which go back when it is freed.

use core::{
    alloc::Layout,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{
    mm::{
        layout::{HUGE, HUGE_LEN_BYTES, PAGE_SIZE, PAGE_SIZE_2M},
        map,
        window::Window,
    },
    sync::IrqMutex,
};

/// Made when first asked for: until then all zeros, so that the file does not carry it.
static WINDOW: IrqMutex<Option<Window>> = IrqMutex::new(None);

fn with_window<R>(act: impl FnOnce(&mut Window) -> R) -> R {
    act(WINDOW.lock().get_or_insert_with(|| Window::new(HUGE, HUGE_LEN_BYTES)))
}

static LEN_BYTES: AtomicU64 = AtomicU64::new(0);

/// Bytes of all huge allocations, in whole pages.
pub(super) fn len_bytes() -> u64 {
    LEN_BYTES.load(Ordering::Relaxed)
}

/// Memory for `layout`, in whole pages; `None` when there is not enough.
pub(super) fn allocate(layout: Layout) -> Option<NonNull<u8>> {
    let len = pages(layout)?;
    // What cannot be there need not be tried page by page.
    if !crate::mm::frame::make_free(len) {
        return None;
    }
    let least = if len >= PAGE_SIZE_2M { PAGE_SIZE_2M } else { PAGE_SIZE };
    let virt = with_window(|window| window.allocate(len, least.max(layout.align() as u64), 0))?;
    // SAFETY: the range is ours: the window just gave it out.
    if unsafe { map::back(virt, len) }.is_err() {
        with_window(|window| window.release(virt, len));
        return None;
    }
    LEN_BYTES.fetch_add(len, Ordering::Relaxed);
    NonNull::new(core::ptr::with_exposed_provenance_mut(virt as usize))
}

/// Gives memory back.
///
/// # Safety
/// `memory` came from [`allocate`] for the same `layout`, and nothing refers to it any more.
pub(super) unsafe fn free(memory: NonNull<u8>, layout: Layout) {
    let (virt, Some(len)) = (memory.addr().get() as u64, pages(layout)) else { return };
    // SAFETY: `allocate` mapped this range with `back`; the caller says that nothing refers to it.
    unsafe { map::unback(virt, len) };
    with_window(|window| window.release(virt, len));
    LEN_BYTES.fetch_sub(len, Ordering::Relaxed);
}

fn pages(layout: Layout) -> Option<u64> {
    crate::mm::layout::align_up(layout.size() as u64, PAGE_SIZE)
}
