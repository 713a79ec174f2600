//! `boot-chart`: where the time of a start goes, stage by stage, as a chart, and how many exits each stage takes on KVM.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use super::boot_wall;
use super::probe::{self, Boot};
use crate::guest::elf::function_names;
use crate::guest::{self, Guest, Profile};
use crate::nested::{self, Exits};
use crate::qemu::{Accel, Machine, Options, Platform, Tee, megabytes};
use crate::toolchain::Toolchain;

/// Columns of the longest bar.
const WIDTH: usize = 50;
/// A guest whose exits are counted has ended by then.
const PATIENCE: Duration = Duration::from_secs(120);

/// What to start, and how often.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// The way in
    #[arg(long, value_enum, default_value = "pvh")]
    pub on: Platform,
    /// The machine [default: q35; microvm on KVM]
    #[arg(long, value_enum)]
    pub machine: Option<Machine>,
    /// Who executes the guest's instructions [default: tcg; kvm on KVM]
    #[arg(long, value_enum)]
    pub accel: Option<Accel>,
    /// Starts, of which the median counts
    #[arg(long, default_value_t = 5)]
    pub times: usize,
    /// More words for the command line, which is `log=error` else: each character on the console is work
    #[arg(long, default_value = "log=error", allow_hyphen_values = true)]
    pub append: String,
    /// Which functions take the exits (with `--on kvm-nested`)
    #[arg(long)]
    pub callers: bool,
}

/// Starts the probe several times, and `hello` for the exits and for the whole.
///
/// # Errors
/// A guest does not build, or does not run here.
pub fn run(arguments: &Arguments) -> Result<u8> {
    let toolchain = Toolchain::find()?;
    let boot = Boot::new(&toolchain);
    let options = Options {
        machine: arguments.machine.unwrap_or(arguments.on.machine()),
        accel: arguments.accel.unwrap_or(arguments.on.accel()),
        append: arguments.append.clone(),
        ..Options::on(arguments.on)
    };
    let guest = guest::build(&toolchain, "probe", Profile::Release)?;
    let hello = guest::build(&toolchain, "hello", Profile::Release)?;
    let mut starts = Vec::new();
    for _ in 0..arguments.times.max(1) {
        let (_, document) = probe::read(&boot.run(&guest, &options)?.console)?;
        let stages = document["boot"]["stages"].as_array().context("the document has no stages")?.clone();
        let ends = stages
            .iter()
            .filter_map(|stage| Some((stage["name"].as_str()?.to_owned(), stage["end_us"].as_u64()?)));
        starts.push(ends.collect::<Vec<_>>());
    }
    print!("{}", chart(&starts));
    if options.platform == Platform::KvmNested {
        let names: Vec<String> = starts.swap_remove(0).into_iter().map(|(name, _)| name).collect();
        print!("{}", exits(&hello, &options, &names, arguments.callers)?);
    } else if matches!(options.platform, Platform::Pvh | Platform::Kvm) {
        let [whole, bare] = boot_wall::measure(&hello, &options, arguments.times.max(1))?;
        println!("{}", Wall("from the start of the machine to the end of hello", whole));
        println!("{}", Wall("of a guest that ends at once", bare));
    }
    Ok(0)
}

/// The exits of one start of `hello`, a line a stage; behind its main comes its end.
fn exits(hello: &Guest, options: &Options, names: &[String], callers: bool) -> Result<String> {
    let mut host = nested::Host::start(&nested::Rig::get()?, megabytes(&options.memory)?, Tee::Keep)?;
    let finished = host.create_staged(&hello.elf, options)?.wait(Some(PATIENCE))?;
    let linked = std::fs::read(&hello.debug)?;
    Ok(table(
        &Exits::read(&finished.said),
        names,
        callers.then(|| function_names(&linked)).transpose()?.as_deref(),
    ))
}

fn table(exits: &Exits, names: &[String], symbols: Option<&[guest::symbols::Symbol]>) -> String {
    let mut text = format!("exits of hello until main\n{:<14}{:>6}\n", "stage", "exits");
    // The first two are shown as one: only the kernel can mark an end.
    for (stage, name) in (1..).zip(names).skip(1) {
        let reasons = exits.of(stage);
        let all: u64 = reasons.values().sum();
        let listed: Vec<String> =
            reasons.iter().map(|(reason, number)| format!("{reason} {number}")).collect();
        text += &format!("{name:<14}{all:>6}  {}\n", listed.join(", "));
        for (number, why, who) in
            exits.callers(stage, symbols.unwrap_or_default()).iter().filter(|_| symbols.is_some())
        {
            text += &format!("{:<20}{number:>6} {why:<12} {who}\n", "");
        }
    }
    text + &format!("{:<14}{:>6}\n", "all", exits.all())
}

/// A line a stage: its own time, the time until its end, a bar; the median start counts. Then the least that the stage took in any
/// start, which is nearest to the truth where others use the machine.
fn chart(starts: &[Vec<(String, u64)>]) -> String {
    let total = |start: &Vec<(String, u64)>| start.last().map_or(0, |(_, end)| *end);
    let takes = |start: &[(String, u64)], index: usize| {
        let end = |index: usize| start.get(index).map_or(0, |(_, end)| *end);
        end(index).saturating_sub(index.checked_sub(1).map_or(0, end))
    };
    let mut starts: Vec<_> = starts.iter().collect();
    starts.sort_by_key(|start| total(start));
    let Some(median) = starts.get(starts.len() / 2) else { return String::new() };
    let all = total(median).max(1);
    let column = |us: u64| (us as usize * WIDTH) / all as usize;
    let mut text = format!("{:<14}{:>10} {:>10} {:>10}\n", "stage", "least us", "takes us", "until us");
    let mut least_of_all = 0;
    for (index, (name, end)) in median.iter().enumerate() {
        let own = takes(median, index);
        let least = starts.iter().map(|start| takes(start, index)).min().unwrap_or_default();
        least_of_all += least;
        let before = end.saturating_sub(own);
        let bar = "#".repeat((column(*end) - column(before)).max(1));
        text += &format!("{name:<14}{least:>10} {own:>10} {end:>10}  {}{bar}\n", " ".repeat(column(before)));
    }
    let (least, most) =
        (starts.first().map_or(0, |start| total(start)), starts.last().map_or(0, |start| total(start)));
    text + &format!(
        "entry to main in {:?}, of {least} to {most} us; the least of each stage make {least_of_all} us\n",
        Duration::from_micros(all)
    )
}

/// A spread of times, in words.
struct Wall(&'static str, boot_wall::Spread);

impl std::fmt::Display for Wall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [least, median, most] = self.1.map(|time| time.as_secs_f64());
        write!(f, "{median:.3} s {} ({least:.3} to {most:.3})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<Vec<&str>> {
        text.lines().map(|line| line.split_whitespace().collect()).collect()
    }

    #[test]
    fn the_median_start_is_shown_stage_by_stage() {
        let start = |scale: u64| vec![("memory".to_owned(), 300 * scale), ("time".to_owned(), 400 * scale)];
        let chart = chart(&[start(9), start(1), start(2)]);
        let words = words(&chart);
        assert_eq!(words[1][..4], ["memory", "300", "600", "600"]);
        assert_eq!(words[2][..4], ["time", "100", "200", "800"]);
        assert!(words[1][4].len() > words[2][4].len());
        assert!(
            chart.ends_with(
                "entry to main in 800µs, of 400 to 3600 us; the least of each stage make 400 us\n"
            ),
            "{chart}"
        );
    }

    #[test]
    fn exits_are_shown_stage_by_stage() {
        let exits = Exits::read("exit 0x2 io 0x200001 3\nexit 0x2 msr 0x200002 4\nexit 0x3 io 0x200001 1\n");
        let names = ["entry", "operations", "CPU"].map(str::to_owned);
        let table = table(&exits, &names, None);
        let words = words(&table);
        assert_eq!(words[2], ["operations", "7", "io", "3,", "msr", "4"]);
        assert_eq!(words[3], ["CPU", "1", "io", "1"]);
        assert_eq!(words[4], ["all", "8"]);
    }
}
