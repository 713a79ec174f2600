//! How many instructions an op takes, read from the bytes of its call sites.

use core::fmt;

use kernel::pv_ops::sites::{self, Found};

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
    /// Looks at the first call site of `op` in the running code. `bare` is what the assembler makes of the bare
    /// instructions.
    pub(crate) fn of(op: &str, bare: &[u8]) -> Self {
        match sites::found(op) {
            Some(Found::Inline { bytes, instructions, nops }) if bytes == bare => {
                Self::Bare { instructions, nops }
            }
            Some(Found::Branch) => Self::Call,
            _ => Self::Other,
        }
    }
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
