//! What a site does to the registers of the code around it: nothing but what its declaration says.

use super::hosted::{self, patched};
use crate::ops::{OPS, op};
use core::arch::naked_asm;
use std::vec::Vec;

/// rax, rcx, rdx, rbx, rbp, rsi, rdi, r8 .. r15; then the low halves of xmm0, xmm7, xmm15.
type Registers = [u64; 18];
const NAMES: [&str; 18] = [
    "rax", "rcx", "rdx", "rbx", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
    "xmm0", "xmm7", "xmm15",
];

/// Loads every register from the array, calls `code`, stores every register back.
#[unsafe(naked)]
unsafe extern "sysv64" fn with_registers(code: unsafe extern "sysv64" fn(), registers: *mut Registers) {
    naked_asm!(
        "push rbp; push rbx; push r12; push r13; push r14; push r15",
        "push rsi; push rdi", // [rsp + 8]: registers, [rsp]: code
        "sub rsp, 8",         // aligned for the call
        "movq xmm0, [rsi + 120]; movq xmm7, [rsi + 128]; movq xmm15, [rsi + 136]",
        "mov rax, [rsi]; mov rcx, [rsi + 8]; mov rdx, [rsi + 16]; mov rbx, [rsi + 24]; mov rbp, [rsi + 32]",
        "mov rdi, [rsi + 48]; mov r8, [rsi + 56]; mov r9, [rsi + 64]; mov r10, [rsi + 72]; mov r11, [rsi + 80]",
        "mov r12, [rsi + 88]; mov r13, [rsi + 96]; mov r14, [rsi + 104]; mov r15, [rsi + 112]",
        "mov rsi, [rsi + 40]",
        "call [rsp + 8]",
        "xchg rsi, [rsp + 16]",
        "mov [rsi], rax; mov [rsi + 8], rcx; mov [rsi + 16], rdx; mov [rsi + 24], rbx; mov [rsi + 32], rbp",
        "mov rax, [rsp + 16]; mov [rsi + 40], rax",
        "mov [rsi + 48], rdi; mov [rsi + 56], r8; mov [rsi + 64], r9; mov [rsi + 72], r10; mov [rsi + 80], r11",
        "mov [rsi + 88], r12; mov [rsi + 96], r13; mov [rsi + 104], r14; mov [rsi + 112], r15",
        "movq [rsi + 120], xmm0; movq [rsi + 128], xmm7; movq [rsi + 136], xmm15",
        "add rsp, 24",
        "pop r15; pop r14; pop r13; pop r12; pop rbx; pop rbp",
        "ret",
    )
}

/// A function that is nothing but a site of the op.
macro_rules! bare_site {
    ($op:ident) => {{
        #[unsafe(naked)]
        unsafe extern "sysv64" fn site() {
            naked_asm!(
                "sub rsp, 8",
                call_site!(),
                "lea rsp, [rsp + 8]",
                "ret",
                table = sym crate::table::TABLE,
                slot = const op::$op::INDEX * 8,
                pad = const crate::table::SITE_LENGTHS[op::$op::INDEX] - crate::table::CALL_LENGTH,
                length = const crate::table::SITE_LENGTHS[op::$op::INDEX],
                op = const op::$op::INDEX,
            )
        }
        (op::$op::INDEX, site as unsafe extern "sysv64" fn())
    }};
}

/// An op's index and the registers before and after its site.
pub(super) type Outcome = (usize, Registers, Registers);

fn sites() -> Vec<(usize, unsafe extern "sysv64" fn())> {
    [
        bare_site!(irq_disable),
        bare_site!(irq_enable),
        bare_site!(irq_flags),
        bare_site!(irq_restore),
        bare_site!(eoi),
        bare_site!(pte_make),
        bare_site!(pte_value),
        bare_site!(set_pte),
        bare_site!(monotonic_ns),
        bare_site!(rdtsc),
        bare_site!(rdmsr),
        bare_site!(wrmsr),
        bare_site!(port_in8),
        bare_site!(port_out16),
        bare_site!(cpuid),
        bare_site!(steal_ns),
        bare_site!(lock_kick),
        bare_site!(lock_wait),
        bare_site!(pin_table),
        bare_site!(sched_yield),
    ]
    .into()
}

fn measure(op: usize, code: unsafe extern "sysv64" fn()) -> Outcome {
    let mut variable = 0_u64;
    let mut registers: Registers = core::array::from_fn(|n| 0x5a5a_0000_0000_0100 + n as u64);
    if op == op::set_pte::INDEX {
        registers[6] = (&raw mut variable).expose_provenance() as u64;
    }
    let before = registers;
    // SAFETY: the sites of `sites()` run without privilege under the hosted backend; `set_pte` writes `variable`.
    unsafe { with_registers(code, &raw mut registers) };
    if op == op::set_pte::INDEX {
        assert_eq!(variable, before[5], "the value of rsi was stored");
    }
    (op, before, registers)
}

/// One pass over all sites, patched or not.
pub(super) fn measure_all() -> Vec<Outcome> {
    sites().into_iter().map(|(op, code)| measure(op, code)).collect()
}

/// The registers that an op's declaration lets change.
fn may_change(op: usize) -> &'static [&'static str] {
    match OPS[op].name {
        "irq_flags" | "pte_make" | "pte_value" | "monotonic_ns" | "port_in8" | "steal_ns" => &["rax"],
        "rdtsc" | "rdmsr" => &["rax", "rdx"],
        "cpuid" => &["rax", "rbx", "rcx", "rdx"],
        _ => &[],
    }
}

fn assert_kept(outcomes: &[Outcome]) {
    for (op, before, after) in outcomes {
        for (register, name) in NAMES.iter().enumerate() {
            if !may_change(*op).contains(name) {
                assert_eq!(before[register], after[register], "{} changed {name}", OPS[*op].name);
            }
        }
    }
}

#[test]
fn unpatched_sites_keep_every_register_but_the_result() {
    assert_kept(&patched().unpatched);
}

#[test]
fn patched_sites_keep_every_register_but_the_result() {
    patched();
    assert_kept(&measure_all());
}

/// The hosted backend's functions ruin all that a function may: the thunks put it back.
#[test]
fn thunks_pass_arguments_and_results_in_the_site_s_registers() {
    patched();
    for (op, before, after) in measure_all() {
        match OPS[op].name {
            "pte_make" => assert_eq!(after[0], before[0] + hosted::MACHINE),
            "rdmsr" => assert_eq!((after[2], after[0]), (before[1] & 0xffff_ffff, 0xfeed)),
            "port_in8" => assert_eq!(after[0] as u8, before[2] as u8 ^ 0xff),
            _ => {}
        }
    }
}

/// CPUID has the widest convention: two registers in, four out.
#[test]
fn a_cpuid_thunk_fills_all_four_registers() {
    let body = thunk!(cpuid => hosted::cpuid);
    let (_, before, after) = measure(op::cpuid::INDEX, body.code);
    let low = |n: u64| n & 0xffff_ffff;
    assert_eq!(after[..4], [low(before[0]), low(before[1]), 0xdddd_0002, 0xbbbb_0001]);
    assert_eq!(after[4..], before[4..]);
}
