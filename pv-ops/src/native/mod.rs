//! The native backend: the machine as the manuals describe it, or a hypervisor that pretends to be one.
//! All ops with their instructions are in this file; what takes a function is in `irq`, `cpu`, `mmu`, `time`, `sched`.
//!
//! `instruction!(op: text => bytes)`: a test holds the bytes against what the assembler makes of the text.

pub mod cpu;
pub mod guarded;
pub mod irq;
pub mod mmu;
pub mod sched;
pub mod time;

use crate::{
    backend::{Backend, Environment, Services},
    detect::Hypervisors,
    ops::PvOps,
    table::Op,
};
pub use irq::LOCAL_APIC;

/// The backend that always serves.
pub static BACKEND: Backend = Backend {
    name: "native",
    detect: |_, environment| environment.xen_start_info.is_none(),
    setup,
    services: Services::NONE,
    early: None,
};

/// The ops on a machine whose local APIC is in xAPIC mode: registers in the page at [`LOCAL_APIC`].
pub const OPS: PvOps = PvOps {
    iret: instruction!(iret: "iretq" => [0x48, 0xcf]),
    irq_disable: instruction!(irq_disable: "cli" => [0xfa]),
    irq_enable: instruction!(irq_enable: "sti" => [0xfb]),
    irq_flags: instruction!(irq_flags: "pushfq; pop rax" => [0x9c, 0x58]),
    irq_restore: instruction!(irq_restore: "push rdi; popfq" => [0x57, 0x9d]),
    halt: instruction!(halt: "hlt" => [0xf4]),
    safe_halt: Op::call(irq::safe_halt),
    // 0xffdff0b0 sign-extended is LOCAL_APIC + 0xb0, the EOI register (SDM vol. 3A Table 11-1).
    eoi: instruction!(eoi: "mov dword ptr [0xffffffffffdff0b0], 0"
        => [0xc7, 0x04, 0x25, 0xb0, 0xf0, 0xdf, 0xff, 0x00, 0x00, 0x00, 0x00]),
    send_ipi: function!(send_ipi => irq::send_ipi),
    send_ipi_many: function!(send_ipi_many => irq::send_ipi_many),
    timer_arm: function!(timer_arm => irq::timer_arm),

    cpuid: instruction!(cpuid: "cpuid" => [0x0f, 0xa2]),
    read_cr0: instruction!(read_cr0: "mov rax, cr0" => [0x0f, 0x20, 0xc0]),
    write_cr0: instruction!(write_cr0: "mov cr0, rdi" => [0x0f, 0x22, 0xc7]),
    read_cr2: instruction!(read_cr2: "mov rax, cr2" => [0x0f, 0x20, 0xd0]),
    read_cr4: instruction!(read_cr4: "mov rax, cr4" => [0x0f, 0x20, 0xe0]),
    write_cr4: instruction!(write_cr4: "mov cr4, rdi" => [0x0f, 0x22, 0xe7]),
    rdmsr: instruction!(rdmsr: "rdmsr" => [0x0f, 0x32]),
    wrmsr: instruction!(wrmsr: "wrmsr" => [0x0f, 0x30]),
    rdtsc: instruction!(rdtsc: "rdtsc" => [0x0f, 0x31]),
    load_gdt: instruction!(load_gdt: "lgdt [rdi]" => [0x0f, 0x01, 0x17]),
    load_segments: function!(load_segments => cpu::load_segments),
    load_idt: instruction!(load_idt: "lidt [rdi]" => [0x0f, 0x01, 0x1f]),
    load_tr: instruction!(load_tr: "ltr di" => [0x0f, 0x00, 0xdf]),
    write_gs_base: function!(write_gs_base => cpu::write_gs_base),
    port_in8: instruction!(port_in8: "in al, dx" => [0xec]),
    port_in16: instruction!(port_in16: "in ax, dx" => [0x66, 0xed]),
    port_in32: instruction!(port_in32: "in eax, dx" => [0xed]),
    port_out8: instruction!(port_out8: "out dx, al" => [0xee]),
    port_out8_many: instruction!(port_out8_many: "mov rcx, rdx; mov edx, edi; rep outsb"
        => [0x48, 0x89, 0xd1, 0x89, 0xfa, 0xf3, 0x6e]),
    port_out16: instruction!(port_out16: "out dx, ax" => [0x66, 0xef]),
    port_out32: instruction!(port_out32: "out dx, eax" => [0xef]),

    pte_make: instruction!(pte_make: "" => []),
    pte_value: instruction!(pte_value: "" => []),
    set_pte: instruction!(set_pte: "mov [rdi], rsi" => [0x48, 0x89, 0x37]),
    set_pmd: instruction!(set_pmd: "mov [rdi], rsi" => [0x48, 0x89, 0x37]),
    set_pud: instruction!(set_pud: "mov [rdi], rsi" => [0x48, 0x89, 0x37]),
    set_pgd: instruction!(set_pgd: "mov [rdi], rsi" => [0x48, 0x89, 0x37]),
    set_ptes: function!(set_ptes => mmu::set_ptes),
    read_cr3: instruction!(read_cr3: "mov rax, cr3" => [0x0f, 0x20, 0xd8]),
    write_cr3: instruction!(write_cr3: "mov cr3, rdi" => [0x0f, 0x22, 0xdf]),
    // In a guest CR3 loads without an exit, which neither CR4 nor, everywhere, INVPCID does.
    flush_tlb: instruction!(flush_tlb: "mov rax, cr3; mov cr3, rax" => [0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8]),
    flush_tlb_one: instruction!(flush_tlb_one: "invlpg [rdi]" => [0x0f, 0x01, 0x3f]),
    flush_tlb_others: function!(flush_tlb_others => mmu::flush_tlb_others),
    pin_table: instruction!(pin_table: "" => []),
    unpin_table: instruction!(unpin_table: "" => []),

    monotonic_ns: thunk!(monotonic_ns => time::monotonic_ns),
    wall_ns: function!(wall_ns => time::wall_ns),
    steal_ns: instruction!(steal_ns: "xor eax, eax" => [0x31, 0xc0]),

    lock_kick: instruction!(lock_kick: "" => []),
    lock_wait: instruction!(lock_wait: "pause" => [0xf3, 0x90]),

    sched_yield: instruction!(sched_yield: "pause" => [0xf3, 0x90]),
    hypercall: instruction!(hypercall: "mov rax, -1000" => [0x48, 0xc7, 0xc0, 0x18, 0xfc, 0xff, 0xff]),
    shutdown: function!(shutdown => sched::shutdown),
    console_write: function!(console_write => sched::console_write),
};

/// What differs where the local APIC is in x2APIC mode: its registers are MSRs (SDM vol. 3A §11.12).
pub const OPS_X2APIC: PvOps = PvOps {
    eoi: instruction!(eoi: "mov ecx, 0x80b; xor eax, eax; xor edx, edx; wrmsr"
        => [0xb9, 0x0b, 0x08, 0x00, 0x00, 0x31, 0xc0, 0x31, 0xd2, 0x0f, 0x30]),
    send_ipi: function!(send_ipi => irq::send_ipi_x2apic),
    send_ipi_many: function!(send_ipi_many => irq::send_ipi_many_x2apic),
    ..OPS
};

pub(crate) fn setup(environment: &Environment<'_>, _: &Hypervisors, ops: &mut PvOps) {
    match environment.entry_tsc {
        0 => time::start(),
        entry_tsc => time::start_at(entry_tsc),
    }
    if irq::choose_apic_mode(environment.cpuid) == irq::ApicMode::X2Apic {
        ops.eoi = OPS_X2APIC.eoi;
        ops.send_ipi = OPS_X2APIC.send_ipi;
        ops.send_ipi_many = OPS_X2APIC.send_ipi_many;
    }
}
