//! The command line of the host tool. Without arguments: boot the shell.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use runner::bench;
use runner::command::{boot_chart, clippy, doctor, gdb, image, matrix, probe, run, size, test};
use runner::qemu::terminal;

/// Builds Pliant guests and runs them.
#[derive(Parser)]
#[command(name = "pliant", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Build a guest and boot it, its console on this terminal (the default: the shell, by PVH)
    Run(run::Arguments),
    /// Build a guest and write a file to boot elsewhere
    Image(image::Arguments),
    /// Run all tests, or those whose name contains FILTER
    Test(test::Arguments),
    /// Boot a guest under gdb, stopped before its first line
    Gdb(gdb::Arguments),
    /// Try every virtio device over every transport with every ring, and print what it took
    Matrix,
    /// Measure a virtio disk under Pliant, by a bare loop, and under Linux in the same QEMU
    BenchBlock(bench::Arguments),
    /// Measure threads, wake-ups, locks, timers and memory, beside Linux, and what an idle guest costs
    BenchThreads(bench::ThreadsArguments),
    /// Show where the time of a start goes
    BootChart(boot_chart::Arguments),
    /// Measure a network card: requests, round trips, bulk bytes, beside Linux
    BenchNet(bench::NetArguments),
    /// Tell what a host offers to its guests
    Probe(probe::Arguments),
    /// Show what a guest's ELF is made of
    Size(size::Arguments),
    /// Tell what is found on this machine and what is missing
    Doctor,
    /// Lint the guest crates for the guest target
    Clippy(clippy::Arguments),
}

fn main() -> ExitCode {
    terminal::restore_on_signals();
    let arguments = Arguments::parse();
    let result = match arguments.command {
        None => run::run(&run::Arguments::default()),
        Some(Command::Run(arguments)) => run::run(&arguments),
        Some(Command::Image(arguments)) => image::run(&arguments),
        Some(Command::Test(arguments)) => test::run(&arguments),
        Some(Command::Gdb(arguments)) => gdb::run(&arguments),
        Some(Command::BootChart(arguments)) => boot_chart::run(&arguments),
        Some(Command::Probe(arguments)) => probe::run(&arguments),
        Some(Command::Size(arguments)) => size::run(&arguments),
        Some(Command::BenchBlock(arguments)) => bench::run(&arguments),
        Some(Command::BenchNet(arguments)) => bench::run_net(&arguments),
        Some(Command::BenchThreads(arguments)) => bench::run_threads(&arguments),
        Some(Command::Matrix) => matrix::run(),
        Some(Command::Doctor) => doctor::run(),
        Some(Command::Clippy(arguments)) => clippy::run(&arguments),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            terminal::restore();
            eprintln!("pliant: {error:#}");
            ExitCode::from(125)
        }
    }
}
