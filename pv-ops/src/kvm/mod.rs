//! KVM as the host: a guest that runs natively and shares with its host what makes that cheaper.
//! `docs/kvm.md` lists every feature, its bit, and what the guest does without it.
//!
//! Each feature stands alone: `features` says which are offered and wanted, set-up replaces the native op by KVM's for
//! these, and everything else stays the instruction that it is natively. Reads in this order: `features` · `area` (the
//! memory that a CPU shares), `msr`, `hypercall` · `time`, `irq`, `mmu`, `lock`, `async_pf` (bodies) · `clock_rate` (for a
//! guest that stays native).

mod area;
mod async_pf;
pub(crate) mod clock_rate;
pub mod features;
pub mod hypercall;
pub mod irq;
mod lock;
pub mod mmu;
mod msr;
mod time;

use crate::{
    backend::{Backend, Environment, Services},
    detect::Hypervisors,
    native,
    ops::PvOps,
    percpu,
    signature::KVM,
};
use features::{
    Choice, HOST_POLL, MSI_EXT_DEST_ID, PV_EOI, PV_IPI, PV_TLB_FLUSH, PV_UNHALT, SCHED_YIELD, STEAL_TIME,
};

/// The backend. It serves wherever KVM's leaves are, with as many features as there are.
pub static BACKEND: Backend = Backend {
    name: "kvm",
    detect: |hypervisors, environment| {
        environment.xen_start_info.is_none() && hypervisors.find(KVM).is_some()
    },
    setup,
    services: Services {
        tsc_hz: time::tsc_hz,
        cpu_up,
        features: features::tell,
        complaint: features::complaint,
        page_fault: async_pf::take_fault,
        page_ready: async_pf::take_ready,
        has_long_message_ids: || MSI_EXT_DEST_ID.is_used(),
        ..Services::NONE
    },
    early: None,
};

/// What a guest of KVM does otherwise than a machine, if every feature is there.
pub const OPS: PvOps = PvOps {
    // gs:[160] is `area::Area::eoi`.
    eoi: instruction!(eoi: "btr dword ptr gs:[160], 0; jc 2f; mov dword ptr [0xffffffffffdff0b0], 0; 2:"
        => [0x65, 0x0f, 0xba, 0x34, 0x25, 0xa0, 0x00, 0x00, 0x00, 0x00, 0x72, 0x0b,
            0xc7, 0x04, 0x25, 0xb0, 0xf0, 0xdf, 0xff, 0x00, 0x00, 0x00, 0x00]),
    send_ipi_many: function!(send_ipi_many => irq::send_ipi_many),
    timer_arm: function!(timer_arm => time::timer_arm),
    flush_tlb_others: function!(flush_tlb_others => mmu::flush_tlb_others),
    monotonic_ns: thunk!(monotonic_ns => time::monotonic_ns),
    wall_ns: function!(wall_ns => time::wall_ns),
    steal_ns: thunk!(steal_ns => time::steal_ns),
    lock_kick: thunk!(lock_kick => lock::lock_kick),
    lock_wait: thunk!(lock_wait => lock::lock_wait),
    // The first argument's register is the compiler's own: the site brings it in another one.
    hypercall: instruction!(hypercall: "xchg rbx, rdi; vmcall; xchg rbx, rdi"
        => [0x48, 0x87, 0xdf, 0x0f, 0x01, 0xc1, 0x48, 0x87, 0xdf]),
    ..native::OPS
};

/// Likewise where the local APIC is in x2APIC mode, and the CPU AMD's.
pub const OPS_X2APIC: PvOps = PvOps {
    eoi: instruction!(eoi: "btr dword ptr gs:[160], 0; jc 2f; mov ecx, 0x80b; xor eax, eax; xor edx, edx; wrmsr; 2:"
        => [0x65, 0x0f, 0xba, 0x34, 0x25, 0xa0, 0x00, 0x00, 0x00, 0x00, 0x72, 0x0b,
            0xb9, 0x0b, 0x08, 0x00, 0x00, 0x31, 0xc0, 0x31, 0xd2, 0x0f, 0x30]),
    hypercall: instruction!(hypercall: "xchg rbx, rdi; vmmcall; xchg rbx, rdi"
        => [0x48, 0x87, 0xdf, 0x0f, 0x01, 0xd9, 0x48, 0x87, 0xdf]),
    ..OPS
};

fn setup(environment: &Environment<'_>, hypervisors: &Hypervisors, ops: &mut PvOps) {
    setup_without(0, environment, hypervisors, ops);
}

/// Takes what is offered, not refused by `kvm=`, and can be told to the host; nothing of the feature bits `unusable`.
pub(crate) fn setup_without(
    unusable: u32,
    environment: &Environment<'_>,
    hypervisors: &Hypervisors,
    ops: &mut PvOps,
) {
    native::setup(environment, hypervisors, ops);
    let Some(found) = hypervisors.find(KVM) else { return };
    // Old hosts say 0 and mean base + 1, which is all that is read (cpuid.rst).
    let offered = (environment.cpuid)(found.base + 1, 0).eax & !unusable;
    features::set(Choice::new(offered, ""));
    (environment.option)("kvm", &mut |wish| features::set(Choice::new(offered, wish)));
    let has_x2apic = native::irq::apic_mode() == native::irq::ApicMode::X2Apic;
    if features::CLOCK.is_wanted() && time::start(offered, environment.entry_tsc, environment.image_physical)
    {
        ops.timer_arm = OPS.timer_arm;
        ops.monotonic_ns = OPS.monotonic_ns;
        ops.wall_ns = OPS.wall_ns;
    }
    if STEAL_TIME.is_wanted() {
        ops.steal_ns = OPS.steal_ns;
    }
    if PV_EOI.is_wanted() {
        ops.eoi = if has_x2apic { OPS_X2APIC.eoi } else { OPS.eoi };
    }
    if PV_UNHALT.is_wanted() {
        ops.lock_kick = OPS.lock_kick;
        ops.lock_wait = OPS.lock_wait;
        PV_UNHALT.set_used();
    }
    // Whether a CPU runs is told with its steal time.
    if PV_TLB_FLUSH.is_wanted() && STEAL_TIME.is_wanted() {
        ops.flush_tlb_others = OPS.flush_tlb_others;
        PV_TLB_FLUSH.set_used();
    }
    // KVM's guests have the x2APIC, whose form is what the others fall back to.
    if PV_IPI.is_wanted() && has_x2apic {
        ops.send_ipi_many = OPS.send_ipi_many;
        PV_IPI.set_used();
        if SCHED_YIELD.is_wanted() && STEAL_TIME.is_wanted() {
            SCHED_YIELD.set_used();
        }
    }
    if MSI_EXT_DEST_ID.is_wanted() {
        MSI_EXT_DEST_ID.set_used();
    }
    ops.hypercall =
        if has_vmmcall((environment.cpuid)(0, 0).ebx) { OPS_X2APIC.hypercall } else { OPS.hypercall };
}

/// Whether the hypercall instruction is AMD's, by EBX of CPUID leaf 0, the beginning of the maker's name.
fn has_vmmcall(maker: u32) -> bool {
    WITH_VMMCALL.contains(&maker)
}

/// EBX of CPUID leaf 0 where the CPU has `vmmcall`: "Auth" of AMD, "Hygo" of Hygon. The other instruction would make KVM
/// rewrite it, which the read-only text forbids.
const WITH_VMMCALL: [u32; 2] = [u32::from_le_bytes(*b"Auth"), u32::from_le_bytes(*b"Hygo")];

/// Registers what the CPU that runs this shares.
fn cpu_up(cpu: u32) {
    // SAFETY: GS leads to the data of this CPU (the caller's promise).
    let words = unsafe { percpu::current() };
    area::set(cpu, words);
    time::cpu_up(words, cpu);
    time::register_steal_time(words);
    irq::register(words);
    async_pf::register(words);
    choose_polling();
}

/// The host polls unless it shall not: so it begins, and only the other choice is told.
fn choose_polling() {
    if HOST_POLL.is_wanted() {
        HOST_POLL.set_used();
    } else if HOST_POLL.is_offered() {
        // SAFETY: it is offered, and takes 0 or 1 (msr.rst).
        unsafe { msr::write(msr::POLL_CONTROL, 0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hypercall_is_the_instruction_of_the_cpu_s_maker() {
        let begins = |maker: &[u8; 4]| has_vmmcall(u32::from_le_bytes(*maker));
        assert_eq!([b"Auth", b"Hygo"].map(begins), [true; 2]);
        assert_eq!([b"Genu", b"Cent", b"  Sh"].map(begins), [false; 3]);
        let holds = |bytes: Option<&'static [u8]>, instruction: [u8; 3]| {
            bytes.is_some_and(|bytes| bytes.windows(3).any(|window| window == instruction))
        };
        assert!(holds(OPS.hypercall.erase().bytes(), [0x0f, 0x01, 0xc1]), "vmcall");
        assert!(holds(OPS_X2APIC.hypercall.erase().bytes(), [0x0f, 0x01, 0xd9]), "vmmcall");
    }
}
