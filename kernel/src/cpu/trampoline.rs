//! The page below 1 MiB in which a started CPU begins, and the page tables with which it gets out of there.
//!
//! A CPU begins in real mode at the page that the start-up message names. To switch paging on, the page must be mapped
//! at its own address, which the kernel's tables do not do: so there is a second root, whose upper half is the
//! kernel's. The CPU leaves it with its first step in Rust.
//! Neighbours: `trampoline.s` (the code), `smp` (who sends the message).

use core::{
    arch::global_asm,
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::mm::{
    frame::{self, Frame, OutOfMemory},
    layout::{self, PAGE_SIZE},
};

global_asm!(include_str!("trampoline.s"), options(att_syntax));

unsafe extern "C" {
    static pliant_trampoline: u8;
    static pliant_trampoline_words: u8;
    static pliant_trampoline_end: u8;
}

/// Real mode reaches no further.
const REAL_MODE_LIMIT: u64 = 1 << 20;
/// Code, root table, and two tables for the identity mapping of the lowest 2 MiB: 2^2 frames.
const ORDER: u8 = 2;
/// Present, writable; and a page of 2 MiB.
const TABLE: u64 = 0b11;
const LARGE_PAGE: u64 = 0x83;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const ENTRIES: usize = 512;

/// The words at the page's end, as `trampoline.s` has them.
#[repr(C)]
struct Words {
    stack: u64,
    argument: u64,
    entry: u64,
    low_root: u64,
    far32: [u32; 2],
    far64: [u32; 2],
    _pad: u16,
    gdt_limit: u16,
    gdt_base: u32,
    /// 1 for the CPU that was sent for, which takes it.
    token: AtomicU32,
    _pad_end: u32,
}

/// What a started CPU is to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    /// Stack pointer, a multiple of 16.
    pub(super) stack: u64,
    /// Called with `argument`, with the second root in force.
    pub(super) entry: extern "sysv64" fn(u64) -> !,
    /// For `entry`.
    pub(super) argument: u64,
}

/// The page and the tables: they stay for as long as CPUs may be started.
#[derive(Debug)]
pub(super) struct Trampoline(Frame);

// SAFETY: the frames belong to no CPU.
unsafe impl Send for Trampoline {}

impl Trampoline {
    /// Takes memory that real mode reaches, and puts the code there.
    ///
    /// # Errors
    /// When nothing is free there.
    pub(super) fn new() -> Result<Self, OutOfMemory> {
        let mut frame = frame::alloc_below(ORDER, REAL_MODE_LIMIT)?;
        let page = frame.bytes();
        page.fill(0);
        let code = code();
        page[..code.len()].copy_from_slice(code);
        let mut trampoline = Self(frame);
        let base = trampoline.0.address();
        let (root, three, two) = (base + PAGE_SIZE, base + 2 * PAGE_SIZE, base + 3 * PAGE_SIZE);
        trampoline.set_entry(1, 0, pv_ops::pte_make(three | TABLE));
        trampoline.set_entry(2, 0, pv_ops::pte_make(two | TABLE));
        trampoline.set_entry(3, 0, pv_ops::pte_make(LARGE_PAGE));
        trampoline.words(|words| {
            words.low_root = root;
            words.far32[0] += base as u32;
            words.far64[0] += base as u32;
            words.gdt_base += base as u32;
        });
        Ok(trampoline)
    }

    /// The vector of the start-up message.
    pub(super) fn vector(&self) -> u8 {
        (self.0.address() / PAGE_SIZE) as u8
    }

    /// Makes the next CPU that comes do this.
    pub(super) fn aim(&mut self, start: Start) {
        let kernel = layout::direct_map(pv_ops::read_cr3() & ADDRESS);
        let kernel: *const u64 = core::ptr::with_exposed_provenance(kernel as usize);
        for index in ENTRIES / 2..ENTRIES {
            // SAFETY: the root in force is RAM of the direct map, 512 entries long; another CPU may change it.
            let entry = unsafe { kernel.add(index).read_volatile() };
            self.set_entry(1, index, entry);
        }
        self.words(|words| {
            words.stack = start.stack;
            words.argument = start.argument;
            words.entry = start.entry as *const () as u64;
            words.token.store(1, Ordering::Release);
        });
    }

    /// No CPU that comes from now on does anything. Whether one has come since [`aim`](Self::aim).
    pub(super) fn close(&mut self) -> bool {
        self.words(|words| words.token.swap(0, Ordering::AcqRel) == 0)
    }

    fn set_entry(&mut self, table: usize, index: usize, value: u64) {
        let at = table * PAGE_SIZE as usize + index * 8;
        self.0.bytes()[at..at + 8].copy_from_slice(&value.to_ne_bytes());
    }

    /// Changes the words.
    fn words<R>(&mut self, change: impl FnOnce(&mut Words) -> R) -> R {
        let offset = (&raw const pliant_trampoline_words).addr() - (&raw const pliant_trampoline).addr();
        let place: NonNull<u8> = self.0.as_ptr();
        // SAFETY: the words are within the code that `new` copied to the page's beginning.
        let place = unsafe { place.add(offset) }.cast::<Words>();
        // SAFETY: initialised; aligned to 8 in the code, and the code to a page; what a started CPU changes is atomic.
        change(unsafe { &mut *place.as_ptr() })
    }
}

/// The code as it is in the image.
fn code() -> &'static [u8] {
    let start = &raw const pliant_trampoline;
    let len = (&raw const pliant_trampoline_end).addr() - start.addr();
    const { assert!(size_of::<Words>() == 64) };
    // SAFETY: the two symbols bracket read-only data of `trampoline.s`, shorter than a page.
    unsafe { core::slice::from_raw_parts(start, len) }
}
