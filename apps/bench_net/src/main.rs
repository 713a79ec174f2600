//! How many frames a network card sends: short and long ones, 1, 32 or 256 for a notification.
//!
//! Each is done in two ways, in turn: through the driver, on the first card (`driver`), and by a loop that does nothing but
//! fill and empty the ring of the other card, without interrupts (`bare`), which is what this host allows. One line each:
//! `frames WHO BYTES BATCH FRAMES/S NOTIFICATIONS INTERRUPTS`, the last two for a thousand frames.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

extern crate alloc;

mod bare;
mod driver;

use alloc::string::String;
use core::{fmt, ops::AddAssign};

use kernel::{println, pv_ops};

kernel::app!(main);

/// How long each is measured, if the command line does not say: `app.ms=`.
const MEASURE_MS: u64 = 500;
/// Pieces of that time, in which driver and loop take turns; one more before is not counted.
const TURNS: u64 = 5;

/// An Ethernet header: to a card that is not there, of a type for experiments (IEEE 802, 0x88b5).
const HEADER: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5];

/// What is measured.
#[derive(Clone, Copy, Debug)]
struct Case {
    /// Bytes of a frame.
    len: usize,
    /// Frames for a notification.
    batch: u16,
}

impl Case {
    fn all() -> impl Iterator<Item = Self> {
        [60, 1514].into_iter().flat_map(|len| [1, 32, 256].map(|batch| Self { len, batch }))
    }
}

/// What was counted in some time.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    frames: u64,
    ns: u64,
    notifications: u64,
    interrupts: u64,
}

impl AddAssign for Counted {
    fn add_assign(&mut self, more: Self) {
        self.frames += more.frames;
        self.ns += more.ns;
        self.notifications += more.notifications;
        self.interrupts += more.interrupts;
    }
}

/// A line of the results.
struct Line(&'static str, Case, Counted);

impl fmt::Display for Line {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(who, Case { len, batch }, Counted { frames, ns, notifications, interrupts }) = self;
        let per_second = frames * 1_000_000_000 / (*ns).max(1);
        let per_thousand = |count: &u64| count * 1000 / (*frames).max(1);
        let (notifications, interrupts) = (per_thousand(notifications), per_thousand(interrupts));
        write!(out, "frames {who} {len} {batch} {per_second} {notifications} {interrupts}")
    }
}

async fn main() -> Result<(), String> {
    let ms = kernel::app::args().find(|(key, _)| *key == "ms").and_then(|(_, value)| value.parse().ok());
    let ns = ms.unwrap_or(MEASURE_MS) * 1_000_000 / TURNS;
    // The last card, before the driver takes the others.
    let mut bare = bare::Card::new()?;
    let card = kernel::devices::net::cards().into_iter().next().ok_or("no second card")?;
    for case in Case::all() {
        let (mut by_driver, mut by_loop) = (Counted::default(), Counted::default());
        for turn in 0..=TURNS {
            let (of_driver, of_loop) = (driver::measure(&card, case, ns).await, bare.measure(case, ns)?);
            if turn > 0 {
                by_driver += of_driver;
                by_loop += of_loop;
            }
        }
        println!("{}", Line("driver", case, by_driver));
        println!("{}", Line("bare", case, by_loop));
    }
    Ok(())
}

fn now_ns() -> u64 {
    pv_ops::monotonic_ns()
}
