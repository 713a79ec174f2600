//! Virtual CPUs: what each shares with Xen in its own data (vcpu.h).
//! The kernel's number of a CPU is Xen's: it counts them in the order in which firmware tables or Xen list them.
//! Neighbours: `percpu` (the words), `pv::vcpu` (how one starts without a local APIC), `steal` and `lock` (other words).

use super::{
    abi::vcpu,
    hypercall::{self, Answer, Number},
    shared_info::{self, VcpuInfo},
};
use crate::{
    cpu_set::AtomicCpuSet,
    percpu::{self, CpuArea},
};

/// Words of a CPU's area that are its `vcpu_info`: the first ones, which the ops of a PV guest have in their text.
pub(super) const INFO_WORDS: usize = size_of::<VcpuInfo>() / 8;

/// The CPUs whose `vcpu_info` was moved.
static MOVED: AtomicCpuSet = AtomicCpuSet::new();

/// Xen's number of the virtual CPU that runs this, for hypercalls.
pub(super) fn current() -> u64 {
    // SAFETY: who asks runs in a guest of Xen whose kernel has GS in place.
    u64::from(unsafe { percpu::current() }.number())
}

fn info(area: &'static CpuArea) -> &'static VcpuInfo {
    let place: *const VcpuInfo = core::ptr::from_ref(area.host()).cast();
    // SAFETY: the words are atomic, as all in a `VcpuInfo` is, aligned to 64, and more than it has.
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
    if MOVED.contains(vcpu) {
        return Ok(0);
    }
    let offset = (area.host_address() % 4096) as u32;
    let argument = vcpu::RegisterVcpuInfo { mfn: frame, offset, _rsvd: 0 };
    // SAFETY: the struct is this command's, and the place is kept for Xen.
    let answer = unsafe { command(vcpu::REGISTER_VCPU_INFO, vcpu, &argument) }?;
    MOVED.insert(vcpu);
    shared_info::set_own(vcpu, info(area));
    Ok(answer)
}

/// Forgets what was moved: in its next life Xen keeps all of it in the shared page.
pub(super) fn forget_moves() {
    for vcpu in MOVED.get().iter() {
        MOVED.remove(vcpu);
        shared_info::forget_own(vcpu);
    }
}
