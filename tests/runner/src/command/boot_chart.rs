//! `boot-chart`: where the time of a start goes, stage by stage, as a chart; on nested KVM the exits too.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

use super::probe::{self, Boot};
use crate::guest::{self, Profile};
use crate::nested::Counts;
use crate::qemu::{Accel, Machine, Options, Platform};
use crate::toolchain::Toolchain;

/// Columns of the longest bar.
const WIDTH: usize = 50;

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
}

/// Starts the probe several times, and `hello` once more for the whole.
///
/// # Errors
/// A guest does not build, or does not run here.
pub fn run(arguments: &Arguments) -> Result<u8> {
    let toolchain = Toolchain::find()?;
    let boot = Boot::new(&toolchain);
    let options = Options {
        machine: arguments.machine.unwrap_or(arguments.on.machine()),
        accel: arguments.accel.unwrap_or(arguments.on.accel()),
        // Each character on the console is an exit.
        append: "log=error".into(),
        ..Options::on(arguments.on)
    };
    let guest = guest::build(&toolchain, "probe", Profile::Release)?;
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
    let hello = guest::build(&toolchain, "hello", Profile::Release)?;
    let mut wholes = Vec::new();
    for _ in 0..arguments.times.max(1) {
        let finished = boot.run(&hello, &options)?;
        wholes.push(finished.elapsed);
        let exits = Counts::read(&finished.said).all("kvm_exit");
        if exits != 0 && wholes.len() == 1 {
            println!("{exits} exits from the start of hello to its end");
        }
    }
    wholes.sort_unstable();
    println!(
        "{:.3} s from the start of the machine to the end of hello",
        wholes[wholes.len() / 2].as_secs_f64()
    );
    Ok(0)
}

/// A line a stage: its own time, the time until its end, a bar. The median start counts.
fn chart(starts: &[Vec<(String, u64)>]) -> String {
    let total = |start: &Vec<(String, u64)>| start.last().map_or(0, |(_, end)| *end);
    let mut starts: Vec<_> = starts.iter().collect();
    starts.sort_by_key(|start| total(start));
    let Some(median) = starts.get(starts.len() / 2) else { return String::new() };
    let all = total(median).max(1);
    let mut before = 0;
    let mut text = format!("{:<14}{:>10} {:>10}\n", "stage", "takes us", "until us");
    for (name, end) in median.iter() {
        let takes = end.saturating_sub(before);
        let column = |us: u64| (us as usize * WIDTH) / all as usize;
        let bar = "#".repeat((column(*end) - column(before)).max(1));
        text += &format!("{name:<14}{takes:>10} {end:>10}  {}{bar}\n", " ".repeat(column(before)));
        before = *end;
    }
    let spread =
        starts.first().map_or(0, |start| total(start))..=starts.last().map_or(0, |start| total(start));
    text + &format!("entry to main in {} of {} to {} us\n", Micros(all), spread.start(), spread.end())
}

/// Microseconds, as a duration is shown.
struct Micros(u64);

impl std::fmt::Display for Micros {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", Duration::from_micros(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_start_is_shown_stage_by_stage() {
        let start = |scale: u64| vec![("memory".to_owned(), 300 * scale), ("time".to_owned(), 400 * scale)];
        let chart = chart(&[start(9), start(1), start(2)]);
        let words: Vec<Vec<&str>> = chart.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[1][..3], ["memory", "600", "600"]);
        assert_eq!(words[2][..3], ["time", "200", "800"]);
        assert!(words[1][3].len() > words[2][3].len());
        assert!(chart.ends_with("entry to main in 800µs of 400 to 3600 us\n"), "{chart}");
    }
}
