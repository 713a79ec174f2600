//! KVM hosts of the kvm-pvm kind: hosts without a hardware virtualization of their own, which emulate a guest's kernel
//! instruction by instruction, a thousand times slower than the CPU, unless it registers. Then all of it runs on the CPU
//! itself, in ring 3; privileged instructions trap, and the interrupt flag is a byte in memory.
//!
//! There is no specification: what is known was found by experiment (docs/kvm.md). So a host is recognised by the value of
//! a register, and wherever something is not as expected the guest stays unregistered, which works everywhere.
//! Neighbours: `registration` (becomes such a guest), `irq`, `cpu` (bodies), `kvm` (clocks are as there).

mod cpu;
pub(crate) mod irq;
mod registration;

use crate::{
    backend::{Backend, Early, Environment, Services},
    detect::{Hypervisors, Reader},
    kvm, native,
    ops::PvOps,
    signature::KVM,
    table::Op,
};

/// The backend.
pub static BACKEND: Backend = Backend {
    name: "kvm-pvm",
    detect: |hypervisors, environment| {
        hypervisors.find(KVM).is_some()
            && !kvm::features::refuses_pvm(environment)
            && (registration::is_registered() || registration::is_there(environment.read_msr))
    },
    setup,
    services: Services { cpu_pages: true, ..kvm::BACKEND.services },
    early: Some(Early { enter, leave }),
};

/// Registers at once, where KVM's leaves are the first: every instruction before costs a thousand.
fn enter(image_offset: u64) -> Option<u64> {
    let read: Reader<'_> = &native::cpu::cpuid;
    if !cpu::is_kvm(read) || !registration::is_there(&native::guarded::read_msr) {
        return None;
    }
    cpu::record(read);
    registration::register_boot_cpu(&|address| address.checked_sub(image_offset))
        .then_some(registration::USER)
}

/// The answers of CPUID that count, once the guest is registered.
pub(crate) fn reader() -> Option<Reader<'static>> {
    registration::is_registered().then_some(&cpu::cpuid)
}

fn leave(environment: &Environment<'_>) {
    if registration::is_registered() {
        registration::unregister_boot_cpu();
        registration::give_entry_pages(false, &environment.entry_map);
    }
}

/// What a registered guest does otherwise. FS leads to this CPU's flags: byte 0 is the interrupt flag, byte 1 says that the
/// host holds an interrupt back.
pub const OPS: PvOps = PvOps {
    iret: Op::call(irq::iret),
    irq_disable: instruction!(irq_disable: "mov byte ptr fs:[0], 0"
        => [0x64, 0xc6, 0x04, 0x25, 0x00, 0x00, 0x00, 0x00, 0x00]),
    // Any instruction that traps lets the host deliver what it held back; this one needs no register.
    irq_enable: instruction!(irq_enable: "mov byte ptr fs:[0], 1; cmp byte ptr fs:[1], 0; je 2f; out 0x80, al; 2:"
        => [0x64, 0xc6, 0x04, 0x25, 0x00, 0x00, 0x00, 0x00, 0x01, 0x64, 0x80, 0x3c, 0x25, 0x01, 0x00, 0x00, 0x00, 0x00,
            0x74, 0x02, 0xe6, 0x80]),
    irq_flags: instruction!(irq_flags: "movzx eax, byte ptr fs:[0]; shl eax, 9"
        => [0x64, 0x0f, 0xb6, 0x04, 0x25, 0x00, 0x00, 0x00, 0x00, 0xc1, 0xe0, 0x09]),
    irq_restore: instruction!(irq_restore:
        "bt edi, 9; setc byte ptr fs:[0]; jnc 2f; cmp byte ptr fs:[1], 0; je 2f; out 0x80, al; 2:"
        => [0x0f, 0xba, 0xe7, 0x09, 0x64, 0x0f, 0x92, 0x04, 0x25, 0x00, 0x00, 0x00, 0x00, 0x73, 0x0d,
            0x64, 0x80, 0x3c, 0x25, 0x01, 0x00, 0x00, 0x00, 0x00, 0x74, 0x02, 0xe6, 0x80]),
    safe_halt: Op::call(irq::safe_halt),
    cpuid: thunk!(cpuid => cpu::cpuid_registers),
    // CR0.TS makes nothing trap there: it stays clear, so that who reads it knows.
    write_cr0: instruction!(write_cr0: "push rdi; and rdi, -9; mov cr0, rdi; pop rdi"
        => [0x57, 0x48, 0x83, 0xe7, 0xf7, 0x0f, 0x22, 0xc7, 0x5f]),
    load_segments: function!(load_segments => cpu::load_segments),
    write_gs_base: function!(write_gs_base => cpu::write_gs_base),
    // Ring 3 reaches no page that is the supervisor's: the bit that says "user" is in every entry, and nobody sees it.
    pte_make: instruction!(pte_make: "or rax, 4" => [0x48, 0x83, 0xc8, 0x04]),
    pte_value: instruction!(pte_value: "and rax, -5" => [0x48, 0x83, 0xe0, 0xfb]),
    ..kvm::OPS_X2APIC
};

/// Registers, and takes from KVM what needs no hypercall. Where that does not work out the guest stays KVM's.
fn setup(environment: &Environment<'_>, hypervisors: &Hypervisors, ops: &mut PvOps) {
    kvm::setup_without(kvm::features::BEYOND_PVM, environment, hypervisors, ops);
    if !registration::is_registered() {
        cpu::is_kvm(environment.cpuid);
        cpu::record(environment.cpuid);
        if !registration::give_entry_pages(true, &environment.entry_map)
            || !registration::register_boot_cpu(environment.image_physical)
        {
            // Ring 0 may be forbidden to execute what is the user's.
            registration::give_entry_pages(false, &environment.entry_map);
            return;
        }
    }
    ops.iret = OPS.iret;
    ops.irq_disable = OPS.irq_disable;
    ops.irq_enable = OPS.irq_enable;
    ops.irq_flags = OPS.irq_flags;
    ops.irq_restore = OPS.irq_restore;
    ops.safe_halt = OPS.safe_halt;
    ops.cpuid = OPS.cpuid;
    ops.write_cr0 = OPS.write_cr0;
    ops.load_segments = OPS.load_segments;
    ops.write_gs_base = OPS.write_gs_base;
    ops.pte_make = OPS.pte_make;
    ops.pte_value = OPS.pte_value;
}
