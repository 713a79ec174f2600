//! How many instructions an op takes, read from the bytes of its call sites.

use core::fmt;

use kernel::{cpu::sections, pv_ops};

/// Bytes of the longest instruction that does nothing (SDM vol. 2B, NOP): a longer padding is several.
const LONGEST_NOP: usize = 9;

/// What stands at the call sites of an op.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cost {
    /// The bare instructions, and so many that do nothing behind them.
    Bare { instructions: usize, nops: usize },
    /// A direct call.
    Call,
    /// Something else.
    Other,
}

impl Cost {
    /// Looks at the first call site of `op` in the running code. `bare` is what the assembler makes of `instructions`
    /// instructions.
    pub(crate) fn of(op: &str, bare: &[u8], instructions: usize) -> Self {
        const CALL: u8 = 0xe8;
        let Some(bytes) = site(op) else { return Self::Other };
        match bytes.strip_prefix(bare) {
            Some(padding) if is_padding(padding) => {
                Self::Bare { instructions, nops: padding.len().div_ceil(LONGEST_NOP) }
            }
            _ if bytes.first() == Some(&CALL) => Self::Call,
            _ => Self::Other,
        }
    }
}

/// The bytes of the first call site of `op`.
fn site(op: &str) -> Option<&'static [u8]> {
    let text = sections::text();
    let site = pv_ops::sites().find(|site| site.info().is_some_and(|info| info.name == op))?;
    let start = site.address.checked_sub(text.as_ptr().addr())?;
    text.get(start..start.checked_add(site.length)?)
}

/// Only the recommended forms: `66* 90` and `66* 0f 1f ...`.
fn is_padding(bytes: &[u8]) -> bool {
    let prefixes = bytes.iter().take_while(|byte| **byte == 0x66).count();
    matches!(bytes[prefixes..], [] | [0x90] | [0x0f, 0x1f, ..])
}

/// The three columns: instructions through the table, at the site, bare. A nop behind the instruction is a `+`.
impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // The call there and the return, around the same instructions.
            Self::Bare { instructions, nops } => {
                write!(
                    f,
                    "{:>5} {:>5}{:<2} {:>4}",
                    instructions + 2,
                    instructions,
                    &"++++"[..(*nops).min(4)],
                    instructions
                )
            }
            Self::Call => write!(f, "{:>5} {:>5}   {:>4}", "call", "call", "-"),
            Self::Other => write!(f, "{:>5} {:>5}   {:>4}", "?", "?", "?"),
        }
    }
}
