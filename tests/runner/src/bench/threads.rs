//! `bench-threads`: what switches, wake-ups, locks, timers, memory and calls between CPUs cost, under Pliant and under Linux,
//! on as many CPUs, in the same QEMU; and what a guest costs that does nothing.
//!
//! The guest is `bench`, Linux executes `linux_threads.c`; both print a line for each operation. In each round Pliant is
//! booted and measured, then Linux is, which has booted once and is idle meanwhile.

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;

use super::rig;
use crate::guest::{self, Guest, Profile};
use crate::image;
use crate::linux::Linux;
use crate::qemu::{Ending, Options, Running, Scratch, Serial, Tee};
use crate::toolchain::Toolchain;

const MEMORY: &str = "256M";
const PATIENCE: Duration = Duration::from_secs(60);
/// Idleness that is measured, after a while for whatever the start left to be done.
const IDLE: Duration = Duration::from_secs(5);
const SETTLE: Duration = Duration::from_secs(1);

/// How it is measured.
#[derive(Args, Clone, Debug)]
pub struct ThreadsArguments {
    /// Rounds; the medians are shown
    #[arg(long, default_value_t = 5)]
    pub rounds: u32,
    /// Numbers of CPUs
    #[arg(long, value_delimiter = ',', default_value = "1,2,4")]
    pub cpus: Vec<u32>,
    /// Leave Linux out
    #[arg(long)]
    pub alone: bool,
    /// Measure idleness only
    #[arg(long)]
    pub idle: bool,
}

/// One operation, as a guest measured it: the median in nanoseconds, interrupts and IPIs for each.
#[derive(Clone, Debug, PartialEq)]
struct Measured {
    name: String,
    ns: f64,
    interrupts: f64,
    ipis: f64,
}

/// Runs it and prints the tables.
///
/// # Errors
/// A machine does not run, or there is no C compiler.
pub fn run_threads(arguments: &ThreadsArguments) -> Result<u8> {
    let toolchain = Toolchain::find()?;
    let guest = guest::build(&toolchain, "bench", Profile::Release)?;
    let scratch = Scratch::new()?;
    let program = match arguments.alone {
        true => None,
        false => Some(rig::program(&scratch.0, include_str!("linux_threads.c"))?),
    };
    let mut idle = Vec::new();
    for &cpus in &arguments.cpus {
        let mut linux = program.as_ref().map(|program| boot(program, cpus)).transpose()?;
        if !arguments.idle {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for round in 0..arguments.rounds {
                eprintln!("{cpus} CPU(s), round {} of {}", round + 1, arguments.rounds);
                ours.extend(pliant(&toolchain, &guest, cpus)?);
                if let Some(linux) = &mut linux {
                    theirs.extend(parse(&linux.run(&format!("{} {cpus}", rig::PROGRAM))?));
                }
            }
            print(cpus, &ours, &theirs);
        }
        let theirs = linux.as_ref().map(|linux| host_time(linux.running())).transpose()?;
        idle.push((cpus, idle_pliant(&toolchain, &guest, cpus)?, theirs));
    }
    println!("\n| idle, CPUs | Pliant, µs of host time a second | Linux |\n|---|---|---|");
    for (cpus, ours, theirs) in idle {
        println!("| {cpus} | {ours:.0} | {} |", or_dash(theirs.map(|theirs| format!("{theirs:.0}"))));
    }
    Ok(0)
}

fn boot(program: &[u8], cpus: u32) -> Result<Linux> {
    let mut linux = rig::linux(MEMORY, cpus, |_| ())?;
    rig::install(&mut linux, program)?;
    Ok(linux)
}

fn start(toolchain: &Toolchain, guest: &Guest, cpus: u32, words: &str) -> Result<Running> {
    let append = format!("{words} log=warn");
    let options = Options { smp: cpus, memory: MEMORY.into(), append, ..Options::default() };
    Running::start(&image::line(toolchain, guest, &options, Serial::Plain)?, false, Tee::Keep)
}

fn pliant(toolchain: &Toolchain, guest: &Guest, cpus: u32) -> Result<Vec<Measured>> {
    let finished = start(toolchain, guest, cpus, "app.threads")?.wait(Some(PATIENCE))?;
    let (ending, console) = (finished.ending, finished.console);
    ensure!(ending == Ending::Status(0), "the guest ended with {ending}:\n{console}");
    Ok(parse(&console))
}

fn idle_pliant(toolchain: &Toolchain, guest: &Guest, cpus: u32) -> Result<f64> {
    let seconds = (2 * SETTLE + IDLE).as_secs();
    let running = start(toolchain, guest, cpus, &format!("app.idle={seconds}"))?;
    running.wait_for("idle", 0, PATIENCE)?;
    let spent = host_time(&running)?;
    ensure!(!running.console().contains("idle no more"), "the guest was idle for too short a time");
    Ok(spent)
}

/// Microseconds of the host's CPUs that a QEMU takes in a second, all its threads together.
fn host_time(running: &Running) -> Result<f64> {
    std::thread::sleep(SETTLE);
    let before = running.host_time()?;
    std::thread::sleep(IDLE);
    Ok((running.host_time()? - before).as_secs_f64() * 1e6 / IDLE.as_secs_f64())
}

/// The lines `NAME: LEAST (MEDIAN) ns, CYCLES cycles, INTERRUPTS interrupts, IPIS IPIs` of what a guest wrote.
fn parse(console: &str) -> Vec<Measured> {
    let measured = |line: &str| {
        let (name, rest) = line.rsplit_once(": ")?;
        let words: Vec<&str> = rest.split_whitespace().collect();
        let [_, median, "ns,", _, "cycles,", interrupts, "interrupts,", ipis, "IPIs"] = words[..] else {
            return None;
        };
        let ns = median.trim_matches(['(', ')']).parse().ok()?;
        Some(Measured {
            name: name.into(),
            ns,
            interrupts: interrupts.parse().ok()?,
            ipis: ipis.parse().ok()?,
        })
    };
    console.lines().filter_map(measured).collect()
}

/// The medians of those with this name.
fn medians(all: &[Measured], name: &str) -> Option<[f64; 3]> {
    let of = |what: fn(&Measured) -> f64| {
        let mut values: Vec<f64> = all.iter().filter(|one| one.name == name).map(what).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    Some([of(|one| one.ns)?, of(|one| one.interrupts)?, of(|one| one.ipis)?])
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".into())
}

fn print(cpus: u32, ours: &[Measured], theirs: &[Measured]) {
    println!("\n| {cpus} CPU(s) | Pliant, ns | Linux, ns | times Linux | interrupts, IPIs | Linux's |");
    println!("|---|---|---|---|---|---|");
    let mut names: Vec<&str> = Vec::new();
    for Measured { name, .. } in ours.iter().chain(theirs) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    for name in names {
        let (ours, theirs) = (medians(ours, name), medians(theirs, name));
        let ns = |of: Option<[f64; 3]>| or_dash(of.map(|[ns, ..]| format!("{ns:.0}")));
        let counts = |of: Option<[f64; 3]>| or_dash(of.map(|[_, all, ipis]| format!("{all:.2}, {ipis:.2}")));
        let ratio =
            ours.zip(theirs).map(|([ours, ..], [theirs, ..])| format!("{:.1}", theirs / ours.max(1.0)));
        println!(
            "| {name} | {} | {} | {} | {} | {} |",
            ns(ours),
            ns(theirs),
            or_dash(ratio),
            counts(ours),
            counts(theirs)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_as_both_guests_print_it() {
        let line = "timer of 1 ms, late by: 812 (1034) ns, 0 cycles, 1.02 interrupts, 0.00 IPIs";
        let name = "timer of 1 ms, late by".to_owned();
        let expected = Measured { name, ns: 1034.0, interrupts: 1.02, ipis: 0.0 };
        assert_eq!(parse(&format!("noise: 7\n{line}\n")), [expected]);
    }
}
