//! What is measured: ops that can be repeated without harm, each beside the instructions that it stands for natively.

use alloc::vec::Vec;
use core::{arch::asm, cell::Cell};

use kernel::pv_ops::{self, sites::Installed};

use crate::{Row, cost::Cost, sample::Sample};

/// A port on which nobody listens: the one of POST codes.
const POST_CODE: u16 = 0x80;
/// IA32_APIC_BASE (SDM vol. 4, Table 2-2): every CPU has it, and reading it changes nothing.
const APIC_BASE: u32 = 0x1b;

/// Measures one op: through the table, by its wrapper `$call`, and as the instructions `$bare` (by `;`). All have the
/// same operands, which may name `$value`: it comes from the step before and goes to the next one. Where something
/// else than the bare instructions is patched in, a hypervisor may not allow these: then they are not executed.
macro_rules! row {
    ($op:literal, $bare:literal, |$value:ident| $call:expr, $($operands:tt)*) => {
        row!(@framed $op, "", $bare, "", |$value| $call, $($operands)*)
    };
    (@framed $op:literal, $before:literal, $bare:literal, $after:literal, |$value:ident| $call:expr, $($operands:tt)*) => {{
        const SLOT: usize = slot($op);
        let cost = Cost::of($op, assembled!($bare));
        let table = Sample::of(|$value| {
            #[allow(unused_mut)]
            let mut $value = $value;
            // SAFETY: an unpatched call site of this op: through its slot, with its registers. That the op does no
            // harm is told where it is listed.
            unsafe {
                asm!($before, "call qword ptr [rip + pv_ops_table + {slot}]", $after, slot = const SLOT, $($operands)*)
            };
            $value
        });
        let site = Sample::of(|$value| $call);
        let bare = matches!(cost, Cost::Bare { .. }).then(|| {
            Sample::of(|$value| {
                #[allow(unused_mut)]
                let mut $value = $value;
                // SAFETY: the very instructions that stand at the op's call sites, with the same registers.
                unsafe { asm!($before, $bare, $after, $($operands)*) };
                $value
            })
        });
        Row { op: $op, cost, table, site, bare }
    }};
}

/// The bytes that the assembler makes of instructions. They are jumped over.
macro_rules! assembled {
    ($text:literal) => {{
        let (start, end): (*const u8, *const u8);
        // SAFETY: takes two addresses and jumps from here to the second.
        unsafe {
            asm!(
                "lea {start}, [rip + 771f]", "lea {end}, [rip + 772f]", "jmp 772f", "771:", $text, "772:",
                start = out(reg) start, end = out(reg) end, options(nomem, nostack, preserves_flags),
            )
        };
        // SAFETY: the bytes between the two addresses are code of this image, which nobody writes to.
        unsafe { core::slice::from_raw_parts(start, end.addr() - start.addr()) }
    }};
}

/// Measures all of them, with interrupts disabled wherever that is not what is measured.
pub(crate) fn measure() -> Vec<Row> {
    let flags = pv_ops::irq_flags();
    pv_ops::irq_disable();
    let mut rows = Vec::from(interrupt_flag());
    rows.push(end_of_interrupt());
    rows.extend(page_tables());
    rows.extend(reads());
    pv_ops::irq_restore(flags);
    rows
}

/// The interrupt flag: disabled before and after each.
fn interrupt_flag() -> [Row; 4] {
    let disabled = pv_ops::irq_flags();
    let disable = row!("irq_disable", "cli", |value| then(value, pv_ops::irq_disable),);
    let enable = row!("irq_enable", "sti", |value| then(value, pv_ops::irq_enable),);
    pv_ops::irq_disable();
    [
        disable,
        enable,
        row!("irq_flags", "pushfq; pop rax", |value| then(value, pv_ops::irq_flags), lateout("rax") _,),
        row!("irq_restore", "push rdi; popfq", |value| then(value, || pv_ops::irq_restore(disabled)), in("rdi") disabled,),
    ]
}

/// The end of an interrupt while none is in service, which the local APIC takes for nothing (SDM vol. 3A §11.8.5).
fn end_of_interrupt() -> Row {
    /// The first byte of the form for x2APIC mode, `mov ecx, ...`.
    const MOV_ECX: u8 = 0xb9;
    let form = pv_ops::ops().find(|op| op.name == "eoi").map(|op| op.form);
    if matches!(form, Some(Installed::Inline([MOV_ECX, ..]))) {
        row!("eoi", "mov ecx, 0x80b; xor eax, eax; xor edx, edx; wrmsr", |value| then(value, pv_ops::eoi),
            lateout("rax") _, lateout("rcx") _, lateout("rdx") _,)
    } else {
        row!("eoi", "mov dword ptr [0xffffffffffdff0b0], 0", |value| then(value, pv_ops::eoi),
            lateout("rax") _, lateout("rcx") _, lateout("rdx") _,)
    }
}

/// Page-table entries, in a word that is no part of any table.
fn page_tables() -> [Row; 5] {
    let scratch = Cell::new(0u64);
    let entry = scratch.as_ptr();
    let address = entry.addr() as u64;
    [
        row!("pte_make", "", |value| pv_ops::pte_make(value), inlateout("rax") value,),
        row!("pte_value", "", |value| pv_ops::pte_value(value), inlateout("rax") value,),
        row!(
            "set_pte",
            "mov [rdi], rsi",
            |value| {
                // SAFETY: a word of our own, which no CPU walks.
                unsafe { pv_ops::set_pte(entry, value) };
                value
            },
            in("rdi") entry, in("rsi") value,
        ),
        row!("read_cr3", "mov rax, cr3", |value| then(value, pv_ops::read_cr3), lateout("rax") _,),
        row!("flush_tlb_one", "invlpg [rdi]", |value| then(value, || pv_ops::flush_tlb_one(address)), in("rdi") address,),
    ]
}

/// What only reads. `monotonic_ns` stands for no instruction, it is a function: what is never found at its sites is
/// never executed here.
fn reads() -> [Row; 5] {
    [
        row!("rdtsc", "rdtsc", |value| then(value, pv_ops::rdtsc), lateout("rax") _, lateout("rdx") _,),
        row!("monotonic_ns", "ud2", |value| then(value, pv_ops::monotonic_ns), lateout("rax") _,),
        row!(
            @framed "cpuid", "mov {rbx}, rbx", "cpuid", "xchg {rbx}, rbx",
            |value| then(value, || pv_ops::cpuid(0, 0)),
            rbx = out(reg) _, inlateout("rax") 0u64 => _, inlateout("rcx") 0u64 => _, lateout("rdx") _,
        ),
        row!(
            "rdmsr",
            "rdmsr",
            // SAFETY: every CPU with a local APIC has this MSR, and reading it changes nothing.
            |value| then(value, || unsafe { pv_ops::rdmsr(APIC_BASE) }),
            in("rcx") APIC_BASE, lateout("rax") _, lateout("rdx") _,
        ),
        row!(
            "port_in8",
            "in al, dx",
            // SAFETY: no device answers at this port.
            |value| then(value, || unsafe { pv_ops::port_in8(POST_CODE) }),
            in("rdx") u64::from(POST_CODE), lateout("rax") _,
        ),
    ]
}

/// `value`, after something was done whose result nobody wants.
#[inline(always)]
fn then<T>(value: u64, op: impl FnOnce() -> T) -> u64 {
    op();
    value
}

/// The slot of an op in the table, in bytes from its start.
const fn slot(op: &str) -> usize {
    let mut index = 0;
    while !equal(pv_ops::OPS[index].name.as_bytes(), op.as_bytes()) {
        index += 1;
    }
    index * size_of::<usize>()
}

const fn equal(a: &[u8], b: &[u8]) -> bool {
    let mut same = 0;
    while same < a.len() && same < b.len() && a[same] == b[same] {
        same += 1;
    }
    same == a.len() && same == b.len()
}
