//! Machines that lack what a PC is thought to have: each piece is missing on some host.

use runner::qemu::{Ending, Machine, Options};

use crate::lab;
use crate::row::{Row, Verdict};

/// A machine without something.
struct Bare {
    /// What is missing, as part of the row's name.
    without: &'static str,
    machine: Machine,
    /// More for the QEMU line.
    options: &'static [(&'static str, &'static str)],
    /// What the kernel must say of it, as parts of one line.
    says: &'static [&'static str],
}

const MACHINES: [Bare; 5] = [
    Bare {
        without: "hpet",
        machine: Machine::Q35,
        options: &[("-machine", "hpet=off")],
        says: &["TSC", "by PIT"],
    },
    Bare {
        without: "acpi",
        machine: Machine::Pc,
        options: &[("-machine", "acpi=off")],
        says: &["no root pointer", "going on"],
    },
    Bare {
        without: "acpi_on_microvm",
        machine: Machine::Microvm,
        options: &[("-machine", "acpi=off")],
        says: &["no root pointer", "going on"],
    },
    Bare {
        without: "pit_and_cmos",
        machine: Machine::Microvm,
        options: &[("-machine", "pit=off,rtc=off")],
        says: &["WARN", "if the local APIC's timer runs at 1 GHz"],
    },
    Bare { without: "keyboard", machine: Machine::Q35, options: &[("-machine", "i8042=off")], says: &[] },
];

pub(crate) fn rows() -> Vec<Row> {
    let row = |bare: &'static Bare| {
        Row::new(format!("bare::boots_without_{}", bare.without), "hello", || boots(bare))
    };
    MACHINES.iter().map(row).collect()
}

fn boots(bare: &Bare) -> anyhow::Result<Verdict> {
    let options = Options { machine: bare.machine, append: "log=debug".into(), ..Options::default() };
    let (running, line) = lab::start_with("hello", &options, |line| {
        for (name, value) in bare.options {
            line.option(name, value);
        }
    })?;
    let run = lab::finish(running, &line)?;
    run.ended(&Ending::Status(0))?.says(&["Hello"])?.says(bare.says)?;
    Ok(Verdict::Kept)
}
