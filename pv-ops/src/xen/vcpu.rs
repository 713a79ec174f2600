//! Virtual CPUs: what each shares with Xen in its own data, for both sorts of guest (vcpu.h).
//! The kernel's number of a CPU is Xen's: it counts them in the order in which firmware tables or Xen list them.
//! Neighbours: `percpu` (the words), `pv::vcpu` (how one starts without a local APIC), `shared_info` (what they mean).

use super::{
    abi::vcpu,
    hypercall::{self, Answer, Number},
    shared_info::{self, VcpuInfo},
};
use crate::{
    cpu_set::{AtomicCpuSet, MAX_CPUS},
    percpu::{self, CpuArea},
};
use core::{
    mem::offset_of,
    sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering},
};

/// How long a virtual CPU was in each state (vcpu.h).
#[repr(C)]
#[derive(Debug)]
#[doc(alias = "vcpu_runstate_info")]
struct RunState {
    state: AtomicU32,
    /// Changed with every change of the others.
    state_entry_time: AtomicU64,
    /// Nanoseconds, by state.
    time: [AtomicU64; 4],
}

/// Wants to run and does not (`RUNSTATE_runnable`).
const RUNNABLE: usize = 1;

/// What is in a CPU's host words.
#[repr(C)]
struct Shared {
    info: VcpuInfo,
    run_state: RunState,
}
const _: () = {
    assert!(size_of::<RunState>() == 48 && offset_of!(RunState, time) == 16);
    assert!(offset_of!(Shared, run_state) == 64 && size_of::<Shared>() <= size_of::<percpu::HostWords>());
};

static RUN_STATES: [AtomicPtr<RunState>; MAX_CPUS] =
    [const { AtomicPtr::new(core::ptr::null_mut()) }; MAX_CPUS];
static HAS_OWN_INFO: AtomicCpuSet = AtomicCpuSet::EMPTY;

/// Xen's number of the virtual CPU that runs this, for hypercalls.
pub(super) fn current() -> u64 {
    // SAFETY: who asks runs in a guest of Xen whose kernel has GS in place.
    u64::from(unsafe { percpu::current() }.number())
}

fn shared(area: &'static CpuArea) -> &'static Shared {
    let place: *const Shared = core::ptr::from_ref(area.host()).cast();
    // SAFETY: the words are atomic, as everything in `Shared` is, aligned to 64 and long enough (asserted above).
    unsafe { &*place }
}

/// Calls `vcpu_op` for a virtual CPU.
///
/// # Safety
/// As for the command; `argument` is its own.
pub(super) unsafe fn command<T>(command: u32, vcpu: u32, argument: &T) -> Answer {
    let address = core::ptr::from_ref(argument).expose_provenance() as u64;
    // SAFETY: the caller's promise.
    unsafe { hypercall::call3(Number::VcpuOp, command.into(), vcpu.into(), address) }
}

/// Lets Xen keep the `vcpu_info` of the CPU with this area in it, whose frame Xen knows by the number `frame`. Once for
/// each; later calls do nothing.
pub(super) fn move_info(area: &'static CpuArea, frame: u64) -> Answer {
    let vcpu = area.number();
    if HAS_OWN_INFO.contains(vcpu) {
        return Ok(0);
    }
    let offset = (area.host_address() % 4096) as u32;
    let argument = vcpu::RegisterVcpuInfo { mfn: frame, offset, _rsvd: 0 };
    // SAFETY: the struct is this command's, and the place is kept for Xen.
    let answer = unsafe { command(vcpu::REGISTER_VCPU_INFO, vcpu, &argument) }?;
    HAS_OWN_INFO.insert(vcpu);
    shared_info::set_own(vcpu, &shared(area).info);
    Ok(answer)
}

/// Has Xen count the time that is stolen from this CPU.
pub(super) fn cpu_up(cpu: u32) {
    // SAFETY: the kernel calls this with its data in place.
    let area = unsafe { percpu::current() };
    let run_state = &shared(area).run_state;
    let address = core::ptr::from_ref(run_state).expose_provenance() as u64;
    // SAFETY: the struct is one address; what is there is kept for Xen.
    let registered = unsafe { command(vcpu::REGISTER_RUNSTATE, cpu, &address) };
    if let (Ok(_), Some(place)) = (registered, RUN_STATES.get(cpu as usize)) {
        place.store(core::ptr::from_ref(run_state).cast_mut(), Ordering::Release);
    }
}

/// Times that is looked again while Xen changes it.
const LOOKS: u32 = 16;

pub(super) extern "sysv64" fn steal_ns(cpu: u32) -> u64 {
    let place =
        RUN_STATES.get(cpu as usize).map_or(core::ptr::null_mut(), |place| place.load(Ordering::Acquire));
    // SAFETY: null, or from a `&'static RunState` in `cpu_up`; all in it is atomic.
    let Some(run_state) = (unsafe { place.as_ref() }) else { return 0 };
    let mut steal_ns = 0;
    for _ in 0..LOOKS {
        let before = run_state.state_entry_time.load(Ordering::Acquire);
        steal_ns = run_state.time[RUNNABLE].load(Ordering::Acquire);
        if run_state.state_entry_time.load(Ordering::Relaxed) == before {
            break;
        }
    }
    steal_ns
}
