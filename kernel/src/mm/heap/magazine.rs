//! A CPU's free objects of one size: taken and put by a handful of instructions, without a lock, interrupts enabled or not.
//!
//! [`take`] and [`put`] are sequences that begin anew: only the last instruction changes what counts, and whoever is
//! interrupted before it is sent back to the first by [`begin_anew`], on whatever CPU it goes on. So a sequence runs as if
//! nothing came between, and what it reads by GS belongs to the CPU on which it ends. Nobody but that CPU touches its
//! magazines: others ask it to (`small::trim`). (Linux offers the same to programs as "restartable sequences", rseq(2).)
//! Neighbours: `small` (what a magazine is filled from), `irq::dispatch` (calls [`begin_anew`] first of all).

use core::{
    arch::naked_asm,
    mem::offset_of,
    ptr::NonNull,
    sync::atomic::{AtomicPtr, AtomicUsize, Ordering},
};

use super::classes::Class;
use crate::{cpu::percpu, mm::Local};

/// The most that a magazine can hold.
pub(super) const CAPACITY: usize = 31;

/// The objects that are free, the last of them the first to go. The CPU owns them. All zeros when empty.
#[repr(C)]
#[derive(Debug)]
pub(in crate::mm) struct Magazine {
    len: AtomicUsize,
    objects: [AtomicPtr<u8>; CAPACITY],
}

/// What the sequences know of it.
const _: () = assert!(offset_of!(Magazine, len) == 0 && offset_of!(Magazine, objects) == 8);

impl Magazine {
    /// No objects.
    pub(in crate::mm) const fn new() -> Self {
        let objects = [const { AtomicPtr::new(core::ptr::null_mut()) }; CAPACITY];
        Self { len: AtomicUsize::new(0), objects }
    }

    /// Whether it holds none; of another CPU's, whether it held none a moment ago.
    pub(super) fn is_empty(&self) -> bool {
        self.len.load(Ordering::Relaxed) == 0
    }
}

/// Bytes from GS to the magazine of a class.
#[inline(always)]
fn place(class: Class) -> usize {
    percpu::MEMORY_OFFSET + offset_of!(Local, magazines) + class.index() * size_of::<Magazine>()
}

/// Takes the object that was put last into the magazine of `class` on this CPU.
#[inline(always)]
pub(super) fn take(class: Class) -> Option<NonNull<u8>> {
    // SAFETY: each class has a magazine at its place.
    NonNull::new(unsafe { take_sequence(place(class)) })
}

/// Puts an object into the magazine of `class` on this CPU, if there is room. Whether it did.
///
/// # Safety
/// The caller owns the object, which is of this class, and gives it up if it was put.
#[inline(always)]
pub(super) unsafe fn put(class: Class, object: NonNull<u8>) -> bool {
    // SAFETY: each class has a magazine at its place; its limit is not 0, and `CAPACITY` at most.
    unsafe { put_sequence(place(class), object, class.limit()) == 0 }
}

/// An object from the magazine at GS and `place` bytes, or null when it is empty: the word before the first object is its
/// length then, zero.
///
/// # Safety
/// There is a magazine, and GS is set: it is from `cpu::init` on, before there is memory to allocate.
#[unsafe(naked)]
unsafe extern "sysv64" fn take_sequence(place: usize) -> *mut u8 {
    naked_asm!(
        "mov rcx, gs:[rdi]",
        "mov rax, gs:[rdi + 8 * rcx]",
        "dec rcx",
        "js 2f",
        "mov gs:[rdi], rcx",
        ".globl pliant_magazine_taken",
        "pliant_magazine_taken:",
        "2: ret",
    )
}

/// Puts `object` into the magazine at GS and `place` bytes and returns 0, unless that holds `limit` objects.
///
/// # Safety
/// As [`take_sequence`]; `limit` is neither 0 nor more than there is room for.
#[unsafe(naked)]
unsafe extern "sysv64" fn put_sequence(place: usize, object: NonNull<u8>, limit: usize) -> usize {
    naked_asm!(
        "mov rax, gs:[rdi]",
        "cmp rax, rdx",
        "jae 2f",
        "mov gs:[rdi + 8 * rax + 8], rsi",
        "inc rax",
        "mov gs:[rdi], rax",
        ".globl pliant_magazine_put",
        "pliant_magazine_put:",
        "xor eax, eax",
        "2: ret",
    )
}

unsafe extern "C" {
    fn pliant_magazine_taken();
    fn pliant_magazine_put();
}

/// The addresses of each sequence's first instruction, and behind its last.
fn sequences() -> [(u64, u64); 2] {
    [
        (take_sequence as *const () as u64, pliant_magazine_taken as *const () as u64),
        (put_sequence as *const () as u64, pliant_magazine_put as *const () as u64),
    ]
}

/// Where the interrupted instruction is part of a sequence, `rip` becomes the first of it. The sequences change none of the
/// registers that they are given.
#[inline]
pub(crate) fn begin_anew(rip: &mut u64) {
    let [taking, putting] = sequences();
    let mut if_in = |(first, end)| {
        if (first..end).contains(rip) {
            *rip = first;
        }
    };
    if_in(taking);
    if_in(putting);
}

crate::kernel_test! {
    fn who_is_interrupted_in_a_sequence_begins_anew() {
        for (first, end) in sequences() {
            assert!((first + 8..first + 32).contains(&end), "{first:#x} to {end:#x}");
            for rip in first - 1..=end {
                let mut next = rip;
                begin_anew(&mut next);
                assert_eq!(next, if (first..end).contains(&rip) { first } else { rip });
            }
        }
    }
}
