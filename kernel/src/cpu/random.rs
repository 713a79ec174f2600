//! Random numbers that the CPU makes (Intel SDM vol. 1 §7.3.17). Neighbours: `features` (whether it can), `random` (who
//! mixes them with others).

use core::arch::x86_64::{_rdrand64_step, _rdseed64_step};

use super::features::{Feature, features};

/// Tries for a number: one is enough but for a CPU that is asked by all its cores (SDM vol. 1 §7.3.17.1).
const TRIES: u32 = 32;

/// A number that is fit to seed others, and the instruction that made it; `None` if this CPU has none.
pub fn number() -> Option<(u64, &'static str)> {
    let seed = || features().has(Feature::RdSeed).then(|| (0..TRIES).find_map(|_| rdseed())).flatten();
    let random = || features().has(Feature::RdRand).then(|| (0..TRIES).find_map(|_| rdrand())).flatten();
    seed().map(|number| (number, "RDSEED")).or_else(|| random().map(|number| (number, "RDRAND")))
}

fn rdseed() -> Option<u64> {
    let mut number = 0;
    // SAFETY: the caller has found that the CPU has RDSEED, which touches nothing but a register and flags.
    let is_there = unsafe { _rdseed64_step(&mut number) };
    (is_there == 1).then_some(number)
}

fn rdrand() -> Option<u64> {
    let mut number = 0;
    // SAFETY: the caller has found that the CPU has RDRAND, which touches nothing but a register and flags.
    let is_there = unsafe { _rdrand64_step(&mut number) };
    (is_there == 1).then_some(number)
}
