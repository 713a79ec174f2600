//! `bench-block`: requests per second of a virtio disk, through Pliant's driver, by a bare polling loop, under Linux.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::rig;
use crate::guest::{self, Guest, Profile};
use crate::image;
use crate::qemu::{Line, Options, Running, Scratch, Serial, Tee};
use crate::toolchain::Toolchain;

const DISK_BYTES: u64 = 256 << 20;
/// Where the disks are on the PCI bus.
const FIRST_SLOT: usize = 0x10;
const MEMORY: &str = "512M";
const PATIENCE: Duration = Duration::from_secs(300);

/// The ways of the bare loop. The one with the highest median is the limit: the highest of each round would be what is measured best by
/// chance.
const BARE: [&str; 4] = ["bare-all", "bare-half", "bare-rests", "bare-flags"];

/// How it is measured.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// Rounds; the medians are shown
    #[arg(long, default_value_t = 3)]
    pub rounds: u32,
    /// Milliseconds for each case in each round
    #[arg(long, default_value_t = 500)]
    pub ms: u32,
    /// Leave Linux out
    #[arg(long)]
    pub alone: bool,
    /// More properties of the virtio-blk devices, such as `packed=on`
    #[arg(long, default_value = "")]
    pub device: String,
}

/// Order, what, depth.
type Case = (String, String, u32);

/// Requests a second, notifications and interrupts for a thousand requests, by who made them.
type Results = BTreeMap<(Case, String), Vec<[Option<u64>; 3]>>;

/// Runs it and prints the table.
///
/// # Errors
/// A machine does not run, or a request fails.
pub fn run(arguments: &Arguments) -> Result<u8> {
    let toolchain = Toolchain::find()?;
    let guest = guest::build(&toolchain, "bench_block", Profile::Release)?;
    let scratch = Scratch::new()?;
    let disks = ["first", "second"].map(|name| disk(&scratch.0, name));
    let disks = disks.into_iter().collect::<Result<Vec<_>>>()?;
    let program =
        if arguments.alone { Vec::new() } else { rig::program(&scratch.0, include_str!("linux_block.c"))? };
    let mut results = Results::new();
    for round in 0..arguments.rounds {
        eprintln!("round {} of {}", round + 1, arguments.rounds);
        note(&pliant(&toolchain, &guest, &disks, arguments)?, &mut results)?;
        if !arguments.alone {
            note(&linux(&program, &disks[..1], arguments)?, &mut results)?;
        }
    }
    disks.iter().for_each(|path| drop(std::fs::remove_file(path)));
    print(&results);
    Ok(0)
}

/// A disk in memory, if this machine has a place for one: the drive of the host is not what is measured.
fn disk(scratch: &Path, name: &str) -> Result<PathBuf> {
    let memory = Path::new("/dev/shm");
    let directory = if memory.is_dir() { memory } else { scratch };
    let path = directory.join(format!("pliant-bench-{}-{name}", std::process::id()));
    let mut file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    // Every page is there before anything is measured.
    let piece = vec![0x5a; 1 << 20];
    (0..DISK_BYTES >> 20).try_for_each(|_| file.write_all(&piece))?;
    Ok(path)
}

/// With a thread of QEMU's own for their requests: else these and a guest's notifications wait for one lock, so that what is measured
/// is at which moment of the other each of them comes.
fn attach(line: &mut Line, disks: &[PathBuf], device: &str) {
    line.option("-object", "iothread,id=disks");
    for (number, path) in disks.iter().enumerate() {
        let file = path.display().to_string().replace(',', ",,");
        line.option("-drive", format!("id=bench{number},if=none,format=raw,aio=threads,file={file}"));
        let more = if device.is_empty() { String::new() } else { format!(",{device}") };
        // Behind the disk that the host shares with Linux, which is to be its first.
        let place = FIRST_SLOT + number;
        line.option(
            "-device",
            format!(
                "virtio-blk-pci,iothread=disks,drive=bench{number},serial=bench{number},addr={place:#x}{more}"
            ),
        );
    }
}

fn pliant(toolchain: &Toolchain, guest: &Guest, disks: &[PathBuf], arguments: &Arguments) -> Result<String> {
    let append = format!("app.ms={} log=warn", arguments.ms);
    let options = Options { memory: MEMORY.into(), append, ..Options::default() };
    let mut line = image::line(toolchain, guest, &options, Serial::Plain)?;
    attach(&mut line, disks, &arguments.device);
    let finished = Running::start(&line, false, Tee::Keep)?.wait(Some(PATIENCE))?;
    ensure!(
        finished.ending == crate::qemu::Ending::Status(0),
        "the guest ended with {}:\n{}",
        finished.ending,
        finished.console
    );
    Ok(finished.console)
}

fn linux(program: &[u8], disks: &[PathBuf], arguments: &Arguments) -> Result<String> {
    let mut linux = rig::linux(MEMORY, 1, |line| attach(line, disks, &arguments.device))?;
    rig::install(&mut linux, program)?;
    let find =
        "for d in /sys/block/vd*; do [ \"$(cat $d/serial)\" = bench0 ] && echo /dev/${d##*/}; done; true";
    let device = linux.run(find)?.trim().to_owned();
    ensure!(!device.is_empty(), "Linux does not find the disk");
    linux.run(&format!("{} {device} {}", rig::PROGRAM, arguments.ms))
}

/// Takes the lines `block WHO ORDER WHAT DEPTH ...` out of what a guest wrote.
fn note(console: &str, results: &mut Results) -> Result<()> {
    let before: usize = results.values().map(Vec::len).sum();
    for line in console.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["block", who, order, what, depth, numbers @ ..] = &words[..] else { continue };
        let &[a, b, c] = numbers else { continue };
        let case = ((*order).to_owned(), (*what).to_owned(), depth.parse()?);
        let numbers = [a, b, c].map(|word| word.parse().ok());
        results.entry((case, (*who).to_owned())).or_default().push(numbers);
    }
    let after: usize = results.values().map(Vec::len).sum();
    ensure!(after > before, "a guest measured nothing:\n{console}");
    Ok(())
}

/// The median of numbers, some of which may not be told.
fn median(values: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    let mut values: Vec<u64> = values.flatten().collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

/// The driver's part of what a loop reached in the same round, in per cent: the median of the rounds, as a host that is slow in one is so
/// for both.
fn share(results: &Results, case: &Case, bare: &str) -> Option<u64> {
    let of = |who: &str| results.get(&(case.clone(), who.to_owned()));
    let rounds = of("driver")?.iter().zip(of(bare)?);
    median(rounds.map(|([driver, ..], [bare, ..])| Some((*driver)? * 100 / (*bare)?.max(1))))
}

fn print(results: &Results) {
    println!(
        "| 4 KiB | depth | Pliant | bare polling | of bare | by tasks | Linux | times Linux | notifications, interrupts for 1000 requests | Linux's interrupts |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let mut cases: Vec<&Case> = results.keys().map(|(case, _)| case).collect();
    cases.dedup();
    for case in cases {
        let of = |who: &str, at: usize| {
            let values = results.get(&(case.clone(), who.to_owned()))?;
            median(values.iter().map(|numbers| numbers[at]))
        };
        let text = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        let bare = BARE.into_iter().max_by_key(|way| of(way, 0)).unwrap_or_default();
        let (driver, linux) = (of("driver", 0), of("linux", 0));
        let ratio = |of: Option<u64>| driver.zip(of).map(|(a, b)| a as f64 / b.max(1) as f64);
        let (order, what, depth) = case;
        println!(
            "| {order} {what} | {depth} | {} | {} | {} | {} | {} | {} | {}, {} | {} |",
            text(driver),
            text(of(bare, 0)),
            share(results, case, bare).map_or_else(|| "-".into(), |percent| format!("{percent} %")),
            text(of("tasks", 0)),
            text(linux),
            ratio(linux).map_or_else(|| "-".into(), |ratio| format!("{ratio:.1}")),
            text(of("driver", 1)),
            text(of("driver", 2)),
            text(of("linux", 2)),
        );
    }
}
