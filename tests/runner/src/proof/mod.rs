//! The proof of the patching: the text of a running kernel, disassembled.
//!
//! Asked by `dump=text` on the command line, the kernel writes its live text and what it patched to the console:
//! `pv-dump text <start> <len>`, `pv-hex <base64>` lines, `pv-site <address> <len> <op> <form>` lines where the form is
//! `inline:<bytes>`, `call:<target>` or `jump:<target>`, and `pv-dump end`. Numbers are hex, but for the lengths.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind};

mod privilege;
pub use privilege::{Allowed, Privileged};

/// What the kernel handed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dump {
    /// The virtual address of the first byte of `text`.
    pub start: u64,
    /// The kernel's text as it runs.
    pub text: Vec<u8>,
    /// What was patched into it.
    pub sites: Vec<Site>,
}

/// One call site of a pv-op.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The virtual address of its first byte.
    pub address: u64,
    /// Its length in bytes.
    pub len: usize,
    /// The op's name.
    pub op: String,
    /// What the kernel says it put there.
    pub form: Form,
}

/// What stands at a patched site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// These instruction bytes.
    Inline(Vec<u8>),
    /// A direct call of this address.
    Call(u64),
    /// A direct jump to this address.
    Jump(u64),
}

/// What was proven, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Proven {
    /// Sites that hold the bare instruction.
    pub inline: usize,
    /// Sites that hold a direct call or jump.
    pub direct: usize,
    /// Instructions looked at in the whole text.
    pub instructions: usize,
}

impl Dump {
    /// Finds and reads the dump on a console.
    ///
    /// # Errors
    /// There is none, or it is damaged.
    pub fn parse(console: &str) -> Result<Self> {
        let mut lines = console.lines().map(str::trim_end);
        let head =
            lines.find_map(|line| line.strip_prefix("pv-dump text ")).context("no `pv-dump text` line")?;
        let (start, len) = head.split_once(' ').context("`pv-dump text` without a length")?;
        let (start, len) = (hex_number(start)?, len.parse::<usize>().context("length of the text")?);
        let (mut text, mut sites, mut ended) = (Vec::with_capacity(len), Vec::new(), false);
        for line in lines {
            if let Some(data) = line.strip_prefix("pv-hex ") {
                text.extend(
                    base64::engine::general_purpose::STANDARD.decode(data.trim()).context("a pv-hex line")?,
                );
            } else if let Some(site) = line.strip_prefix("pv-site ") {
                sites.push(Site::parse(site).with_context(|| format!("pv-site {site}"))?);
            } else if line == "pv-dump end" {
                ended = true;
                break;
            }
        }
        ensure!(ended, "no `pv-dump end` line");
        ensure!(text.len() == len, "the text has {} bytes, {len} were announced", text.len());
        Ok(Self { start, text, sites })
    }

    /// Checks every site, and that nothing in the text calls through `table`, the addresses of the pv-ops table.
    /// `functions` are the addresses where decoding starts anew, so that no data between functions leads astray.
    ///
    /// # Errors
    /// The first site or instruction that is not as it should be.
    pub fn prove(&self, table: std::ops::Range<u64>, functions: &[u64]) -> Result<Proven> {
        ensure!(!self.sites.is_empty(), "the kernel lists no site");
        let mut proven = Proven::default();
        for site in &self.sites {
            let wrong = || format!("site {:#x} of {} ({:?})", site.address, site.op, site.form);
            self.check(site).with_context(wrong)?;
            match site.form {
                Form::Inline(_) => proven.inline += 1,
                Form::Call(_) | Form::Jump(_) => proven.direct += 1,
            }
        }
        proven.instructions = self.check_whole(&table, functions)?;
        Ok(proven)
    }

    /// The site holds exactly what its form says, then only instructions that do nothing.
    fn check(&self, site: &Site) -> Result<()> {
        let bytes = self.at(site.address, site.len).context("lies outside the text")?;
        let rest = match &site.form {
            Form::Inline(wanted) => {
                ensure!(bytes.starts_with(wanted), "holds {bytes:02x?}");
                &bytes[wanted.len()..]
            }
            Form::Call(target) | Form::Jump(target) => {
                let first = decode(bytes, site.address).next().context("is empty")?;
                let flow = if matches!(site.form, Form::Call(_)) {
                    FlowControl::Call
                } else {
                    FlowControl::UnconditionalBranch
                };
                ensure!(first.flow_control() == flow, "holds `{first}`");
                ensure!(first.near_branch_target() == *target, "goes to {:#x}", first.near_branch_target());
                &bytes[first.len()..]
            }
        };
        for instruction in decode(rest, site.address) {
            ensure!(instruction.mnemonic() == Mnemonic::Nop, "is padded with `{instruction}`");
        }
        Ok(())
    }

    /// No instruction in the text calls or jumps through the table.
    fn check_whole(&self, table: &std::ops::Range<u64>, functions: &[u64]) -> Result<usize> {
        let end = self.start + self.text.len() as u64;
        let inside = functions.iter().copied().filter(|address| (self.start..end).contains(address));
        let starts: BTreeSet<u64> = inside.chain([self.start]).collect();
        let ends = starts.iter().copied().skip(1).chain([end]);
        let mut count = 0;
        for (from, to) in starts.iter().copied().zip(ends) {
            let code = self.at(from, usize::try_from(to - from)?).context("function outside the text")?;
            for instruction in decode(code, from) {
                count += 1;
                let indirect = matches!(
                    instruction.flow_control(),
                    FlowControl::IndirectCall | FlowControl::IndirectBranch
                );
                if indirect
                    && instruction.op0_kind() == OpKind::Memory
                    && table.contains(&address_of(&instruction))
                {
                    bail!("{:#x}: `{instruction}` still goes through the table", instruction.ip());
                }
            }
        }
        Ok(count)
    }

    fn at(&self, address: u64, len: usize) -> Option<&[u8]> {
        let from = usize::try_from(address.checked_sub(self.start)?).ok()?;
        self.text.get(from..from.checked_add(len)?)
    }
}

impl Site {
    fn parse(text: &str) -> Result<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [address, len, op, form] = words[..] else { bail!("expected: address length op form") };
        let form = match form.split_once(':') {
            Some(("inline", bytes)) => Form::Inline(hex_bytes(bytes)?),
            Some(("call", target)) => Form::Call(hex_number(target)?),
            Some(("jump", target)) => Form::Jump(hex_number(target)?),
            _ => bail!("unknown form {form}"),
        };
        Ok(Self { address: hex_number(address)?, len: len.parse()?, op: op.to_owned(), form })
    }
}

/// The absolute address an instruction without base or index register refers to; 0 for others.
fn address_of(instruction: &Instruction) -> u64 {
    if instruction.is_ip_rel_memory_operand() || instruction.memory_base() == iced_x86::Register::None {
        instruction.memory_displacement64()
    } else {
        0
    }
}

fn decode(bytes: &[u8], address: u64) -> impl Iterator<Item = Instruction> {
    Decoder::with_ip(64, bytes, address, DecoderOptions::NONE).into_iter()
}

fn hex_number(text: &str) -> Result<u64> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u64::from_str_radix(digits, 16).with_context(|| format!("{text:?} is no hex number"))
}

fn hex_bytes(text: &str) -> Result<Vec<u8>> {
    ensure!(text.len().is_multiple_of(2) && text.is_ascii(), "{text:?} is no list of hex bytes");
    (0..text.len()).step_by(2).map(|at| Ok(u8::from_str_radix(&text[at..at + 2], 16)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 0xffff_ffff_8020_1000;
    /// cli; 5-byte nop | call START; nop | call [rip + 0] (through address START + 19 + 6 = ...).
    const TEXT: [u8; 13] = [0xfa, 0x0f, 0x1f, 0x44, 0, 0, 0xe8, 0xf5, 0xff, 0xff, 0xff, 0x90, 0xc3];

    fn console(text: &[u8], sites: &str) -> String {
        let data = base64::engine::general_purpose::STANDARD.encode(text);
        format!("boot\npv-dump text {START:#x} {}\r\npv-hex {data}\r\n{sites}pv-dump end\r\n", text.len())
    }

    fn prove(text: &[u8], sites: &str) -> Result<Proven> {
        Dump::parse(&console(text, sites))?.prove(START + 0x1000..START + 0x1100, &[])
    }

    const SITES: &str = "pv-site ffffffff80201000 6 irq_disable inline:fa\n\
                         pv-site 0xffffffff80201006 6 shutdown call:ffffffff80201000\n";

    #[test]
    fn patched_text_is_accepted() {
        assert_eq!(prove(&TEXT, SITES).unwrap(), Proven { inline: 1, direct: 1, instructions: 5 });
    }

    #[test]
    fn an_unpatched_site_is_found() {
        let mut text = TEXT;
        text[..6].copy_from_slice(&[0xff, 0x15, 0, 0x10, 0, 0]); // call [rip + 0x1000]
        let error = format!("{:#}", prove(&text, SITES).unwrap_err());
        assert!(error.contains("irq_disable"), "{error}");
    }

    #[test]
    fn a_call_through_the_table_is_found_outside_of_sites_too() {
        let mut text = TEXT.to_vec();
        text.extend([0xff, 0x15, 0, 0x10, 0, 0]);
        let error = prove(&text, SITES).unwrap_err().to_string();
        assert!(error.contains("still goes through the table"), "{error}");
    }

    #[test]
    fn padding_must_do_nothing_and_targets_must_match() {
        let mut text = TEXT;
        text[1] = 0xfb;
        assert!(prove(&text, SITES).is_err());
        let elsewhere = SITES.replace("call:ffffffff80201000", "call:ffffffff80201001");
        assert!(prove(&TEXT, &elsewhere).is_err());
    }

    #[test]
    fn a_cut_dump_is_refused() {
        let whole = console(&TEXT, SITES);
        assert!(Dump::parse(whole.trim_end().trim_end_matches("pv-dump end")).is_err());
        assert!(Dump::parse(&whole.replace(" 13\r", " 14\r")).is_err());
        assert!(Dump::parse("nothing").is_err());
    }
}
