//! What was counted while a guest ran: what KVM did, by its own trace events, and what our machine monitor saw.

use std::collections::BTreeMap;
use std::fmt;

/// Numbers by event and key, for example `kvm_hypercall` and the hypercall's number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    kvm: BTreeMap<(String, u64), u64>,
    vmm: BTreeMap<String, u64>,
}

impl Counts {
    /// Reads what the host's `init` and our monitor said; what is none of that is left.
    pub fn read(said: &str) -> Self {
        let mut counts = Self::default();
        for line in said.lines() {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            match words[..] {
                ["count", event, key, number] => {
                    if let (Ok(key), Ok(number)) = (key.parse(), number.parse()) {
                        counts.kvm.insert((event.to_owned(), key), number);
                    }
                }
                ["vmm:", ..] => counts.vmm.extend(words.iter().filter_map(|word| {
                    let (name, number) = word.split_once('=')?;
                    Some((name.to_owned(), number.parse().ok()?))
                })),
                _ => {}
            }
        }
        counts
    }

    /// How often KVM's `event` happened.
    pub fn all(&self, event: &str) -> u64 {
        self.kvm.iter().filter(|((name, _), _)| name == event).map(|(_, number)| number).sum()
    }

    /// How often KVM's `event` happened with this key.
    pub fn of(&self, event: &str, key: u64) -> u64 {
        self.kvm.get(&(event.to_owned(), key)).copied().unwrap_or_default()
    }

    /// What our own machine monitor counted under `name`.
    pub fn vmm(&self, name: &str) -> u64 {
        self.vmm.get(name).copied().unwrap_or_default()
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((event, key), number) in &self.kvm {
            writeln!(f, "{event:26} {key:#12x} {number:8}")?;
        }
        self.vmm.iter().try_for_each(|(name, number)| writeln!(f, "vmm {name:22} {:12} {number:8}", ""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_event_and_key() {
        let said = "count kvm_hypercall 10 3\ncount kvm_hypercall 5 4\nstatus=33\nvmm: ended=status-16 io_in=7\ncount x\n";
        let counts = Counts::read(said);
        assert_eq!((counts.all("kvm_hypercall"), counts.of("kvm_hypercall", 5)), (7, 4));
        assert_eq!((counts.vmm("io_in"), counts.vmm("ended"), counts.all("kvm_eoi")), (7, 0, 0));
    }
}
