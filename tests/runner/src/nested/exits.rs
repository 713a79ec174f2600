//! The exits of a guest's start, stage by stage, by reason and by the function that caused them.

use std::collections::BTreeMap;

use crate::guest::symbols::{BASE, Symbol};

/// Where the entry code runs before paging is on. What is executed elsewhere is the firmware's.
const ENTRY: std::ops::Range<u64> = 0x20_0000..0x200_0000;

/// Numbers of exits by stage, reason, and the guest's instruction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exits(BTreeMap<(u32, String, u64), u64>);

impl Exits {
    /// Reads what `staged` of the host's `init` said; what is none of that is left.
    pub fn read(said: &str) -> Self {
        let mut exits = Self::default();
        for line in said.lines() {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let ["exit", stage, reason, rip, number] = words[..] else { continue };
            let hex = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok();
            if let (Some(stage), Some(rip), Ok(number)) = (hex(stage), hex(rip), number.parse::<u64>())
                && (ENTRY.contains(&rip) || rip >= BASE)
            {
                *exits.0.entry((stage as u32, reason.to_owned(), rip)).or_default() += number;
            }
        }
        exits
    }

    /// Those of one stage, by reason; all ports together.
    pub fn of(&self, stage: u32) -> BTreeMap<&str, u64> {
        let mut reasons = BTreeMap::new();
        for ((_, reason, _), number) in self.0.iter().filter(|((of, ..), _)| *of == stage) {
            *reasons.entry(reason.split('-').next().unwrap_or_default()).or_default() += number;
        }
        reasons
    }

    /// All of them.
    pub fn all(&self) -> u64 {
        self.0.values().sum()
    }

    /// A line for each function of a stage that caused some: how many, why, who. Most first.
    pub fn callers(&self, stage: u32, symbols: &[Symbol]) -> Vec<(u64, String, String)> {
        let mut callers: BTreeMap<(String, String), u64> = BTreeMap::new();
        for ((_, reason, rip), number) in self.0.iter().filter(|((of, ..), _)| *of == stage) {
            let before = symbols.iter().filter(|symbol| symbol.address <= *rip);
            let name = before.max_by_key(|symbol| symbol.address).map(|symbol| symbol.name.clone());
            *callers.entry((reason.clone(), name.unwrap_or_else(|| format!("{rip:#x}")))).or_default() +=
                number;
        }
        let mut lines: Vec<_> = callers.into_iter().map(|((why, who), number)| (number, why, who)).collect();
        lines.sort_by(|a, b| b.cmp(a));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_are_told_by_stage_by_reason_and_by_function() {
        let said = "count kvm_exit 1 2\nexit 0x2 io 0xffffffff80200010 3\nexit 0x2 msr 0xffffffff80200014 1\n\
            exit 0x3 io 0x200007 5\nexit 0x2 io 0xf0000 9\nexit 0x2 io-0x3f8 0xffffffff80200018 1\nexit\n";
        let exits = Exits::read(said);
        assert_eq!(exits.all(), 10);
        assert_eq!(exits.of(2), [("io", 4), ("msr", 1)].into());
        let symbols = [Symbol { address: 0xffff_ffff_8020_0000, name: "port".into() }];
        let callers = exits.callers(2, &symbols);
        assert_eq!(
            callers,
            [(3, "io"), (1, "msr"), (1, "io-0x3f8")].map(|(number, why)| (number, why.into(), "port".into()))
        );
        assert_eq!(exits.callers(3, &symbols), [(5, "io".into(), "0x200007".into())]);
    }
}
