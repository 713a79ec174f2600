//! The page that Xen shares with the whole domain (xen.h, `struct shared_info`): event bits, clocks, wall time.
//! Neighbours: `abi` (other structs), `event_channel` (bits), `time` (clocks), `hvm` and `pv` (who map it).
//!
//! The page has its place in the image's `.bss`; until Xen's is mapped there it is plain zeroes, which say: no event,
//! clock without a scale, wall clock 0.

use crate::pvclock::{TimeInfo, WallClock};
use core::{
    mem::offset_of,
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, Ordering},
};

/// Virtual CPUs whose `vcpu_info` is in this page.
#[doc(alias = "XEN_LEGACY_MAX_VCPUS")]
pub const VCPUS: usize = 32;
/// Words of 64 event channels each in the 2-level ABI.
pub const EVENT_WORDS: usize = 64;

/// What Xen tells one virtual CPU (xen.h).
#[repr(C)]
#[derive(Debug, Default)]
#[doc(alias = "vcpu_info")]
pub struct VcpuInfo {
    /// 1: an event is pending that was not delivered yet.
    pub evtchn_upcall_pending: AtomicU8,
    /// PV: 1 holds events back, as a cleared interrupt flag does. HVM: not used.
    pub evtchn_upcall_mask: AtomicU8,
    _pad0: [AtomicU8; 6],
    /// Which words of [`SharedInfo::evtchn_pending`] have events for this CPU.
    pub evtchn_pending_sel: AtomicU64,
    /// PV: the address of the last page fault (arch-x86/xen-x86_64.h, `arch_vcpu_info.cr2`).
    pub cr2: AtomicU64,
    _pad1: AtomicU64,
    /// This CPU's clock.
    pub time: TimeInfo,
}

/// The page (xen.h; arch-x86/xen.h, `struct arch_shared_info`).
#[repr(C, align(4096))]
#[derive(Debug)]
#[doc(alias = "shared_info")]
pub struct SharedInfo {
    /// One per virtual CPU.
    pub vcpu_info: [VcpuInfo; VCPUS],
    /// Events that came (2-level ABI).
    pub evtchn_pending: [AtomicU64; EVENT_WORDS],
    /// Events held back (2-level ABI).
    pub evtchn_mask: [AtomicU64; EVENT_WORDS],
    /// Unix time at system time 0.
    pub wall_clock: WallClock,
    /// The upper half of the wall clock's seconds.
    pub wc_sec_hi: AtomicU32,
    /// PV, written by the guest: its last frame number plus one.
    pub max_pfn: AtomicU64,
    /// PV, written by the guest: root of the tree of frames that hold the p2m list, for the toolstack.
    pub pfn_to_mfn_frame_list_list: AtomicU64,
    /// Why an NMI came.
    pub nmi_reason: AtomicU64,
    /// PV, written by the guest: CR3 under which `p2m_vaddr` is valid; 0 if there is no linear p2m list.
    pub p2m_cr3: AtomicU64,
    /// PV, written by the guest: where its linear p2m list is.
    pub p2m_vaddr: AtomicU64,
    /// PV, written by the guest: changed before and after a change of the p2m list.
    pub p2m_generation: AtomicU64,
}

const _: () = {
    assert!(size_of::<VcpuInfo>() == 64);
    assert!(offset_of!(VcpuInfo, evtchn_upcall_mask) == 1);
    assert!(offset_of!(VcpuInfo, evtchn_pending_sel) == 8);
    assert!(offset_of!(VcpuInfo, cr2) == 16);
    assert!(offset_of!(VcpuInfo, time) == 32);
    assert!(size_of::<SharedInfo>() == 4096);
    assert!(offset_of!(SharedInfo, evtchn_pending) == 2048);
    assert!(offset_of!(SharedInfo, evtchn_mask) == 2560);
    assert!(offset_of!(SharedInfo, wall_clock) == 3072);
    assert!(offset_of!(SharedInfo, wc_sec_hi) == 3084);
    assert!(offset_of!(SharedInfo, max_pfn) == 3088);
    assert!(offset_of!(SharedInfo, p2m_cr3) == 3112);
    assert!(offset_of!(SharedInfo, p2m_generation) == 3128);
};

impl SharedInfo {
    const fn zero() -> Self {
        Self {
            vcpu_info: [const {
                VcpuInfo {
                    evtchn_upcall_pending: AtomicU8::new(0),
                    evtchn_upcall_mask: AtomicU8::new(0),
                    _pad0: [const { AtomicU8::new(0) }; 6],
                    evtchn_pending_sel: AtomicU64::new(0),
                    cr2: AtomicU64::new(0),
                    _pad1: AtomicU64::new(0),
                    time: TimeInfo::new(),
                }
            }; VCPUS],
            evtchn_pending: [const { AtomicU64::new(0) }; EVENT_WORDS],
            evtchn_mask: [const { AtomicU64::new(0) }; EVENT_WORDS],
            wall_clock: WallClock::new(),
            wc_sec_hi: AtomicU32::new(0),
            max_pfn: AtomicU64::new(0),
            pfn_to_mfn_frame_list_list: AtomicU64::new(0),
            nmi_reason: AtomicU64::new(0),
            p2m_cr3: AtomicU64::new(0),
            p2m_vaddr: AtomicU64::new(0),
            p2m_generation: AtomicU64::new(0),
        }
    }
}

/// The page's place. All in it is atomic: Xen changes it at any time.
#[unsafe(export_name = "xen_shared_info")]
static PAGE: SharedInfo = SharedInfo::zero();
static MAPPED: AtomicBool = AtomicBool::new(false);

/// The `vcpu_info` that were moved out of the page.
static OWN: [AtomicPtr<VcpuInfo>; VCPUS] = [const { AtomicPtr::new(core::ptr::null_mut()) }; VCPUS];

/// Notes that Xen writes to this one for the virtual CPU from now on.
pub(super) fn set_own(vcpu: u32, info: &'static VcpuInfo) {
    if let Some(place) = OWN.get(vcpu as usize) {
        place.store(core::ptr::from_ref(info).cast_mut(), Ordering::Release);
    }
}

/// Notes that it is in the page.
pub(super) fn forget_own(vcpu: u32) {
    if let Some(place) = OWN.get(vcpu as usize) {
        place.store(core::ptr::null_mut(), Ordering::Release);
    }
}

/// The page; all zeroes until Xen's is there.
pub fn get() -> &'static SharedInfo {
    &PAGE
}

/// What Xen tells this virtual CPU, if it is one of the first [`VCPUS`].
pub fn vcpu_info(vcpu: u32) -> Option<&'static VcpuInfo> {
    let own = OWN.get(vcpu as usize)?.load(Ordering::Acquire);
    // SAFETY: null, or from a `&'static VcpuInfo` in `set_own`; all in it is atomic.
    unsafe { own.as_ref() }.or_else(|| PAGE.vcpu_info.get(vcpu as usize))
}

/// Whether Xen's page is there.
pub fn is_mapped() -> bool {
    MAPPED.load(Ordering::Acquire)
}

/// Xen's page is there now. All channels are held back, those that the toolstack bound too, until somebody lets them
/// through one by one: an event that nobody is ready for would end the domain. What came stays noted.
pub(super) fn set_mapped() {
    PAGE.evtchn_mask.iter().for_each(|word| word.store(u64::MAX, Ordering::SeqCst));
    let boot_cpu = &PAGE.vcpu_info[0];
    boot_cpu.evtchn_pending_sel.store(0, Ordering::SeqCst);
    boot_cpu.evtchn_upcall_pending.store(0, Ordering::SeqCst);
    MAPPED.store(true, Ordering::Release);
}

/// Where in the image the page has its place.
pub(super) fn address() -> u64 {
    (&raw const PAGE).addr() as u64
}
