//! Kernel stacks: each in a slot of its own, with nothing mapped below it, so that an overflow faults at once
//! instead of writing into a neighbour.
//! Neighbours: `map` (fresh memory), `irq` (asks whether a page fault was an overflow).

use core::{
    convert::Infallible,
    fmt,
    sync::atomic::{AtomicU16, Ordering},
};

use super::{
    frame::OutOfMemory,
    layout::{PAGE_SIZE, STACKS},
    map,
    page_table::MapError,
};

/// Address space of a slot. Eight stacks' tables fit in one page.
const SLOT_LEN_BYTES: u64 = 256 << 10;
const SLOTS: usize = 1024;
/// Bytes of address space for stacks.
pub const WINDOW_LEN_BYTES: u64 = SLOT_LEN_BYTES * SLOTS as u64;
/// The largest stack: a slot less its guard page.
pub const MAX_LEN_BYTES: u64 = SLOT_LEN_BYTES - PAGE_SIZE;

/// Bytes at the top of a stack that are overwritten before it is used: QEMU's TCG looks after each write to a page from which
/// code was executed once, such as a loader's, as long as something of that is left (`notdirty_write`), at a thousand times the
/// cost of the write. Few threads go deeper.
const WIPED_LEN_BYTES: u64 = 16 << 10;

/// Pages of the stack in each slot; 0 for a free slot. Read without a lock by the fault handlers.
static PAGES: [AtomicU16; SLOTS] = [const { AtomicU16::new(0) }; SLOTS];

/// A stack, freed on drop.
#[derive(Debug)]
pub struct Stack {
    slot: usize,
    len_bytes: u64,
}

/// A stack of at least `len_bytes` bytes, at most [`MAX_LEN_BYTES`], with an unmapped page below.
///
/// # Errors
/// [`OutOfMemory`] when memory or slots run out, or more is asked for than a slot holds.
pub fn stack(len_bytes: u64) -> Result<Stack, OutOfMemory> {
    let refused = OutOfMemory { len_bytes };
    if len_bytes > MAX_LEN_BYTES {
        return Err(refused);
    }
    let pages = len_bytes.div_ceil(PAGE_SIZE).max(1);
    let claim = |slot: &AtomicU16| {
        slot.compare_exchange(0, pages as u16, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    };
    let slot = PAGES.iter().position(claim).ok_or(refused)?;
    let bottom = slot_end(slot) - pages * PAGE_SIZE;
    // SAFETY: the slot was free and is ours now; nobody else maps in the stacks' window.
    match unsafe { map::back(bottom, pages * PAGE_SIZE) } {
        Ok(()) => {
            let wiped = (pages * PAGE_SIZE).min(WIPED_LEN_BYTES);
            let first: *mut u8 = core::ptr::with_exposed_provenance_mut((slot_end(slot) - wiped) as usize);
            // SAFETY: the top of what was just mapped, writable, and nobody has seen it yet.
            unsafe { first.write_bytes(0, wiped as usize) };
            Ok(Stack { slot, len_bytes: pages * PAGE_SIZE })
        }
        Err(error) => {
            PAGES[slot].store(0, Ordering::Relaxed);
            Err(if let MapError::OutOfMemory(error) = error { error } else { refused })
        }
    }
}

impl Stack {
    /// The first address above the stack, a multiple of 4 KiB: what the stack pointer starts as.
    pub fn top(&self) -> u64 {
        slot_end(self.slot)
    }

    /// The lowest address of the stack. The page below is not mapped.
    pub fn bottom(&self) -> u64 {
        self.top() - self.len_bytes
    }

    /// Its bytes.
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: `stack` mapped it; whoever drops a stack runs on another one.
        unsafe { map::unback(self.bottom(), self.len_bytes) };
        PAGES[self.slot].store(0, Ordering::Release);
    }
}

/// An address in the unmapped part of a slot: the mark of a stack overflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard {
    /// Number of the stack, from 0.
    pub number: usize,
    /// The stack's lowest address.
    pub bottom: u64,
    /// The stack's bytes.
    pub len_bytes: u64,
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, bottom, len_bytes } = self;
        write!(f, "overflow of stack {number} ({} KiB from {bottom:#x})", len_bytes / 1024)
    }
}

/// Which stack's guard `virt` lies in, if any. Takes no lock: for fault handlers.
pub fn guard_at(virt: u64) -> Option<Guard> {
    let number = usize::try_from(virt.checked_sub(STACKS)? / SLOT_LEN_BYTES).ok()?;
    let len_bytes = u64::from(PAGES.get(number)?.load(Ordering::Relaxed)) * PAGE_SIZE;
    let bottom = slot_end(number) - len_bytes;
    (len_bytes > 0 && virt < bottom).then_some(Guard { number, bottom, len_bytes })
}

/// Every stack there is: its lowest address and its bytes.
pub fn stacks() -> impl Iterator<Item = (u64, u64)> {
    PAGES.iter().enumerate().filter_map(|(slot, pages)| {
        let len_bytes = u64::from(pages.load(Ordering::Relaxed)) * PAGE_SIZE;
        (len_bytes > 0).then(|| (slot_end(slot) - len_bytes, len_bytes))
    })
}

const fn slot_end(slot: usize) -> u64 {
    STACKS + (slot as u64 + 1) * SLOT_LEN_BYTES
}

/// Leaves the stack of the caller for good: calls `next` with `value` on a new stack of `len_bytes` bytes,
/// which stays for ever.
///
/// # Errors
/// [`OutOfMemory`] when there is none for the stack; `next` was not called then.
pub fn run_on_new_stack<T>(len_bytes: u64, value: T, next: fn(T) -> !) -> Result<Infallible, OutOfMemory> {
    let new = stack(len_bytes)?;
    let place = (new.top() - size_of::<Start<T>>() as u64) & !(align_of::<Start<T>>().max(16) as u64 - 1);
    if size_of::<Start<T>>() as u64 + PAGE_SIZE > new.len_bytes() {
        return Err(OutOfMemory { len_bytes: size_of::<Start<T>>() as u64 });
    }
    core::mem::forget(new);
    let place: *mut Start<T> = core::ptr::with_exposed_provenance_mut(place as usize);
    // SAFETY: `place` is aligned and lies, whole, in the stack that was just mapped writable and is used by nobody.
    unsafe { place.write(Start { value, next }) };
    // SAFETY:
    // 1. The new stack is mapped, `place` is a multiple of 16, and below it a page at least is left.
    // 2. Nothing of the old stack is used again: control does not come back.
    // 3. `enter::<T>` takes one pointer in RDI (System V AMD64 ABI §3.2.3) to a `Start<T>`, which `place` is.
    unsafe {
        core::arch::asm!(
            "mov rsp, rdi",
            "xor ebp, ebp",
            "call {enter}",
            "ud2",
            enter = sym enter::<T>,
            in("rdi") place,
            options(noreturn),
        )
    }
}

/// What waits on a new stack for its first function.
struct Start<T> {
    value: T,
    next: fn(T) -> !,
}

extern "sysv64" fn enter<T>(start: *mut Start<T>) -> ! {
    // SAFETY: `run_on_new_stack` wrote it at this place, for this one read.
    let Start { value, next } = unsafe { start.read() };
    next(value)
}

crate::kernel_test! {
    fn below_every_stack_lies_a_page_that_is_not_mapped() {
        let _one_at_least = stack(8 << 10).unwrap();
        for (bottom, len_bytes) in stacks() {
            assert!(map::translate(bottom).is_some() && map::translate(bottom + len_bytes - 1).is_some());
            assert_eq!(map::translate(bottom - 1), None);
            assert_eq!(map::translate(bottom - PAGE_SIZE), None);
            assert_eq!(guard_at(bottom - 1).map(|guard| guard.bottom), Some(bottom));
            assert_eq!(guard_at(bottom), None);
        }
    }
}

crate::kernel_test! {
    fn we_run_on_a_guarded_stack() {
        let local = 0u8;
        let here = (&raw const local).addr() as u64;
        assert!(stacks().any(|(bottom, len_bytes)| (bottom..bottom + len_bytes).contains(&here)), "{here:#x}");
    }
}

crate::kernel_test! {
    fn a_dropped_stack_is_free_again() {
        drop(stack(64 << 10).unwrap());
        let free = super::frame::statistics().free;
        let stack = stack(64 << 10).unwrap();
        let bottom = stack.bottom();
        assert!(super::frame::statistics().free < free);
        drop(stack);
        assert_eq!(super::frame::statistics().free, free);
        assert_eq!((map::translate(bottom), guard_at(bottom - 1)), (None, None));
    }
}

crate::kernel_test! {
    fn a_stack_larger_than_a_slot_is_refused() {
        for len_bytes in [MAX_LEN_BYTES + 1, u64::MAX] {
            assert_eq!(stack(len_bytes).err(), Some(OutOfMemory { len_bytes }));
        }
    }
}
