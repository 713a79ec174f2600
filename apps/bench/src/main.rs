//! What a pv-op costs: through the table, at a patched site, and as the bare instruction; and what threads, locks, timers
//! and memory cost.
//!
//! The same op is executed in three ways, 1024 times in a row: by the indirect call that the compiler emitted before
//! the patching, by the call site as it stands now, and by the instruction that the manuals name for it. Cycles are
//! those of the time stamp counter, the least and the median of many runs; instructions are those that a call
//! site executes. Under TCG, and on hosts that emulate a guest's kernel instruction by instruction, cycles tell of the
//! emulator: there a nop behind the instruction costs something too.
//! `app.threads` leaves the ops out, `app.idle=SECONDS` does nothing for so long.
//! Files: `ops` (what is measured), `sample` (the measuring), `cost` (instructions at a call site), `threads` (all but the
//! ops).
//!
//! This is the one app with unsafe code: it executes privileged instructions on purpose, to compare them.
#![no_std]
#![no_main]

extern crate alloc;

mod cost;
mod ops;
mod sample;
mod threads;

use core::fmt;

use kernel::{hypervisor, println};

use crate::{cost::Cost, sample::Sample};

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
    println!("on {}, {} operations", hypervisor::name(), hypervisor::detection().backend.name);
    let value = |name| kernel::args().find(|(key, _)| *key == name).map(|(_, value)| value);
    if let Some(seconds) = value("idle") {
        return threads::idle(seconds.parse().unwrap_or(1)).await;
    }
    if value("threads").is_none() {
        ops();
    }
    threads::measure().await;
}

fn ops() {
    println!("                  instructions       cycles: least (median)");
    println!("op                table  site   bare  table              site               bare");
    let rows = ops::measure();
    rows.iter().for_each(|row| println!("{row}"));
    let bare = rows.iter().filter(|row| row.bare.is_some()).count();
    let equal = rows.iter().filter(|row| row.is_as_cheap_as_bare()).count();
    println!("patched is bare: the same instructions for {bare} of {} ops, + a nop each +", rows.len());
    println!("of these {equal} take no longer than bare, within {TOLERANCE_PERCENT} %");
    println!();
}

/// Two runs of the very same code differ by so much.
const TOLERANCE_PERCENT: u64 = 10;

impl Row {
    /// A patched site costs what the bare instructions cost, but for noise.
    fn is_as_cheap_as_bare(&self) -> bool {
        self.bare.is_some_and(|bare| {
            self.site.least() <= bare.least() + bare.least() * TOLERANCE_PERCENT / 100 + sample::NOISE
        })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { op, cost, table, site, bare } = self;
        write!(f, "{op:<16} {cost}  {table:<18} {site:<18} ")?;
        match bare {
            Some(bare) => write!(f, "{bare}"),
            None => f.write_str("-"),
        }
    }
}
