//! What a pv-op costs: through the table, at a patched site, and as the bare instruction.
//!
//! The same op is executed in three ways, 1024 times in a row: by the indirect call that the compiler emitted before
//! the patching, by the call site as it stands now, and by the instruction that the manuals name for it. Cycles are
//! those of the time stamp counter, the least and the median of many runs; instructions are those that a call
//! site executes. Under TCG a cycle is a nanosecond or so of an emulator's time, on KVM it is the CPU's.
//! Files: `ops` (what is measured), `sample` (the measuring), `count` (instructions in bytes).
//!
//! This is the one app with unsafe code: it executes privileged instructions on purpose, to compare them.
#![no_std]
#![no_main]

mod count;
mod ops;
mod sample;

use kernel::{hypervisor, println, pv_ops};

use crate::{count::Cost, sample::Sample};

kernel::app!(main);

/// One op, measured.
struct Row {
    op: &'static str,
    cost: Cost,
    table: Sample,
    site: Sample,
    bare: Option<Sample>,
}

async fn main() {
    println!("on {}, {} backend", hypervisor::name(), hypervisor::detection().backend.name);
    println!("                 instructions           cycles each: least (median)");
    println!("op               table   site   bare    table             site              bare");
    let rows = ops::measure();
    for row in &rows {
        println!("{row}");
    }
    let inline = rows.iter().filter(|row| row.cost.site == row.cost.bare);
    let (equal, compared) = (inline.clone().filter(|row| row.is_as_cheap_as_bare()).count(), inline.count());
    println!("instructions of patched and bare are equal for {compared} of {} ops; nops are in brackets", rows.len());
    println!("cycles of patched and bare are equal, within {TOLERANCE_PERCENT} %, for {equal} of these");
}

/// Two runs of the very same code differ by this much.
const TOLERANCE_PERCENT: u64 = 10;

impl Row {
    /// The patched site takes no longer than the bare instruction, but for noise.
    fn is_as_cheap_as_bare(&self) -> bool {
        let Some(bare) = self.bare else { return false };
        // A tenth of a cycle is the loop around.
        self.site.least() <= bare.least() + bare.least() * TOLERANCE_PERCENT / 100 + sample::RESOLUTION
    }
}
