//! The proof that a kernel outside ring 0 needs no privilege: every instruction of its text that has some, or that
//! shows other than the truth there, is in a function that is never reached there, for a reason that is given.
//! Neighbours: `mod` (the dump, and the proof of the patching).

use std::collections::BTreeSet;

use anyhow::{Result, bail, ensure};
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

use super::Dump;
use crate::guest::elf::Item;

/// Functions whose name begins so may hold privileged instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// The beginning of the name.
    pub prefix: &'static str,
    /// Why none of it is executed, or why it may be.
    pub reason: &'static str,
}

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Privileged {
    /// Instructions in functions that may hold them.
    pub allowed: usize,
    /// Instructions in sites of ops that may hold them.
    pub in_sites: usize,
}

impl Dump {
    /// Checks that privileged instructions are in `allowed` functions and in sites of `ops` only. `items` names what
    /// is in the text. A reason that nothing needs is an error too.
    ///
    /// # Errors
    /// The first instruction that is elsewhere.
    pub fn prove_unprivileged(
        &self,
        items: &[Item],
        allowed: &[Allowed],
        ops: &[&str],
    ) -> Result<Privileged> {
        let mut found = Privileged::default();
        let mut needed = BTreeSet::new();
        let end = self.start + self.text.len() as u64;
        let inside = |item: &&Item| item.code && (self.start..end).contains(&item.address);
        let starts: BTreeSet<u64> =
            items.iter().filter(inside).map(|item| item.address).chain([self.start]).collect();
        let ends = starts.iter().copied().skip(1).chain([end]);
        for (from, to) in starts.iter().copied().zip(ends) {
            let names = || items.iter().filter(|item| item.address == from).map(|item| item.name.as_str());
            let reason = allowed.iter().find(|allowed| names().any(|name| name.starts_with(allowed.prefix)));
            for instruction in self.privileged(from, to) {
                let site = self
                    .sites
                    .iter()
                    .find(|site| (site.address..site.address + site.len as u64).contains(&instruction.ip()));
                match (site, reason) {
                    (Some(site), _) if ops.contains(&site.op.as_str()) => found.in_sites += 1,
                    (None, Some(reason)) => {
                        found.allowed += 1;
                        needed.insert(reason.prefix);
                    }
                    (site, _) => {
                        let name = names().next().unwrap_or("a function without a name").to_owned();
                        let op = site.map_or(String::new(), |site| format!(", a site of {}", site.op));
                        bail!("{:#x}: `{instruction}` in {name}{op}", instruction.ip());
                    }
                }
            }
        }
        for Allowed { prefix, reason } in allowed {
            ensure!(
                needed.contains(prefix),
                "nothing in {prefix} is privileged, yet it is allowed: {reason}"
            );
        }
        Ok(found)
    }

    /// The privileged instructions from one address to another. What Xen emulates behind its prefix is none.
    fn privileged(&self, from: u64, to: u64) -> Vec<Instruction> {
        let code = self.at(from, (to - from) as usize).unwrap_or_default();
        let mut decoder = Decoder::with_ip(64, code, from, DecoderOptions::NONE);
        let mut found = Vec::new();
        while decoder.can_decode() {
            let instruction = decoder.decode();
            let behind = (decoder.ip() - from) as usize;
            if instruction.mnemonic() == Mnemonic::Ud2 && code[behind..].starts_with(EMULATED_CPUID) {
                let next = behind + EMULATED_CPUID.len();
                // There are as many bytes, so it succeeds.
                if decoder.set_position(next).is_ok() {
                    decoder.set_ip(from + next as u64);
                }
            } else if is_privileged(&instruction) {
                found.push(instruction);
            }
        }
        found
    }
}

/// What follows `ud2` in Xen's `XEN_CPUID` (arch-x86/xen.h): "xen", `cpuid`.
const EMULATED_CPUID: &[u8] = b"xen\x0f\xa2";

/// Faults outside ring 0, or is silently something else there (Intel SDM vol. 3A §5.9, §2.8; `popf`, `pushf`: IF).
fn is_privileged(instruction: &Instruction) -> bool {
    use Mnemonic::{
        Clac, Cli, Clts, Cpuid, Hlt, In, Insb, Insd, Insw, Invd, Invlpg, Invpcid, Iret, Iretd, Iretq, Lgdt,
        Lidt, Lldt, Lmsw, Ltr, Monitor, Mov, Mwait, Out, Outsb, Outsd, Outsw, Popf, Popfd, Popfq, Pushf,
        Pushfd, Pushfq, Rdmsr, Rdpmc, Sgdt, Sidt, Sldt, Smsw, Stac, Sti, Str, Swapgs, Sysexit, Sysexitq,
        Sysret, Sysretq, Wbinvd, Wrmsr, Xsetbv,
    };
    match instruction.mnemonic() {
        Mov => (0..2).any(|operand| {
            instruction.op_kind(operand) == OpKind::Register && is_of_ring_0(instruction.op_register(operand))
        }),
        #[rustfmt::skip]
        Clac | Cli | Clts | Cpuid | Hlt | In | Insb | Insd | Insw | Invd | Invlpg | Invpcid | Iret | Iretd | Iretq
        | Lgdt | Lidt | Lldt | Lmsw | Ltr | Monitor | Mwait | Out | Outsb | Outsd | Outsw | Popf | Popfd | Popfq
        | Pushf | Pushfd | Pushfq | Rdmsr | Rdpmc | Sgdt | Sidt | Sldt | Smsw | Stac | Sti | Str | Swapgs | Sysexit
        | Sysexitq | Sysret | Sysretq | Wbinvd | Wrmsr | Xsetbv => true,
        _ => false,
    }
}

fn is_of_ring_0(register: Register) -> bool {
    register.is_cr() || register.is_dr()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::{Form, Site};

    const START: u64 = 0xffff_ffff_8020_0000;
    /// nop; cli | in al, dx; ret | ud2; "xen"; cpuid; ret
    const TEXT: [u8; 12] = [0x90, 0xfa, 0xec, 0xc3, 0x0f, 0x0b, 0x78, 0x65, 0x6e, 0x0f, 0xa2, 0xc3];
    const NATIVE: Allowed = Allowed { prefix: "pv_ops::native::", reason: "not installed" };

    fn item(name: &str, offset: u64) -> Item {
        Item { name: name.into(), address: START + offset, len_bytes: 0, code: true, function: true }
    }

    fn prove(first: &str, allowed: &[Allowed], ops: &[&str]) -> Result<Privileged> {
        let form = Form::Inline(vec![0xec]);
        let dump = Dump {
            start: START,
            text: TEXT.to_vec(),
            sites: vec![Site { address: START + 2, len: 1, op: "port_in8".into(), form }],
        };
        dump.prove_unprivileged(&[item(first, 0), item("kernel::port", 2), item("cpuid", 4)], allowed, ops)
    }

    #[test]
    fn what_is_allowed_is_counted() {
        let found = prove("pv_ops::native::cli", &[NATIVE], &["port_in8"]).unwrap();
        assert_eq!(found, Privileged { allowed: 1, in_sites: 1 });
    }

    #[test]
    fn an_instruction_in_another_function_is_found() {
        let error = prove("kernel::task::idle", &[NATIVE], &["port_in8"]).unwrap_err().to_string();
        assert!(error.contains("`cli` in kernel::task::idle"), "{error}");
    }

    #[test]
    fn a_site_of_another_op_is_found_even_in_an_allowed_function() {
        let kernel = Allowed { prefix: "kernel::port", reason: "of this test" };
        let error = prove("pv_ops::native::cli", &[NATIVE, kernel], &[]).unwrap_err().to_string();
        assert!(error.contains("a site of port_in8"), "{error}");
    }

    #[test]
    fn a_reason_that_nothing_needs_is_an_error() {
        let unused = Allowed { prefix: "boot::", reason: "of this test" };
        assert!(prove("pv_ops::native::cli", &[NATIVE, unused], &["port_in8"]).is_err());
    }

    #[test]
    fn moves_from_and_to_control_and_debug_registers_are_privileged() {
        let is = |bytes: &[u8]| is_privileged(&Decoder::new(64, bytes, DecoderOptions::NONE).decode());
        assert!(is(&[0x0f, 0x20, 0xc0]) && is(&[0x0f, 0x22, 0xdf]) && is(&[0x0f, 0x23, 0xf8]));
        assert!(!is(&[0x48, 0x89, 0xc3]) && !is(&[0x0f, 0x31]) && !is(&[0x0f, 0x05]));
    }
}
