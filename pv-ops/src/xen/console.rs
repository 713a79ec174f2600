//! The console before there is a driver: Xen's own for dom0 (xen.h, `console_io`), the ring for a domU (io/console.h).
//! Neighbours: `hvm` (finds the ring), the kernel's console driver, which takes over.
//!
//! COM1 is Xen's own line: not a byte goes there. The ring is reached under the page tables with which it was mapped
//! and no others: text between their end and `set_ring`'s next call is dropped.

use super::{
    abi::console,
    hypercall::{self, Number},
};
use core::{
    mem::offset_of,
    sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering, fence},
};

const OUT_LEN: usize = 2048;

/// The page that the console's other end shares (io/console.h).
#[repr(C)]
#[doc(alias = "xencons_interface")]
struct Ring {
    input: [AtomicU8; 1024],
    out: [AtomicU8; OUT_LEN],
    in_cons: AtomicU32,
    in_prod: AtomicU32,
    out_cons: AtomicU32,
    out_prod: AtomicU32,
}

const _: () = assert!(offset_of!(Ring, out) == 1024 && offset_of!(Ring, out_prod) == 3084);

static RING: AtomicPtr<Ring> = AtomicPtr::new(core::ptr::null_mut());
static PORT: AtomicU32 = AtomicU32::new(0);
/// The root of the page tables under which `RING` is valid.
static ROOT: AtomicU64 = AtomicU64::new(0);

/// How often to give way to the reader of a full ring before the rest of the text is dropped.
const PATIENCE_YIELDS: u32 = 20_000;
/// How often to give way at the end, so that the reader hands on what it has taken.
const FAREWELL_YIELDS: u32 = 2_000;

/// The ring is mapped at `page` under the page tables with this `root` (CR3), and `port` wakes its reader.
///
/// # Safety
/// `page` is the console ring's page, mapped writable for as long as these tables are in force.
pub(super) unsafe fn set_ring(page: *mut u8, port: u32, root: u64) {
    PORT.store(port, Ordering::Relaxed);
    ROOT.store(root, Ordering::Relaxed);
    RING.store(page.cast(), Ordering::Release);
}

/// Another channel wakes the ring's reader now.
pub(super) fn set_port(port: u32) {
    PORT.store(port, Ordering::Relaxed);
}

/// # Safety
/// `text` is valid for `len_bytes` bytes.
pub(super) unsafe extern "sysv64" fn console_write(text: *const u8, len_bytes: u64) {
    // SAFETY: the caller's promise.
    let text = unsafe { core::slice::from_raw_parts(text, len_bytes as usize) };
    match ring() {
        Some(ring) => write(ring, text),
        None => write_to_xen(text),
    }
}

fn ring() -> Option<&'static Ring> {
    let ring = RING.load(Ordering::Acquire);
    if ring.is_null() || crate::read_cr3() != ROOT.load(Ordering::Relaxed) {
        return None;
    }
    // SAFETY: `set_ring` was promised that the page is mapped under these tables; all in it is atomic.
    Some(unsafe { &*ring })
}

/// Xen takes it from dom0 only and refuses it else.
pub(super) fn write_to_xen(text: &[u8]) {
    let address = text.as_ptr().expose_provenance() as u64;
    // SAFETY: Xen reads the slice.
    let _ = unsafe { hypercall::call3(Number::ConsoleIo, console::WRITE.into(), text.len() as u64, address) };
}

/// Takes one byte of what was typed on Xen's console, if there is one; only dom0 gets any.
#[doc(alias = "CONSOLEIO_read")]
pub fn read_from_xen() -> Option<u8> {
    let mut byte = 0_u8;
    let address = (&raw mut byte).expose_provenance() as u64;
    // SAFETY: Xen writes one byte at most, as it is told.
    let taken = unsafe { hypercall::call3(Number::ConsoleIo, console::READ.into(), 1, address) };
    // SAFETY: it was initialised; Xen may have written it since, which the compiler does not see.
    let byte = unsafe { (&raw const byte).read_volatile() };
    (taken == Ok(1)).then_some(byte)
}

fn write(ring: &Ring, mut text: &[u8]) {
    let mut yields = 0;
    while let Some((&byte, rest)) = text.split_first() {
        let produced = ring.out_prod.load(Ordering::Relaxed);
        let used = produced.wrapping_sub(ring.out_cons.load(Ordering::Acquire));
        // A reader that claims to be ahead of the writer, or further behind than the ring is long, is nonsense: it
        // gets a full ring, and time to make sense.
        if used as usize >= OUT_LEN {
            notify();
            yields += 1;
            if yields > PATIENCE_YIELDS {
                return;
            }
            super::sched::sched_yield();
            continue;
        }
        if byte == b'\n' && !after_return(ring, produced) {
            put(ring, produced, b'\r');
            continue;
        }
        put(ring, produced, byte);
        text = rest;
    }
    notify();
}

fn put(ring: &Ring, produced: u32, byte: u8) {
    ring.out[produced as usize % OUT_LEN].store(byte, Ordering::Relaxed);
    ring.out_prod.store(produced.wrapping_add(1), Ordering::Release);
}

/// Whether the last byte in the ring is the carriage return that a terminal needs before a line feed.
fn after_return(ring: &Ring, produced: u32) -> bool {
    ring.out[produced.wrapping_sub(1) as usize % OUT_LEN].load(Ordering::Relaxed) == b'\r'
}

fn notify() {
    fence(Ordering::SeqCst);
    let mut port = PORT.load(Ordering::Relaxed);
    // SAFETY: `struct evtchn_send` is the port alone; it wakes the console's reader.
    let _ = unsafe { hypercall::command(Number::EventChannelOp, EVTCHNOP_SEND, &mut port) };
}

/// event_channel.h.
const EVTCHNOP_SEND: u32 = 4;

/// Gives the reader time to take all of the ring and to hand it on: with the domain goes what it has not shown.
pub(super) fn drain() {
    let Some(ring) = ring() else { return };
    for _ in 0..PATIENCE_YIELDS {
        if ring.out_cons.load(Ordering::Acquire) == ring.out_prod.load(Ordering::Relaxed) {
            break;
        }
        super::sched::sched_yield();
    }
    for _ in 0..FAREWELL_YIELDS {
        super::sched::sched_yield();
    }
}
