//! x87, SSE, AVX: the registers that the kernel itself never uses (Intel SDM vol. 1 §13, vol. 3 §13).
//!
//! A thread has no such state until its first instruction of that kind, which traps (#NM) because CR0.TS is set. From
//! then on its registers are saved when it leaves the CPU and loaded when it comes back, by the best instruction there
//! is: XSAVEOPT writes only what changed and is not in its initial state. Threads that use none pay for none. Where a
//! hypervisor keeps CR0.TS clear, every thread has its own from the beginning.
//! Neighbours: `switch` (calls at each switch), `irq::exceptions` (#NM), `features` (calls [`enable`]).

mod torture;

use alloc::alloc::{alloc_zeroed, dealloc};
use core::{
    alloc::Layout,
    arch::asm,
    ptr,
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
};

use super::{Feature, features, switch};

mod bit {
    pub(super) const CR0_MONITOR_COPROCESSOR: u64 = 1 << 1;
    pub(super) const CR0_EMULATION: u64 = 1 << 2;
    pub(super) const CR0_TASK_SWITCHED: u64 = 1 << 3;
    pub(super) const CR0_NUMERIC_ERROR: u64 = 1 << 5;
    pub(super) const CR4_OSFXSR: u64 = 1 << 9;
    pub(super) const CR4_OSXMMEXCPT: u64 = 1 << 10;
    pub(super) const CR4_OSXSAVE: u64 = 1 << 18;
    /// x87, SSE, AVX, and the three parts of AVX-512.
    pub(super) const XCR0: u32 = 0b111 | AVX512;
    pub(super) const AVX512: u32 = 0b111 << 5;
}

const FXSAVE: u8 = 0;
const XSAVE: u8 = 1;
const XSAVEOPT: u8 = 2;

/// Leaf of the XSAVE features and sizes (SDM vol. 2A, CPUID).
const LEAF_XSAVE: u32 = 0xd;
/// The initial values of the control words, and where they are in the area (SDM vol. 1 §10.5.1).
const FCW: (usize, u16) = (0, 0x37f);
const MXCSR: (usize, u32) = (24, 0x1f80);

/// How registers are saved, what XCR0 enables, the bytes that takes, and CR0 without TS: the same on all CPUs.
static METHOD: AtomicU8 = AtomicU8::new(FXSAVE);
static COMPONENTS: AtomicU32 = AtomicU32::new(0);
static LEN_BYTES: AtomicU32 = AtomicU32::new(0);
static CR0: AtomicU64 = AtomicU64::new(0);
/// The hypervisor does not let the first use trap: then every thread has registers of its own from its beginning.
static WITHOUT_TRAP: AtomicBool = AtomicBool::new(false);

/// The registers of one thread while it does not run; nothing before it used them.
#[derive(Debug)]
pub(super) struct State {
    area: AtomicPtr<u8>,
}

/// What CR4 must have: every CPU in long mode has FXSAVE.
pub(super) fn wanted_cr4() -> u64 {
    let xsave = features().has(Feature::Xsave);
    bit::CR4_OSFXSR | bit::CR4_OSXMMEXCPT | if xsave { bit::CR4_OSXSAVE } else { 0 }
}

/// Lets this CPU, whose CR4 has [`wanted_cr4`], execute such instructions, the first of each thread trapping.
pub(super) fn enable() {
    let xsave = features().has(Feature::Xsave);
    let mut len_bytes = 512;
    // A hypervisor may keep the bit to itself: then there is FXSAVE.
    if xsave && pv_ops::read_cr4() & bit::CR4_OSXSAVE != 0 {
        let mut components = pv_ops::cpuid(LEAF_XSAVE, 0).eax & bit::XCR0;
        if components & bit::AVX512 != bit::AVX512 {
            components &= !bit::AVX512;
        }
        // SAFETY: XCR0 exists where CR4.OSXSAVE is set; the CPU offers these, x87 among them, and AVX-512 whole.
        unsafe { asm!("xsetbv", in("ecx") 0, in("eax") components, in("edx") 0, options(nomem, nostack)) };
        COMPONENTS.store(components, Relaxed);
        let optimised = pv_ops::cpuid(LEAF_XSAVE, 1).eax & 1 != 0;
        METHOD.store(if optimised { XSAVEOPT } else { XSAVE }, Relaxed);
        len_bytes = pv_ops::cpuid(LEAF_XSAVE, 0).ebx.clamp(576, 1 << 16);
    }
    LEN_BYTES.store(len_bytes, Relaxed);
    let on = bit::CR0_MONITOR_COPROCESSOR | bit::CR0_NUMERIC_ERROR;
    CR0.store(pv_ops::read_cr0() & !(bit::CR0_EMULATION | bit::CR0_TASK_SWITCHED) | on, Relaxed);
    set_trap(true);
    WITHOUT_TRAP.store(pv_ops::read_cr0() & bit::CR0_TASK_SWITCHED == 0, Relaxed);
}

/// Whether the next such instruction traps. On this CPU.
fn set_trap(trap: bool) {
    let cr0 = CR0.load(Relaxed) | if trap { bit::CR0_TASK_SWITCHED } else { 0 };
    // SAFETY: CR0 as it is, but for the bits that are about these registers.
    unsafe { pv_ops::write_cr0(cr0) };
}

/// The handler of #NM: gives the thread that runs here registers of its own. `false` when that cannot be.
pub(crate) fn first_use() -> bool {
    let Some(state) = switch::current_fpu() else { return false };
    if !state.area.load(Relaxed).is_null() {
        return false;
    }
    let area = initial_area();
    if area.is_null() {
        return false;
    }
    state.area.store(area, Relaxed);
    set_trap(false);
    // SAFETY: the area holds the initial state: zeros, but for the two control words.
    unsafe { load(area) };
    true
}

/// An area with the initial state; null when memory is out.
fn initial_area() -> *mut u8 {
    let Some(layout) = layout() else { return ptr::null_mut() };
    // SAFETY: the layout is not empty.
    let area = unsafe { alloc_zeroed(layout) };
    if area.is_null() {
        return area;
    }
    // SAFETY: the area has 512 bytes at least, and is aligned to 64.
    unsafe { area.add(FCW.0).cast::<u16>().write(FCW.1) };
    // SAFETY: as above.
    unsafe { area.add(MXCSR.0).cast::<u32>().write(MXCSR.1) };
    area
}

fn layout() -> Option<Layout> {
    Layout::from_size_align(LEN_BYTES.load(Relaxed) as usize, 64).ok().filter(|layout| layout.size() != 0)
}

impl State {
    pub(super) fn new() -> Self {
        let area = if WITHOUT_TRAP.load(Relaxed) { initial_area() } else { ptr::null_mut() };
        Self { area: AtomicPtr::new(area) }
    }

    /// The thread that runs here, whose state this is, gives the CPU to that of `next`. Interrupts are disabled.
    #[inline]
    pub(super) fn leave_for(&self, next: &Self) {
        let (ours, theirs) = (self.area.load(Relaxed), next.area.load(Relaxed));
        if ours.is_null() && theirs.is_null() {
            return;
        }
        exchange(ours, theirs);
    }
}

#[cold]
fn exchange(ours: *mut u8, theirs: *mut u8) {
    if !ours.is_null() {
        // SAFETY: only `first_use` sets the pointer, to an area of the right layout; this CPU runs its thread.
        unsafe { save(ours) };
    }
    if ours.is_null() != theirs.is_null() {
        set_trap(theirs.is_null());
    }
    if !theirs.is_null() {
        // SAFETY: as above; what it holds was saved when its thread left, or is the initial state.
        unsafe { load(theirs) };
    }
}

/// # Safety
/// `area` is one of `first_use`, and CR0.TS is clear.
unsafe fn save(area: *mut u8) {
    let low = COMPONENTS.load(Relaxed);
    match METHOD.load(Relaxed) {
        // SAFETY: here and below: the caller's word; the method is one that this CPU has.
        XSAVEOPT => unsafe {
            asm!("xsaveopt64 [{}]", in(reg) area, in("eax") low, in("edx") 0, options(nostack))
        },
        // SAFETY: as above.
        XSAVE => unsafe { asm!("xsave64 [{}]", in(reg) area, in("eax") low, in("edx") 0, options(nostack)) },
        // SAFETY: as above.
        _ => unsafe { asm!("fxsave64 [{}]", in(reg) area, options(nostack)) },
    }
}

/// # Safety
/// As for [`save`]; the area holds what it stored, or the initial state.
unsafe fn load(area: *mut u8) {
    let low = COMPONENTS.load(Relaxed);
    match METHOD.load(Relaxed) {
        // SAFETY: here and below: the caller's word.
        FXSAVE => unsafe { asm!("fxrstor64 [{}]", in(reg) area, options(nostack)) },
        // SAFETY: as above.
        _ => unsafe { asm!("xrstor64 [{}]", in(reg) area, in("eax") low, in("edx") 0, options(nostack)) },
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let area = *self.area.get_mut();
        if let (false, Some(layout)) = (area.is_null(), layout()) {
            // SAFETY: `first_use` allocated it with this layout, which does not change after the start.
            unsafe { dealloc(area, layout) };
        }
    }
}

crate::kernel_test! {
    /// Threads that all use the registers, with others that do not in between, each keep what they wrote, wherever they run.
    fn each_thread_keeps_its_floating_point_registers() {
        use crate::thread;
        let threads: alloc::vec::Vec<_> = (1..=6_u64).map(|number| thread::spawn(move || {
            for round in 0..200 {
                let value = number << 32 | round;
                // SAFETY: every CPU in long mode has SSE2; the compiler uses none of these registers.
                unsafe { asm!("movq xmm3, {}", "pshufd xmm15, xmm3, 0x44", in(reg) value, options(nomem, nostack)) };
                thread::yield_now();
                if round % 50 == 0 {
                    thread::sleep(core::time::Duration::from_micros(100));
                }
                let (low, high): (u64, u64);
                // SAFETY: as above.
                unsafe {
                    asm!(
                        "movq {}, xmm3", "psrldq xmm15, 8", "movq {}, xmm15",
                        out(reg) low, out(reg) high, options(nomem, nostack),
                    );
                }
                assert_eq!((low, high), (value, value), "thread {number}");
            }
        })).collect();
        threads.into_iter().for_each(thread::JoinHandle::join);
    }
}

crate::kernel_test! {
    /// The upper halves of the AVX registers, which FXSAVE does not know.
    fn each_thread_keeps_its_avx_registers() {
        use crate::thread;
        if COMPONENTS.load(Relaxed) & 0b100 == 0 {
            crate::skip!("no AVX here");
        }
        let threads: alloc::vec::Vec<_> = (1..=4_u64).map(|number| thread::spawn(move || {
            for round in 0..100 {
                let value = number << 32 | round;
                // SAFETY: XCR0 enables AVX; the compiler uses none of these registers.
                unsafe {
                    asm!(
                        "vmovq xmm5, {}", "vinsertf128 ymm5, ymm5, xmm5, 1",
                        in(reg) value, options(nomem, nostack),
                    );
                }
                thread::yield_now();
                let upper: u64;
                // SAFETY: as above.
                unsafe {
                    asm!("vextractf128 xmm6, ymm5, 1", "vmovq {}, xmm6", out(reg) upper, options(nomem, nostack));
                }
                assert_eq!(upper, value, "thread {number}");
            }
        })).collect();
        threads.into_iter().for_each(thread::JoinHandle::join);
    }
}

crate::kernel_test! {
    fn a_thread_begins_with_the_initial_control_words() {
        let thread = crate::thread::spawn(|| {
            let mut mxcsr = 0_u32;
            // SAFETY: stores to the variable.
            unsafe { asm!("stmxcsr [{}]", in(reg) &mut mxcsr, options(nostack)) };
            mxcsr
        });
        assert_eq!(thread.join(), MXCSR.1);
    }
}
