//! The memory that a CPU shares with KVM: clock, steal time, end-of-interrupt word.
//! Layout by Linux's `Documentation/virt/kvm/x86/msr.rst`; all in it is atomic, since the host writes it at any time.
//! Neighbours: `time`, `irq` (what is in it), `mod` (registers it).

use crate::pvclock::TimeInfo;
use core::{
    mem::offset_of,
    sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence},
};

/// How long the host ran something else (msr.rst, MSR_KVM_STEAL_TIME); 64 bytes at a multiple of 64.
#[repr(C)]
#[derive(Debug)]
#[doc(alias = "kvm_steal_time")]
pub(super) struct StealTime {
    steal_ns: AtomicU64,
    /// Odd while the host writes.
    version: AtomicU32,
    flags: AtomicU32,
    /// Bit 0: the host has put this CPU aside.
    pub(super) preempted: AtomicU8,
    _pad: [AtomicU8; 47],
}

/// What one CPU shares.
#[repr(C, align(64))]
#[derive(Debug)]
pub(super) struct Area {
    pub(super) steal: StealTime,
    /// 4-byte aligned, 32 bytes (MSR_KVM_SYSTEM_TIME_NEW).
    pub(super) clock: TimeInfo,
    /// Bit 0: the interrupt in service needs no end (MSR_KVM_PV_EOI_EN). Only this CPU and its host touch it, never at
    /// the same time.
    pub(super) eoi: AtomicU32,
    _pad: [AtomicU32; 7],
}

const _: () = {
    assert!(size_of::<StealTime>() == 64 && offset_of!(StealTime, preempted) == 16);
    assert!(size_of::<Area>() == 128 && align_of::<Area>() == 64);
    assert!(offset_of!(Area, steal) == 0 && offset_of!(Area, clock) == 64);
    assert!(offset_of!(Area, eoi) == 96, "the instructions in `irq` have it in their text");
};

impl Area {
    const fn new() -> Self {
        Self {
            steal: StealTime {
                steal_ns: AtomicU64::new(0),
                version: AtomicU32::new(0),
                flags: AtomicU32::new(0),
                preempted: AtomicU8::new(0),
                _pad: [const { AtomicU8::new(0) }; 47],
            },
            clock: TimeInfo::new(),
            eoi: AtomicU32::new(0),
            _pad: [const { AtomicU32::new(0) }; 7],
        }
    }
}

impl StealTime {
    /// Nanoseconds; 0 if the host does not come to rest.
    pub(super) fn read_ns(&self) -> u64 {
        for _ in 0..crate::pvclock::ATTEMPTS {
            let before = self.version.load(Ordering::Acquire);
            let steal_ns = self.steal_ns.load(Ordering::Relaxed);
            fence(Ordering::Acquire);
            if before & 1 == 0 && self.version.load(Ordering::Relaxed) == before {
                return steal_ns;
            }
            core::hint::spin_loop();
        }
        0
    }
}

/// CPUs that there can be.
const MAX_CPUS: usize = crate::MAX_CPUS as usize;

static AREAS: [Area; MAX_CPUS] = [const { Area::new() }; MAX_CPUS];

/// The area of this CPU.
pub(super) fn of(cpu: u32) -> Option<&'static Area> {
    AREAS.get(cpu as usize)
}

const PAGE: u64 = 4096;
/// Pages that the areas touch, wherever in a page they begin.
const PAGES: usize = size_of::<[Area; MAX_CPUS]>() / PAGE as usize + 1;
/// The physical address of each of these pages; 0 is "unknown".
static PHYSICAL: [AtomicU64; PAGES] = [const { AtomicU64::new(0) }; PAGES];

/// Learns where the areas are in physical memory; `false` if that cannot be known.
pub(super) fn locate(physical: &dyn Fn(u64) -> Option<u64>) -> bool {
    let first = page_of((&raw const AREAS).addr() as u64);
    let last = (&raw const AREAS).addr() as u64 + size_of::<[Area; MAX_CPUS]>() as u64 - 1;
    PHYSICAL.iter().zip(0..).take_while(|(_, page)| first + page * PAGE <= last).all(|(place, page)| {
        let found = physical(first + page * PAGE).filter(|&found| found != 0 && found % PAGE == 0);
        place.store(found.unwrap_or(0), Ordering::Relaxed);
        found.is_some()
    })
}

/// The physical address of something in an area, which lies in one page, since none is larger than what its address
/// is a multiple of.
pub(super) fn physical<T>(part: &'static T) -> Option<u64> {
    let address = core::ptr::from_ref(part).addr() as u64;
    let page = address.checked_sub(page_of((&raw const AREAS).addr() as u64))? / PAGE;
    let physical = PHYSICAL.get(page as usize)?.load(Ordering::Relaxed);
    (physical != 0).then_some(physical + address % PAGE)
}

fn page_of(address: u64) -> u64 {
    address & !(PAGE - 1)
}
