//! Memory that devices access by themselves. Neighbours: `frame` (whose it is), `drivers::dma` (what drivers see).

use alloc::boxed::Box;

use drivers::dma::Dma;

use super::{
    frame::{self, Frame, OutOfMemory},
    layout::PAGE_SIZE,
};

/// `len_bytes` zeroed bytes in one piece, in whole frames of a power of two.
///
/// # Errors
/// [`OutOfMemory`] when no such piece is free; always above 4 MiB.
pub fn alloc(len_bytes: usize) -> Result<Dma, OutOfMemory> {
    let frames = (len_bytes as u64).div_ceil(PAGE_SIZE).max(1);
    let order = frames.checked_next_power_of_two().map_or(u8::MAX, |frames| frames.ilog2() as u8);
    let mut frame = frame::alloc(order)?;
    frame.bytes().fill(0);
    let (start, address) = (frame.as_ptr(), frame.address());
    // SAFETY:
    // 1. The frame is RAM of the direct map, just zeroed, `len_bytes` long at least, and lives as long as `frame`,
    //    which goes along as the owner.
    // 2. It is owned: nobody else accesses it. Without an IOMMU devices know it by its physical address.
    Ok(unsafe { Dma::new(start, address, len_bytes, Box::new(frame)) })
}

/// A large free block of which the host was not told that it is free, as memory to tell it of; its content is whatever was
/// there. When it is dropped the host counts as told.
pub fn alloc_unreported() -> Option<Dma> {
    let frame = frame::alloc_unreported()?;
    let (start, address, len) = (frame.as_ptr(), frame.address(), frame.len_bytes() as usize);
    // SAFETY:
    // 1. The frame is RAM of the direct map, `len` long, and lives as long as the owner, which has it.
    // 2. It is owned: nobody else accesses it.
    Some(unsafe { Dma::new(start, address, len, Box::new(Reported(Some(frame)))) })
}

/// A block that the host knows to be free when this is dropped.
struct Reported(Option<Frame>);

impl Drop for Reported {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(frame::free_reported);
    }
}

crate::kernel_test! {
    /// What was lent to a device comes back to the frame allocator.
    fn dma_memory_is_zeroed_and_comes_back() {
        let before = frame::statistics().free;
        for len in [1, 4096, 5000, 4 << 20] {
            let Ok(memory) = alloc(len) else { continue };
            assert!(memory.len() == len && memory.address() % PAGE_SIZE == 0);
            assert_eq!(memory.u8(len - 1).swap(1, core::sync::atomic::Ordering::Relaxed), 0);
        }
        assert!(alloc(5 << 20).is_err() && alloc(usize::MAX).is_err());
        assert_eq!(frame::statistics().free, before);
    }
}
