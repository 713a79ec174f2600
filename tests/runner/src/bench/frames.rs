//! The second part of `bench-net`: frames a second at the bare card, through Pliant's driver, by a loop over its ring, under
//! Linux.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::rig;
use crate::guest::Guest;
use crate::image;
use crate::qemu::{Ending, Line, Machine, Options, Running, Serial, Tee, network};
use crate::toolchain::Toolchain;

const MEMORY: &str = "256M";
const PATIENCE: Duration = Duration::from_secs(120);
/// Milliseconds for each case in each round.
const MEASURE_MS: u32 = 300;

/// Bytes of a frame, frames for a notification.
type Case = (u32, u32);
/// Frames a second, notifications and interrupts for a thousand frames, by who sent them.
pub(super) type Results = BTreeMap<(Case, String), Vec<[Option<u64>; 3]>>;

/// One round, in this thread's network namespace, at its first two taps; `more` are properties of the cards.
pub(super) fn round(
    toolchain: &Toolchain,
    guest: &Guest,
    program: &[u8],
    more: &str,
    results: &mut Results,
) -> Result<()> {
    let options = Options {
        memory: MEMORY.into(),
        append: format!("app.ms={MEASURE_MS} log=warn"),
        ..Options::default()
    };
    let mut line = image::line(toolchain, guest, &options, Serial::Plain)?;
    at(&mut line, 0, more);
    at(&mut line, 1, more);
    let finished = Running::start(&line, false, Tee::Keep)?.wait(Some(PATIENCE))?;
    let (ending, console) = (finished.ending, finished.console);
    ensure!(ending == Ending::Status(0), "the guest ended with {ending}:\n{console}");
    note(&console, results)?;
    let mut linux = rig::linux(MEMORY, 1, |line| at(line, 0, more))?;
    rig::install(&mut linux, program)?;
    note(&linux.run(&format!("ip link set eth0 up; {} eth0 {MEASURE_MS}", rig::PROGRAM))?, results)
}

fn at(line: &mut Line, tap: u8, more: &str) {
    network::at_tap_number(line, Machine::Q35, tap, more);
}

/// Takes the lines `frames WHO BYTES BATCH ...` out of what a guest wrote.
fn note(console: &str, results: &mut Results) -> Result<()> {
    let mut has_noted = false;
    for line in console.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let &["frames", who, len, batch, a, b, c] = &words[..] else { continue };
        let numbers = [a, b, c].map(|word| word.parse().ok());
        results.entry(((len.parse()?, batch.parse()?), who.to_owned())).or_default().push(numbers);
        has_noted = true;
    }
    ensure!(has_noted, "a guest measured nothing:\n{console}");
    Ok(())
}

/// The median of one number; it may not be told.
fn median(values: &[[Option<u64>; 3]], at: usize) -> Option<u64> {
    let mut values: Vec<u64> = values.iter().filter_map(|numbers| numbers[at]).collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

pub(super) fn print(results: &Results) {
    println!(
        "\n| bytes of a frame | for a notification | Pliant, frames/s | MB/s | bare polling | of bare | Linux | times Linux | \
         notifications, interrupts for 1000 frames | Linux's interrupts |\n|---|---|---|---|---|---|---|---|---|---|"
    );
    let mut cases: Vec<Case> = results.keys().map(|(case, _)| *case).collect();
    cases.dedup();
    for (len, batch) in cases {
        let of = |who: &str, at| {
            let values = results.get(&((len, batch), who.to_owned()))?;
            median(values, at)
        };
        let text = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        let (driver, bare, linux) = (of("driver", 0), of("bare", 0), of("linux", 0));
        let ratio = |of: Option<u64>| driver.zip(of).map_or(f64::NAN, |(a, b)| a as f64 / b.max(1) as f64);
        println!(
            "| {len} | {batch} | {} | {} | {} | {:.0} % | {} | {:.1} | {}, {} | {} |",
            text(driver),
            text(driver.map(|frames| frames * u64::from(len) / 1_000_000)),
            text(bare),
            ratio(bare) * 100.0,
            text(linux),
            ratio(linux),
            text(of("driver", 1)),
            text(of("driver", 2)),
            text(of("linux", 2)),
        );
    }
}
