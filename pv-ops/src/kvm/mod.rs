//! KVM as the host: a guest that runs natively and shares with its host what makes that cheaper.
//! `docs/kvm.md` lists every feature, its bit, and what the guest does without it.
//!
//! Each feature stands alone: `features` says which are offered and wanted, set-up replaces the native op by KVM's for
//! these, and everything else stays the instruction that it is natively. Reads in this order: `features` · `area` (the
//! memory that a CPU shares), `msr` · `time`, `irq` (bodies) · `clock_rate` (for a guest that stays native).

mod area;
pub(crate) mod clock_rate;
pub mod features;
pub mod irq;
mod msr;
mod time;

use crate::{
    backend::{Backend, CPU_SLOT, Environment, Services},
    detect::Hypervisors,
    native,
    ops::PvOps,
    signature::KVM,
};
use core::sync::atomic::{AtomicBool, Ordering};
use features::{Choice, PV_EOI, STEAL_TIME};

/// The backend. It serves wherever KVM's leaves are, with as many features as there are.
pub static BACKEND: Backend = Backend {
    name: "kvm",
    detect: |hypervisors, environment| {
        environment.xen_start_info.is_none() && hypervisors.find(KVM).is_some()
    },
    tables: &[&OPS, &OPS_X2APIC],
    setup,
    services: Services {
        tsc_hz: time::tsc_hz,
        cpu_up,
        features: features::tell,
        complaint: features::complaint,
        ..Services::NONE
    },
};

/// What a guest of KVM does otherwise than a machine, if every feature is there.
pub const OPS: PvOps = PvOps {
    // CPU_SLOT is 16, `eoi` is at 96 in the area to which it leads.
    eoi: instruction!(eoi: "mov rax, qword ptr gs:[16]; btr dword ptr [rax + 96], 0; jc 2f; \
                            mov dword ptr [0xffffffffffdff0b0], 0; 2:"
        => [0x65, 0x48, 0x8b, 0x04, 0x25, 0x10, 0x00, 0x00, 0x00, 0x0f, 0xba, 0x70, 0x60, 0x00, 0x72, 0x0b,
            0xc7, 0x04, 0x25, 0xb0, 0xf0, 0xdf, 0xff, 0x00, 0x00, 0x00, 0x00]),
    timer_arm: function!(timer_arm => time::timer_arm),
    monotonic_ns: thunk!(monotonic_ns => time::monotonic_ns),
    wall_ns: function!(wall_ns => time::wall_ns),
    steal_ns: thunk!(steal_ns => time::steal_ns),
    // The first argument's register is the compiler's own: the site brings it in another one.
    hypercall: instruction!(hypercall: "xchg rbx, rdi; vmcall; xchg rbx, rdi"
        => [0x48, 0x87, 0xdf, 0x0f, 0x01, 0xc1, 0x48, 0x87, 0xdf]),
    ..native::OPS
};

/// Likewise where the local APIC is in x2APIC mode, and the CPU AMD's.
pub const OPS_X2APIC: PvOps = PvOps {
    eoi: instruction!(eoi: "mov rax, qword ptr gs:[16]; btr dword ptr [rax + 96], 0; jc 2f; \
                            mov ecx, 0x80b; xor eax, eax; xor edx, edx; wrmsr; 2:"
        => [0x65, 0x48, 0x8b, 0x04, 0x25, 0x10, 0x00, 0x00, 0x00, 0x0f, 0xba, 0x70, 0x60, 0x00, 0x72, 0x0b,
            0xb9, 0x0b, 0x08, 0x00, 0x00, 0x31, 0xc0, 0x31, 0xd2, 0x0f, 0x30]),
    hypercall: instruction!(hypercall: "xchg rbx, rdi; vmmcall; xchg rbx, rdi"
        => [0x48, 0x87, 0xdf, 0x0f, 0x01, 0xd9, 0x48, 0x87, 0xdf]),
    ..OPS
};

const _: () = assert!(CPU_SLOT == 16, "the instructions above have it in their text");

/// Areas are where the host can be told: per-CPU features can be had.
static LOCATED: AtomicBool = AtomicBool::new(false);

fn setup(environment: &Environment<'_>, hypervisors: &Hypervisors) -> PvOps {
    setup_without(0, environment, hypervisors)
}

/// Takes what is offered, not refused by `kvm=`, and can be told to the host; nothing of the feature bits `unusable`.
pub(crate) fn setup_without(
    unusable: u32,
    environment: &Environment<'_>,
    hypervisors: &Hypervisors,
) -> PvOps {
    let native = native::setup(environment, hypervisors);
    let Some(found) = hypervisors.find(KVM) else { return native };
    // Old hosts say 0 and mean base + 1, which is all that is read (cpuid.rst).
    let offered = (environment.cpuid)(found.base + 1, 0).eax & !unusable;
    features::set(Choice::new(offered, ""));
    (environment.option)("kvm", &mut |wish| features::set(Choice::new(offered, wish)));
    let located = area::locate(environment.image_physical);
    LOCATED.store(located, Ordering::Relaxed);
    let kvm = match native::irq::apic_mode() {
        native::irq::ApicMode::XApic => OPS,
        native::irq::ApicMode::X2Apic => OPS_X2APIC,
    };
    let mut ops = native;
    if located
        && features::CLOCK.is_wanted()
        && time::start(offered, environment.entry_tsc, environment.image_physical)
    {
        ops.timer_arm = kvm.timer_arm;
        ops.monotonic_ns = kvm.monotonic_ns;
        ops.wall_ns = kvm.wall_ns;
    }
    if located && STEAL_TIME.is_wanted() {
        ops.steal_ns = kvm.steal_ns;
    }
    if located && PV_EOI.is_wanted() {
        ops.eoi = kvm.eoi;
    }
    let has_vmmcall = WITH_VMMCALL.contains(&(environment.cpuid)(0, 0).ebx);
    ops.hypercall = if has_vmmcall { OPS_X2APIC.hypercall } else { OPS.hypercall };
    ops
}

/// EBX of CPUID leaf 0 where the CPU has `vmmcall`: "Auth" of AMD, "Hygo" of Hygon. The other instruction would make KVM
/// rewrite it, which the read-only text forbids.
const WITH_VMMCALL: [u32; 2] = [u32::from_le_bytes(*b"Auth"), u32::from_le_bytes(*b"Hygo")];

/// Registers what the CPU that runs this shares.
fn cpu_up(cpu: u32) {
    let Some(area) = area::of(cpu).filter(|_| LOCATED.load(Ordering::Relaxed)) else { return };
    // SAFETY: GS leads to the data of this CPU (the caller's promise), whose slot is this backend's.
    unsafe {
        core::arch::asm!("mov qword ptr gs:[{slot}], {area}", slot = const CPU_SLOT, area = in(reg) area,
            options(nostack, preserves_flags));
    }
    time::cpu_up(area, cpu);
    time::register_steal_time(area);
    irq::register(area);
}
