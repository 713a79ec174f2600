//! What each CPU has of its own, found by one register: GS points to the CPU's [`PerCpu`].
//!
//! The boot CPU's is a static; that of any other is made when the CPU is first brought up, and stays.
//! Neighbours: `gdt` (the tables in it), `irq::dispatch` (the counters in it), `probe` (the recovery point), `smp`.

use super::{gdt::Descriptors, tlb::requests::Requests};
use crate::{
    hypervisor,
    mm::{self, frame},
};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use pv_ops::{AtomicCpuSet, CpuSet, MAX_CPUS, percpu::CpuArea};

/// Number of interrupt vectors.
pub const VECTORS: usize = 256;

/// The data of one CPU. It never moves and is never freed.
#[repr(C)]
#[derive(Debug)]
pub struct PerCpu {
    /// Its own address, and what it shares with the host.
    area: CpuArea,
    /// Stack pointer to return to when a probed instruction faults; 0 when nothing is being probed.
    pub(super) recovery: AtomicU64,
    id: u32,
    /// Where the stack begins that it starts and idles on; 0 for the boot CPU.
    stack_top: u64,
    apic_id: AtomicU32,
    /// Fatal reports that this CPU has begun.
    reports: AtomicU32,
    /// The time stamp counter when it came up last.
    pub(super) came_at_tsc: AtomicU64,
    /// Reasons not to go on with another thread: handlers under way, and `stay::Stay`s.
    pub(super) stays: AtomicU32,
    pub(super) tlb: Requests,
    memory: mm::Local,
    pub(super) descriptors: Descriptors,
    interrupts: [AtomicU64; VECTORS],
}

/// Bytes from GS to [`PerCpu::memory`].
pub(crate) const MEMORY_OFFSET: usize = core::mem::offset_of!(PerCpu, memory);

static BOOT_CPU: PerCpu = PerCpu::new(0, 0);
/// GS of the boot CPU is valid.
static READY: AtomicBool = AtomicBool::new(false);
/// The CPUs that were ever brought up, but the boot CPU, by number less one.
static OTHERS: [AtomicPtr<PerCpu>; MAX_CPUS - 1] =
    [const { AtomicPtr::new(core::ptr::null_mut()) }; MAX_CPUS - 1];
/// The CPUs that are up, without the boot CPU, which always is.
static UP: AtomicCpuSet = AtomicCpuSet::new();

impl PerCpu {
    const fn new(id: u32, stack_top: u64) -> Self {
        Self {
            area: CpuArea::new(),
            recovery: AtomicU64::new(0),
            id,
            stack_top,
            apic_id: AtomicU32::new(0),
            reports: AtomicU32::new(0),
            came_at_tsc: AtomicU64::new(0),
            stays: AtomicU32::new(0),
            tlb: Requests::new(),
            memory: mm::Local::new(),
            descriptors: Descriptors::new(),
            interrupts: [const { AtomicU64::new(0) }; VECTORS],
        }
    }

    /// Number of this CPU, from 0 without gaps.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// What it shares with the host.
    pub(super) fn area(&'static self) -> &'static CpuArea {
        &self.area
    }

    /// Where the stack begins that it starts on; 0 for the boot CPU.
    pub(super) fn stack_top(&self) -> u64 {
        self.stack_top
    }

    /// ID of its local APIC; 0 until that is known.
    pub fn apic_id(&self) -> u32 {
        self.apic_id.load(Ordering::Relaxed)
    }

    /// Notes the ID of its local APIC.
    pub fn set_apic_id(&self, id: u32) {
        self.apic_id.store(id, Ordering::Relaxed);
        pv_ops::native::irq::set_apic_id(self.id, id);
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

    /// The memory that it keeps at hand.
    pub(crate) fn memory(&self) -> &mm::Local {
        &self.memory
    }

    /// Begins a report of something fatal; says how many were begun before on this CPU.
    pub fn begin_report(&self) -> u32 {
        self.reports.fetch_add(1, Ordering::Relaxed)
    }

    /// Lets GS of the CPU that runs this point here: it becomes that CPU's data.
    ///
    /// # Safety
    /// This is the data of the CPU that runs this.
    pub(super) unsafe fn take_over(&'static self) {
        // SAFETY: the area is the first field and settled: what `current` expects behind GS.
        unsafe { pv_ops::write_gs_base((&raw const *self).addr() as u64) };
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
    // 1. `take_over` made GS point to a `PerCpu` whose first word is its own address.
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

/// The data of the CPU that runs this, the boot CPU's too while that has not been found by GS yet.
#[inline]
pub fn current_or_boot() -> &'static PerCpu {
    if is_ready() { current() } else { &BOOT_CPU }
}

/// The number of the CPU that runs this; 0 too while only the boot CPU can run and has no data yet.
pub fn this_cpu() -> u32 {
    current_or_boot().id
}

/// All CPUs that are up or were, the boot CPU first.
pub fn all() -> impl Iterator<Item = &'static PerCpu> {
    (0..MAX_CPUS as u32).filter_map(by_id)
}

/// The data of the CPU with this number, if it ever was up.
pub fn by_id(id: u32) -> Option<&'static PerCpu> {
    let Some(index) = id.checked_sub(1) else { return Some(&BOOT_CPU) };
    let cpu = OTHERS.get(index as usize)?.load(Ordering::Acquire);
    // SAFETY: null, or leaked by `make`.
    unsafe { cpu.as_ref() }
}

/// The CPUs that are up.
pub fn up() -> CpuSet {
    let mut up = UP.get();
    up.insert(0);
    up
}

/// Notes that it has gone down.
pub(super) fn set_down(id: u32) {
    UP.remove(id);
}

/// Whether this CPU is up.
pub fn is_up(id: u32) -> bool {
    id == 0 || UP.contains(id)
}

/// The CPUs that are up, without this one.
pub fn others() -> CpuSet {
    let mut others = up();
    others.remove(this_cpu());
    others
}

/// Notes that a CPU that is not the boot CPU has come up.
pub(super) fn set_up(id: u32) {
    UP.insert(id);
}

/// The data for the CPU with this number, made if there is none yet; `None` when memory is out or there can be no such
/// CPU. For one caller at a time.
pub(super) fn make(id: u32, stack_top: u64) -> Option<&'static PerCpu> {
    if let Some(cpu) = by_id(id) {
        return Some(cpu);
    }
    let place = OTHERS.get(id.checked_sub(1)? as usize)?;
    let mut one = Vec::new();
    one.try_reserve_exact(1).ok()?;
    one.push(PerCpu::new(id, stack_top));
    let page = if hypervisor::services().cpu_pages { Some(frame::alloc(0).ok()?) } else { None };
    place.store(one.leak().first_mut()?, Ordering::Release);
    let cpu = by_id(id)?;
    cpu.area.settle(id, mm::map::translate);
    if let Some(mut page) = page {
        page.bytes().fill(0);
        cpu.area.give_page(page.as_ptr().addr().get() as u64, page.address());
        // It is the host's for ever.
        core::mem::forget(page);
    }
    Some(cpu)
}

/// Lets GS of the boot CPU point to its data.
pub(super) fn init_boot_cpu() -> &'static PerCpu {
    BOOT_CPU.area.settle(0, mm::map::translate);
    // SAFETY: the boot CPU runs this, alone.
    unsafe { BOOT_CPU.take_over() };
    READY.store(true, Ordering::Relaxed);
    &BOOT_CPU
}
