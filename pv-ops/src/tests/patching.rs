//! This program patches its own text, and runs on.

use super::{
    encoder::decode,
    hosted::{self, EOIS, MACHINE, bytes, patched},
};
use crate::{
    InstallError, Stage,
    ops::{OPS, op},
    patch::{Refusal, patch_site, text},
    sites::{Found, Installed, Site, found, ops, sites},
    table::SITE_LENGTHS,
};
use core::sync::atomic::{AtomicU8, Ordering};
use iced_x86::{Code, Mnemonic};

#[test]
fn an_op_before_installation_is_an_invalid_opcode() {
    assert_eq!(patched().early_signal, libc::SIGILL);
}

#[test]
fn every_site_was_an_indirect_call_and_is_none_any_more() {
    let history = patched();
    assert!(history.before.len() > 50, "this program has many sites: {}", history.before.len());
    for (site, before) in &history.before {
        let address = site.address as u64;
        let name = OPS[site.op].name;
        assert_eq!(site.length, SITE_LENGTHS[site.op], "{name}");
        assert!(matches!(decode(before, address)[0].code(), Code::Call_rm64 | Code::Jmp_rm64), "{name}");
        let after = bytes(*site);
        let body = hosted::OPS.bodies()[site.op];
        let form = match body.bytes() {
            Some(inline) => {
                assert_eq!(&after[..inline.len()], inline, "{name}");
                inline.len()
            }
            None => {
                let branch = decode(&after, address)[0];
                assert!(matches!(branch.code(), Code::Call_rel32_64 | Code::Jmp_rel32_64), "{name}");
                assert_eq!(branch.near_branch_target(), body.code as *const () as u64, "{name}");
                branch.len()
            }
        };
        let padding = decode(&after[form..], address + form as u64);
        assert!(padding.iter().all(|instruction| instruction.mnemonic() == Mnemonic::Nop), "{name}");
        let expected = body.bytes().map_or(Found::Branch, |bytes| Found::Inline {
            bytes,
            instructions: decode(bytes, address).len(),
            nops: padding.len(),
        });
        assert_eq!(site.found(), Some(expected), "{name}");
    }
}

#[test]
fn the_report_counts_what_was_done() {
    let history = patched();
    let report = &history.report;
    assert_eq!(report.sites, sites().count());
    assert_eq!((report.refused, report.refusals), (0, [None; 8]));
    assert_eq!(report.inline + report.calls, report.sites);
    assert_eq!(report.per_op.iter().map(|count| usize::from(*count)).sum::<usize>(), report.sites);
    assert_eq!(report.ops(), ops().filter(|op| op.sites > 0).count());
    assert!(!report.done_before);
}

#[test]
fn patching_twice_and_installing_late_are_refused() {
    let history = patched();
    assert!(history.second.done_before);
    assert_eq!(history.second.sites, 0);
    assert_eq!(history.reinstalled, Err(InstallError::AlreadyPatched("hosted")));
    assert_eq!(crate::stage(), Stage::Patched);
}

#[test]
fn an_alias_that_is_other_memory_is_noticed() {
    assert_eq!(patched().lying_alias, Err(Refusal::NotWritten));
}

#[test]
fn a_record_that_is_not_as_expected_is_refused_and_nothing_written() {
    patched();
    extern "C" fn bystander() {}
    let site = sites().find(|site| site.op == op::rdtsc::INDEX).unwrap();
    let broken = [
        (Site { op: 1000, ..site }, Refusal::UnknownOp(1000)),
        (Site { op: OPS.len(), ..site }, Refusal::UnknownOp(OPS.len())),
        (Site { length: 5, ..site }, Refusal::Length { found: 5, expected: 6 }),
        (Site { length: 255, ..site }, Refusal::Length { found: 255, expected: 6 }),
        (Site { address: 0, ..site }, Refusal::OutsideText),
        (Site { address: usize::MAX, ..site }, Refusal::OutsideText),
        (Site { address: text().end - 1, ..site }, Refusal::OutsideText),
        (Site { address: &raw const EOIS as usize, ..site }, Refusal::OutsideText),
        (Site { address: bystander as *const () as usize, ..site }, Refusal::UnexpectedBytes),
        (site, Refusal::UnexpectedBytes),
    ];
    for (site, refusal) in broken {
        // SAFETY: nothing is written, which is the point: the alias would be noticed.
        let result = unsafe { patch_site(site, &text(), &|_| unreachable!("asked where to write")) };
        assert_eq!(result.map(drop), Err(refusal));
    }
}

#[test]
fn patched_ops_do_what_they_say() {
    patched();
    let before = crate::rdtsc();
    assert!(crate::rdtsc() > before);
    let (ours, theirs) = (crate::cpuid(0, 0), core::arch::x86_64::__cpuid_count(0, 0));
    assert_eq!(ours, theirs);
    let entry = 0x8000_0000_1234_5067;
    assert_eq!(crate::pte_make(entry), entry + MACHINE);
    assert_eq!(crate::pte_value(entry), entry);
    let mut table = [0_u64; 4];
    // SAFETY: an ordinary variable of ours.
    unsafe { crate::set_pte(&raw mut table[1], entry) };
    // SAFETY: as before.
    unsafe { crate::set_pgd(&raw mut table[3], 7) };
    assert_eq!(table, [0, entry, 0, 7]);
    assert_ne!(crate::irq_flags() & 1 << 9, 0, "a process runs with interrupts enabled");
    let eois = EOIS.load(Ordering::Relaxed);
    crate::eoi();
    assert!(EOIS.load(Ordering::Relaxed) > eois);
    // SAFETY: the hosted backend computes a value.
    assert_eq!(unsafe { crate::rdmsr(0x1b) }, 0x1b_0000_feed);
    // SAFETY: the hosted backend stores the value in a variable.
    unsafe { crate::wrmsr(0x10, 0x1234_5678_9abc_def0) };
    assert_eq!(hosted::last_write(), 0x1234_5678_9abc_def0 ^ 0x10);
    // SAFETY: the hosted backend computes a value.
    assert_eq!(unsafe { crate::port_in8(0x3f8) }, 0x07);
    assert_eq!(crate::steal_ns(0), 0);
    assert_eq!(crate::wall_ns(), None);
    crate::lock_wait(&AtomicU8::new(1), 1);
    crate::lock_kick(0);
    crate::sched_yield();
    crate::flush_tlb_others(&crate::CpuSet::EMPTY, 0, u64::MAX);
}

#[test]
fn introspection_tells_what_is_in_place() {
    let history = patched();
    let find = |name| ops().find(|op| op.name == name).unwrap();
    assert_eq!(find("rdtsc").form, Installed::Inline(&[0x0f, 0x31]));
    assert_eq!(find("eoi").form, Installed::Direct(hosted::OPS.eoi.code as *const () as usize));
    assert_eq!(ops().count(), OPS.len());
    assert_eq!(ops().map(|op| op.sites).sum::<usize>(), history.report.sites);
    assert_eq!(crate::sites::backend(), Some(&hosted::BACKEND));
    let in_memory = Found::Inline { bytes: &[0x0f, 0x31], instructions: 1, nops: 1 };
    assert_eq!(["rdtsc", "eoi", "no op"].map(found), [Some(in_memory), Some(Found::Branch), None]);
}

/// A process may run IRETQ as well: it builds the frame that an interrupt would have pushed.
#[test]
fn the_return_from_interrupt_returns() {
    #[unsafe(naked)]
    unsafe extern "sysv64" fn interrupted(value: u64) -> u64 {
        core::arch::naked_asm!(
            "mov rdx, rsp",
            "mov eax, ss",
            "push rax",
            "push rdx",
            "pushfq",
            "mov eax, cs",
            "push rax",
            "lea rax, [rip + 2f]",
            "push rax",
            crate::iret!(),
            "ud2",
            "2: lea rax, [rdi + 1]",
            "ret",
        )
    }
    patched();
    let site = sites().find(|site| site.op == op::iret::INDEX).unwrap();
    assert_eq!(bytes(site)[..2], [0x48, 0xcf]);
    // SAFETY: the function keeps the System V convention and goes on behind its own IRETQ.
    assert_eq!(unsafe { interrupted(41) }, 42);
}
