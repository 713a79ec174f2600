//! Memory: small pieces, pages, and the fault of a page that is not there.

use alloc::{boxed::Box, vec::Vec};
use core::hint::black_box;

use kernel::{
    cpu::probe,
    mm::layout,
    sync::{IrqMutex, Mutex},
};

use super::row::row;

const PAGE_BYTES: usize = 4096;

pub(super) fn measure() {
    row("allocate and free 64 bytes", 1000, || {
        for _ in 0..1000 {
            // As malloc does, which writes nothing there.
            drop(black_box(Box::<[u64; 8]>::new_uninit()));
        }
    });
    // All at once, so that they are not the same page again and again.
    row("a page: allocate, write, free", 100, || {
        let pages: Vec<Vec<u8>> = (0..100).map(|_| page()).collect();
        drop(black_box(pages));
    });
    // Nothing is mapped there: the fault is taken, recognised and returned from.
    row("page fault", 100, || {
        for _ in 0..100 {
            black_box(probe::read_frame(layout::HUGE - 4096));
        }
    });
    free_locks();
}

/// A page of zeros with a byte in it.
fn page() -> Vec<u8> {
    let mut page = alloc::vec![0; PAGE_BYTES];
    page[0] = black_box(1);
    page
}

/// Locks that nobody else wants.
fn free_locks() {
    static SPIN: IrqMutex<u64> = IrqMutex::new(0);
    static MUTEX: Mutex<u64> = Mutex::new(0);
    row("free spin lock", 1000, || (0..1000).for_each(|_| *SPIN.lock() += 1));
    row("free mutex", 1000, || (0..1000).for_each(|_| *MUTEX.lock() += 1));
}
