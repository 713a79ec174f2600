//! How fast a disk is: 4 KiB at a time, in order and at random, read and written, one request or 32 at a time.
//!
//! Each of these is done in three ways, one after the other: through the driver, on the first disk, by one task that has all requests in
//! flight (`driver`), and by as many tasks that await one each (`tasks`); and by a loop that does nothing but fill and poll the ring of
//! the other disk, without interrupts, in several ways (`bare-...`), the best of which is what this host allows. One line each: `block WHO ORDER WHAT DEPTH REQUESTS/S NOTIFICATIONS INTERRUPTS`, the last two for a thousand requests.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

mod bare;
mod driver;

use alloc::{format, string::String};
use core::{fmt, ops::AddAssign};

use kernel::{println, pv_ops};

kernel::app!(main);

/// Bytes of a request.
const BLOCK_BYTES: usize = 4096;
const BLOCK_SECTORS: u64 = 8;
/// How long each is measured, if the command line does not say: `app.ms=`.
const MEASURE_MS: u64 = 500;

/// Completions between two looks at the clock.
const CLOCK_EVERY: u64 = 16;

/// Pieces of that time, in which driver and loop take turns. One more comes first and does not count: in it the host makes its threads.
const TURNS: u64 = 10;
/// The part of a turn that is played before each, and does not count: who had the turn before has left the host's threads where
/// they were good for that one.
const SETTLING: u64 = 4;

/// What is measured.
#[derive(Clone, Copy, Debug)]
struct Case {
    random: bool,
    write: bool,
    depth: u16,
}

impl Case {
    fn all() -> impl Iterator<Item = Self> {
        let bools = [false, true];
        let each = bools.into_iter().flat_map(move |random| bools.map(|write| (random, write)));
        each.flat_map(|(random, write)| [1, 32].map(|depth| Self { random, write, depth }))
    }
}

impl fmt::Display for Case {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = if self.random { "random" } else { "sequential" };
        let what = if self.write { "write" } else { "read" };
        write!(out, "{order} {what} {}", self.depth)
    }
}

/// The blocks in the order of a case.
#[derive(Clone, Debug)]
struct Order {
    random: bool,
    blocks: u64,
    state: u64,
}

impl Order {
    fn new(case: Case, sectors: u64) -> Self {
        Self { random: case.random, blocks: sectors / BLOCK_SECTORS, state: 1 }
    }

    /// The first sector of the next block.
    fn next(&mut self) -> u64 {
        if self.random {
            // xorshift64*.
            self.state ^= self.state >> 12;
            self.state ^= self.state << 25;
            self.state ^= self.state >> 27;
            (self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % self.blocks * BLOCK_SECTORS
        } else {
            self.state += 1;
            self.state % self.blocks * BLOCK_SECTORS
        }
    }
}

/// What was counted in some time.
struct Counted {
    requests: u64,
    ns: u64,
    notifications: u64,
    interrupts: u64,
}

/// A measurement.
struct Measured {
    who: &'static str,
    case: Case,
    requests: u64,
    ns: u64,
    notifications: u64,
    interrupts: u64,
}

impl Measured {
    fn new(who: &'static str, case: Case) -> Self {
        Self { who, case, requests: 0, ns: 0, notifications: 0, interrupts: 0 }
    }
}

impl Measured {
    fn per_second(&self) -> u64 {
        self.requests * 1_000_000_000 / self.ns.max(1)
    }
}

impl AddAssign<Counted> for Measured {
    fn add_assign(&mut self, more: Counted) {
        self.requests += more.requests;
        self.ns += more.ns;
        self.notifications += more.notifications;
        self.interrupts += more.interrupts;
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { who, case, requests, notifications, interrupts, .. } = self;
        let per_thousand = |count: u64| count * 1000 / (*requests).max(1);
        let (notifications, interrupts) = (per_thousand(*notifications), per_thousand(*interrupts));
        write!(out, "block {who} {case} {} {notifications} {interrupts}", self.per_second())
    }
}

async fn main() -> Result<(), String> {
    let ms = kernel::app::args().find(|(key, _)| *key == "ms").and_then(|(_, value)| value.parse().ok());
    let ns = ms.unwrap_or(MEASURE_MS) * 1_000_000;
    let settling = ns / TURNS / SETTLING;
    // The last disk, before the driver takes the others.
    let mut bare = bare::Disk::new()?;
    let disk = kernel::devices::block::disks().into_iter().next().ok_or("no second disk")?;
    let only = kernel::app::args().find(|(key, _)| *key == "only").map(|(_, value)| value);
    for case in Case::all().filter(|case| only.is_none_or(|only| format!("{case}").replace(' ', "-") == only))
    {
        let [all, half, rests, flags] = bare::Way::ALL.map(|way| way.name);
        let none = || ["driver", "tasks", all, half, rests, flags].map(|who| Measured::new(who, case));
        let mut measured = none();
        // In turns: what else the host does meanwhile slows all of them down.
        for turn in 0..=TURNS {
            if turn == 1 {
                measured = none();
            }
            let [by_driver, by_tasks, by_loop @ ..] = &mut measured;
            driver::in_flight(&disk, case, settling).await?;
            *by_driver += driver::in_flight(&disk, case, ns / TURNS).await?;
            driver::tasks(&disk, case, settling).await?;
            *by_tasks += driver::tasks(&disk, case, ns / TURNS).await?;
            for (way, by_loop) in bare::Way::ALL.into_iter().zip(by_loop) {
                bare = bare.turned(way)?;
                bare.measure(case, settling).await?;
                *by_loop += bare.measure(case, ns / TURNS).await?;
            }
        }
        measured.iter().for_each(|by_one| println!("{by_one}"));
    }
    Ok(())
}

fn now_ns() -> u64 {
    pv_ops::monotonic_ns()
}
