//! Small objects of one size, carved from blocks of frames ("slabs").
//!
//! A slab's last bytes say how many of its objects are in use and which are free; the object's address, rounded
//! down to the slab's size, leads there. So objects keep the alignment of their size, and a slab that empties
//! goes back to where it came from. Neighbours: `small` keeps one [`Slabs`] for each class.

use core::ptr::NonNull;

/// Where slabs come from: blocks of memory, aligned to their length.
///
/// # Implementation safety
/// `allocate` returns memory of `len` bytes, aligned to `len`, that the caller owns until `free`.
pub(super) unsafe trait Blocks {
    /// A block of `len` bytes, a power of two.
    fn allocate(&mut self, len: usize) -> Option<NonNull<u8>>;

    /// Takes a block back.
    ///
    /// # Safety
    /// `block` came from `allocate` of the same `len`, and nothing refers to it any more.
    unsafe fn free(&mut self, block: NonNull<u8>, len: usize);
}

/// Free objects, linked through their first words. Owns them.
#[derive(Debug)]
pub(in crate::mm) struct FreeList {
    head: Option<NonNull<Link>>,
    len: usize,
}

#[derive(Debug)]
struct Link {
    next: Option<NonNull<Link>>,
}

// SAFETY: the list owns its objects; nothing in it belongs to a CPU.
unsafe impl Send for FreeList {}

impl FreeList {
    /// No objects.
    pub(super) const EMPTY: Self = Self { head: None, len: 0 };

    /// How many objects it holds.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Takes an object out.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<NonNull<u8>> {
        let link = self.head?;
        // SAFETY: `push` wrote the link, and nobody else has owned the object since.
        self.head = unsafe { link.read() }.next;
        self.len -= 1;
        Some(link.cast())
    }

    /// Puts an object in.
    ///
    /// # Safety
    /// The caller owns the object, gives it up, and it has at least 16 bytes, aligned to 16.
    #[inline]
    pub(super) unsafe fn push(&mut self, object: NonNull<u8>) {
        let link = object.cast::<Link>();
        // SAFETY: the object is owned, large and aligned enough: the caller's word.
        unsafe { link.write(Link { next: self.head }) };
        self.head = Some(link);
        self.len += 1;
    }
}

/// What stands at the end of a slab.
#[derive(Debug)]
struct Slab {
    free: FreeList,
    in_use: usize,
    next: Option<NonNull<Slab>>,
    previous: Option<NonNull<Slab>>,
}

/// The slabs of one size.
#[derive(Debug)]
pub(super) struct Slabs {
    object_len: usize,
    slab_len: usize,
    /// Slabs with free objects. Invariant: each is a live slab of ours, none is here twice.
    partial: Option<NonNull<Slab>>,
    slabs: usize,
}

// SAFETY: it owns its slabs; nothing in it belongs to a CPU.
unsafe impl Send for Slabs {}

impl Slabs {
    /// No slabs. Objects of `object_len` bytes, a multiple of 16; slabs of `slab_len`, a power of two.
    pub(super) const fn new(object_len: usize, slab_len: usize) -> Self {
        assert!(object_len.is_multiple_of(16) && object_len > 0 && slab_len.is_power_of_two());
        assert!(object_len + size_of::<Slab>() <= slab_len);
        Self { object_len, slab_len, partial: None, slabs: 0 }
    }

    /// Bytes of all slabs.
    pub(super) fn len_bytes(&self) -> usize {
        self.slabs * self.slab_len
    }

    /// An object, uninitialised.
    pub(super) fn allocate(&mut self, blocks: &mut impl Blocks) -> Option<NonNull<u8>> {
        let mut place = match self.partial {
            Some(slab) => slab,
            None => self.grow(blocks)?,
        };
        // SAFETY: slabs of the list are live, and `&mut self` keeps every other access out.
        let slab = unsafe { place.as_mut() };
        let object = slab.free.pop()?;
        slab.in_use += 1;
        if slab.free.len() == 0 {
            self.unlink(place);
        }
        Some(object)
    }

    /// Takes an object back; a slab that empties goes back to `blocks`.
    ///
    /// # Safety
    /// The object came from `allocate` of this `Slabs`, and nothing refers to it any more.
    pub(super) unsafe fn free(&mut self, object: NonNull<u8>, blocks: &mut impl Blocks) {
        let mut place = self.slab_of(object);
        // SAFETY: the object is in use, so its slab is live; `&mut self` keeps every other access out.
        let slab = unsafe { place.as_mut() };
        // SAFETY: the caller gives the object up; objects have 16 bytes at least and are so aligned.
        unsafe { slab.free.push(object) };
        slab.in_use -= 1;
        if slab.in_use == 0 {
            if slab.free.len() > 1 {
                self.unlink(place);
            }
            self.slabs -= 1;
            let block = self.block_of(place);
            // SAFETY: the block came from `allocate` in `grow`; no object of it is in use and no list knows it.
            unsafe { blocks.free(block, self.slab_len) };
        } else if slab.free.len() == 1 {
            self.link(place);
        }
    }

    /// A new slab, all free, in the list.
    fn grow(&mut self, blocks: &mut impl Blocks) -> Option<NonNull<Slab>> {
        let block = blocks.allocate(self.slab_len)?;
        let mut free = FreeList::EMPTY;
        for nth in (0..self.objects_in_slab()).rev() {
            // SAFETY: the object lies in the block, before the slab's own words.
            let object = unsafe { block.add(nth * self.object_len) };
            // SAFETY: the block is ours, its objects do not overlap and are multiples of 16 bytes.
            unsafe { free.push(object) };
        }
        let place = self.slab_of(block);
        // SAFETY: the place is the aligned end of the block, which is ours.
        unsafe { place.write(Slab { free, in_use: 0, next: None, previous: None }) };
        self.slabs += 1;
        self.link(place);
        Some(place)
    }

    fn objects_in_slab(&self) -> usize {
        (self.slab_len - size_of::<Slab>()) / self.object_len
    }

    /// The slab's words of an object.
    fn slab_of(&self, object: NonNull<u8>) -> NonNull<Slab> {
        let offset = self.slab_len - size_of::<Slab>();
        object
            .map_addr(|address| {
                let block = address.get() & !(self.slab_len - 1);
                core::num::NonZero::new(block + offset).unwrap_or(address)
            })
            .cast()
    }

    fn block_of(&self, slab: NonNull<Slab>) -> NonNull<u8> {
        let offset = self.slab_len - size_of::<Slab>();
        // SAFETY: a slab's words stand at this offset of its block.
        unsafe { slab.cast::<u8>().sub(offset) }
    }

    fn link(&mut self, mut place: NonNull<Slab>) {
        // SAFETY: the caller's slab is live, and `&mut self` keeps every other access out.
        let slab = unsafe { place.as_mut() };
        (slab.previous, slab.next) = (None, self.partial);
        if let Some(mut next) = self.partial {
            // SAFETY: slabs of the list are live; `next` is another than `slab`.
            unsafe { next.as_mut() }.previous = Some(place);
        }
        self.partial = Some(place);
    }

    fn unlink(&mut self, place: NonNull<Slab>) {
        // SAFETY: the caller's slab is live and in the list; `&mut self` keeps every other access out.
        let Slab { previous, next, .. } = *unsafe { place.as_ref() };
        match previous {
            // SAFETY: slabs of the list are live.
            Some(mut previous) => unsafe { previous.as_mut() }.next = next,
            None => self.partial = next,
        }
        if let Some(mut next) = next {
            // SAFETY: slabs of the list are live.
            unsafe { next.as_mut() }.previous = previous;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::alloc::Layout;

    /// Blocks of the host's allocator; knows how many are out.
    #[derive(Default)]
    struct Host {
        out: usize,
        limit: usize,
    }

    // SAFETY: `std::alloc` with the block's length as alignment.
    unsafe impl Blocks for Host {
        fn allocate(&mut self, len: usize) -> Option<NonNull<u8>> {
            if self.out == self.limit {
                return None;
            }
            self.out += 1;
            // SAFETY: the length is not zero.
            NonNull::new(unsafe { std::alloc::alloc(Layout::from_size_align(len, len).unwrap()) })
        }

        unsafe fn free(&mut self, block: NonNull<u8>, len: usize) {
            self.out -= 1;
            // SAFETY: came from `allocate` with the same layout.
            unsafe { std::alloc::dealloc(block.as_ptr(), Layout::from_size_align(len, len).unwrap()) };
        }
    }

    #[test]
    fn no_memory_is_no_object() {
        assert_eq!(Slabs::new(64, 4096).allocate(&mut Host::default()), None);
    }

    proptest! {
        /// Objects do not overlap, keep their content and the alignment of their size; all slabs come home.
        #[test]
        fn objects_are_apart_and_slabs_come_home(class in 0usize..14, steps in prop::collection::vec((any::<bool>(), any::<usize>()), 1..400)) {
            let len = super::super::classes::SIZES[class];
            let mut host = Host { limit: 64, ..Host::default() };
            let mut slabs = Slabs::new(len, super::super::classes::slab_len(class));
            let mut owned: Vec<(NonNull<u8>, u8)> = Vec::new();
            for (nth, (allocate, choice)) in steps.into_iter().enumerate() {
                if allocate {
                    let Some(object) = slabs.allocate(&mut host) else { continue };
                    prop_assert_eq!(object.addr().get() % (1 << len.trailing_zeros()), 0);
                    // SAFETY: the object is ours and `len` bytes long.
                    unsafe { object.write_bytes(nth as u8, len) };
                    owned.push((object, nth as u8));
                } else if !owned.is_empty() {
                    let (object, mark) = owned.swap_remove(choice % owned.len());
                    // SAFETY: the object is ours, initialised and `len` bytes long.
                    let bytes = unsafe { core::slice::from_raw_parts(object.as_ptr(), len) };
                    prop_assert!(bytes.iter().all(|&byte| byte == mark));
                    // SAFETY: it came from these slabs and is forgotten here.
                    unsafe { slabs.free(object, &mut host) };
                }
                prop_assert_eq!(host.out * super::super::classes::slab_len(class), slabs.len_bytes());
            }
            for (object, _) in owned {
                // SAFETY: it came from these slabs and is forgotten here.
                unsafe { slabs.free(object, &mut host) };
            }
            prop_assert_eq!((host.out, slabs.len_bytes()), (0, 0));
        }
    }
}
