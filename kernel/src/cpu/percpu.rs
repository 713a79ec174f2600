//! What each CPU has of its own, found by one register: GS points to the CPU's [`PerCpu`].
//! Neighbours: `gdt` (the tables in it), `irq::dispatch` (the counters in it), `probe` (the recovery point).

use super::gdt::Descriptors;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};

/// Number of interrupt vectors.
pub const VECTORS: usize = 256;

/// The data of one CPU. It never moves and is never freed.
#[repr(C)]
#[derive(Debug)]
pub struct PerCpu {
    /// This struct's own address, so that one load from `gs:[0]` finds it.
    this: AtomicPtr<PerCpu>,
    /// Stack pointer to return to when a probed instruction faults; 0 when nothing is being probed.
    pub(super) recovery: AtomicU64,
    /// The hypervisor backend's own, at a place that it knows (`pv_ops::backend::CPU_SLOT`).
    slot: AtomicU64,
    id: u32,
    apic_id: AtomicU32,
    /// Fatal reports that this CPU has begun.
    reports: AtomicU32,
    pub(super) descriptors: Descriptors,
    interrupts: [AtomicU64; VECTORS],
}

const _: () = assert!(core::mem::offset_of!(PerCpu, slot) as u64 == pv_ops::backend::CPU_SLOT);

static BOOT_CPU: PerCpu = PerCpu::new(0);
/// GS of the boot CPU is valid.
static READY: AtomicBool = AtomicBool::new(false);

impl PerCpu {
    const fn new(id: u32) -> Self {
        Self {
            this: AtomicPtr::new(core::ptr::null_mut()),
            recovery: AtomicU64::new(0),
            slot: AtomicU64::new(0),
            id,
            apic_id: AtomicU32::new(0),
            reports: AtomicU32::new(0),
            descriptors: Descriptors::new(),
            interrupts: [const { AtomicU64::new(0) }; VECTORS],
        }
    }

    /// Number of this CPU, from 0 without gaps.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// ID of its local APIC; 0 until that is known.
    pub fn apic_id(&self) -> u32 {
        self.apic_id.load(Ordering::Relaxed)
    }

    /// Notes the ID of its local APIC.
    pub fn set_apic_id(&self, id: u32) {
        self.apic_id.store(id, Ordering::Relaxed);
    }

    /// Counts one more interrupt. Called on this CPU only, with interrupts disabled: no locked instruction.
    #[inline]
    pub fn count_interrupt(&self, vector: u8) {
        let count = &self.interrupts[usize::from(vector)];
        count.store(count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// Interrupts and exceptions of `vector` so far.
    pub fn interrupts(&self, vector: u8) -> u64 {
        self.interrupts[usize::from(vector)].load(Ordering::Relaxed)
    }

    /// Begins a report of something fatal; says how many were begun before on this CPU.
    pub fn begin_report(&self) -> u32 {
        self.reports.fetch_add(1, Ordering::Relaxed)
    }
}

/// The data of the CPU that runs this.
#[cfg(target_os = "none")]
#[inline(always)]
pub fn current() -> &'static PerCpu {
    let this: *const PerCpu;
    // SAFETY: one load. Before `init_boot_cpu` nothing may ask (its doc says so): GS is 0 then.
    unsafe {
        core::arch::asm!(
            "mov {}, qword ptr gs:[0]",
            out(reg) this,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    // SAFETY:
    // 1. `init_boot_cpu` made GS point to a `PerCpu` whose first field is its own address.
    // 2. A `PerCpu` lives for ever and is shared by references only.
    unsafe { &*this }
}

/// The data of the CPU that runs this. A host program has one.
#[cfg(not(target_os = "none"))]
pub fn current() -> &'static PerCpu {
    &BOOT_CPU
}

/// Whether [`current`] may be called: it may from `cpu::init` on.
pub fn is_ready() -> bool {
    READY.load(Ordering::Relaxed)
}

/// All CPUs that are up.
pub fn all() -> impl Iterator<Item = &'static PerCpu> {
    core::iter::once(&BOOT_CPU)
}

/// Lets GS of the boot CPU point to its data.
pub(super) fn init_boot_cpu() -> &'static PerCpu {
    BOOT_CPU.this.store((&raw const BOOT_CPU).cast_mut(), Ordering::Relaxed);
    // SAFETY: `BOOT_CPU` is a static with its own address in front: what `current` expects behind GS.
    unsafe { pv_ops::write_gs_base((&raw const BOOT_CPU).addr() as u64) };
    READY.store(true, Ordering::Relaxed);
    &BOOT_CPU
}
