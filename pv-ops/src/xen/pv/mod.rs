//! The backend `xen-pv`: a guest without any hardware assistance. The kernel runs in ring 3, its page tables hold
//! machine frames and are changed by Xen only, interrupts are events, descriptor tables are Xen's.
//! All ops are in this file; their bodies in `irq`, `cpu`, `mmu`, `trap`; set-up in `start`, and again in `suspend`.
//!
//! Neighbours: `p2m` (frames), `start` (from Xen's tables to a direct map), `xen::{time, sched, console}` (shared with
//! `hvm`), `boot::xen_pv` (the way in).

mod abi;
pub(super) mod balloon;
pub mod cpu;
mod irq;
pub mod mmu;
pub mod p2m;
mod start;
pub(super) mod suspend;
mod trap;
mod vcpu;

use super::{console, lock, sched, shared_info, steal, time};
use crate::{
    backend::{Backend, Services},
    native,
    ops::PvOps,
    table::Op,
};

pub use trap::set_event_vector;
pub use vcpu::set_ipi_port;

/// The backend. It serves where Xen's PV loader entered, and nothing else does there.
pub static BACKEND: Backend = Backend {
    name: "xen-pv",
    detect: |_, environment| environment.xen_start_info.is_some(),
    setup: start::setup,
    services: Services {
        tsc_hz: time::tsc_hz,
        cpu_up: start::cpu_up,
        max_cpus: shared_info::VCPUS as u32,
        cpu_count: vcpu::count,
        start_cpu: Some(vcpu::start),
        stop_cpu: Some(vcpu::stop),
        send_nmi: Some(vcpu::send_nmi),
        nmi_done: trap::nmi_done,
        keeps_entry_tables: true,
        // Each is a hypercall, as is the flush of everything.
        flush_limit: 1,
        ..Services::NONE
    },
    early: None,
};

/// The ops of a domain without devices of the machine. What is native here needs no privilege.
pub const OPS: PvOps = PvOps {
    iret: Op::call(trap::iret),
    // 65 is irq::MASK.
    irq_disable: instruction!(irq_disable: "mov byte ptr gs:[65], 1"
        => [0x65, 0xc6, 0x04, 0x25, 0x41, 0x00, 0x00, 0x00, 0x01]),
    irq_enable: Op::call(irq::irq_enable),
    irq_flags: instruction!(irq_flags: "movzx eax, byte ptr gs:[65]; xor eax, 1; shl eax, 9"
        => [0x65, 0x0f, 0xb6, 0x04, 0x25, 0x41, 0x00, 0x00, 0x00, 0x83, 0xf0, 0x01, 0xc1, 0xe0, 0x09]),
    irq_restore: Op::call(irq::irq_restore),
    halt: thunk!(halt => irq::halt),
    safe_halt: thunk!(safe_halt => irq::safe_halt),
    eoi: instruction!(eoi: "" => []),
    send_ipi: function!(send_ipi => irq::send_ipi),
    send_ipi_many: function!(send_ipi_many => vcpu::send_ipi_many),
    timer_arm: function!(timer_arm => time::timer_arm),

    cpuid: thunk!(cpuid => cpu::cpuid_registers),
    read_cr0: thunk!(read_cr0 => cpu::read_cr0),
    write_cr0: thunk!(write_cr0 => cpu::write_cr0),
    // 80 is where `vcpu_info.arch.cr2` is.
    read_cr2: instruction!(read_cr2: "mov rax, gs:[80]" => [0x65, 0x48, 0x8b, 0x04, 0x25, 0x50, 0x00, 0x00, 0x00]),
    read_cr4: thunk!(read_cr4 => cpu::read_cr4),
    write_cr4: thunk!(write_cr4 => cpu::write_cr4),
    rdmsr: thunk!(rdmsr => cpu::rdmsr),
    wrmsr: thunk!(wrmsr => cpu::wrmsr),
    load_gdt: thunk!(load_gdt => cpu::load_gdt),
    load_segments: function!(load_segments => cpu::load_segments),
    load_idt: thunk!(load_idt => trap::load_idt),
    load_tr: thunk!(load_tr => cpu::load_tr),
    write_gs_base: function!(write_gs_base => cpu::write_gs_base),
    port_in8: instruction!(port_in8: "mov eax, 0xff" => [0xb8, 0xff, 0x00, 0x00, 0x00]),
    port_in16: instruction!(port_in16: "mov eax, 0xffff" => [0xb8, 0xff, 0xff, 0x00, 0x00]),
    port_in32: instruction!(port_in32: "mov eax, 0xffffffff" => [0xb8, 0xff, 0xff, 0xff, 0xff]),
    port_out8: instruction!(port_out8: "" => []),
    port_out8_many: instruction!(port_out8_many: "" => []),
    port_out16: instruction!(port_out16: "" => []),
    port_out32: instruction!(port_out32: "" => []),

    pte_make: thunk!(pte_make => mmu::pte_make),
    pte_value: thunk!(pte_value => mmu::pte_value),
    set_pte: thunk!(set_pte => mmu::set_entry),
    set_pmd: thunk!(set_pmd => mmu::set_entry),
    set_pud: thunk!(set_pud => mmu::set_entry),
    set_pgd: thunk!(set_pgd => mmu::set_entry),
    set_ptes: function!(set_ptes => mmu::set_entries),
    read_cr3: thunk!(read_cr3 => mmu::read_cr3),
    write_cr3: thunk!(write_cr3 => mmu::write_cr3),
    flush_tlb: function!(flush_tlb => mmu::flush_tlb),
    flush_tlb_one: thunk!(flush_tlb_one => mmu::flush_tlb_one),
    flush_tlb_others: function!(flush_tlb_others => vcpu::flush_tlb_others),
    pin_table: thunk!(pin_table => mmu::pin_table),
    unpin_table: thunk!(unpin_table => mmu::unpin_table),

    monotonic_ns: thunk!(monotonic_ns => time::monotonic_ns),
    wall_ns: function!(wall_ns => time::wall_ns),
    steal_ns: thunk!(steal_ns => steal::steal_ns),
    lock_kick: thunk!(lock_kick => lock::lock_kick),
    lock_wait: thunk!(lock_wait => lock::lock_wait),
    sched_yield: thunk!(sched_yield => sched::sched_yield),
    shutdown: function!(shutdown => sched::shutdown),
    console_write: function!(console_write => console::console_write),
    ..native::OPS
};

/// dom0 has the machine's ports: the instructions trap and Xen carries them out, once IOPL allows it.
pub const OPS_DOM0: PvOps = PvOps {
    port_in8: native::OPS.port_in8,
    port_in16: native::OPS.port_in16,
    port_in32: native::OPS.port_in32,
    port_out8: native::OPS.port_out8,
    port_out8_many: native::OPS.port_out8_many,
    port_out16: native::OPS.port_out16,
    port_out32: native::OPS.port_out32,
    ..OPS
};
