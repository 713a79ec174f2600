//! The memory that a CPU shares with KVM: clock, steal time, end-of-interrupt word, page faults.
//! It is in the words that each CPU has for its host (`percpu`). Layout by Linux's `Documentation/virt/kvm/x86/msr.rst`; all in it is atomic, since the host writes it at any time.
//! Neighbours: `time`, `irq` (what is in it), `mod` (registers it).

use super::async_pf::PageFaults;
use crate::{
    MAX_CPUS,
    percpu::{CpuArea, HOST_WORDS, HostWords},
    pvclock::TimeInfo,
};
use core::{
    mem::offset_of,
    sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering, fence},
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
    pub(super) page_faults: PageFaults,
}

const _: () = {
    assert!(size_of::<StealTime>() == 64 && offset_of!(StealTime, preempted) == 16);
    assert!(size_of::<Area>() == 192 && align_of::<Area>() == 64);
    assert!(
        offset_of!(Area, steal) == 0 && offset_of!(Area, clock) == 64 && offset_of!(Area, page_faults) == 128
    );
    assert!(HOST_WORDS + offset_of!(Area, eoi) == 160, "the instructions in `mod` have it in their text");
};

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

/// Where each CPU's words are, once it is up.
static CPUS: [AtomicPtr<CpuArea>; MAX_CPUS] = [const { AtomicPtr::new(core::ptr::null_mut()) }; MAX_CPUS];

/// The words of this CPU, which is up, are the host's from now on.
pub(super) fn set(cpu: u32, words: &'static CpuArea) {
    if let Some(place) = CPUS.get(cpu as usize) {
        place.store(core::ptr::from_ref(words).cast_mut(), Ordering::Release);
    }
}

/// The area of this CPU, if it is or was up.
pub(super) fn of(cpu: u32) -> Option<&'static Area> {
    let words = CPUS.get(cpu as usize)?.load(Ordering::Acquire);
    // SAFETY: null, or from a reference that lasts.
    unsafe { words.as_ref() }.map(within)
}

/// The area in a CPU's words.
pub(super) fn within(words: &'static CpuArea) -> &'static Area {
    const { assert!(size_of::<Area>() <= size_of::<HostWords>() && align_of::<Area>() <= align_of::<HostWords>()) };
    let area = core::ptr::from_ref(words.host()).cast::<Area>();
    // SAFETY: large enough and aligned (see above), all of it atomics on both sides, any bits are valid.
    unsafe { &*area }
}

/// The physical address of a part of a CPU's area; `None` if it is not known.
pub(super) fn physical<T>(words: &'static CpuArea, part: &'static T) -> Option<u64> {
    let offset = core::ptr::from_ref(part).addr() - words.host().as_ptr().addr();
    Some(words.host_address()).filter(|&address| address != 0).map(|address| address + offset as u64)
}
