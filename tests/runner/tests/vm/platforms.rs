//! The same kernel through every door: its own tests, and `hello`.

use runner::qemu::{Ending, Machine, Options, Platform};

use crate::lab;
use crate::row::{Row, Verdict};

/// Every way in that is promised.
const PLATFORMS: [(&str, Platform, Machine); 11] = [
    ("pvh-q35", Platform::Pvh, Machine::Q35),
    ("pvh-pc", Platform::Pvh, Machine::Pc),
    ("pvh-microvm", Platform::Pvh, Machine::Microvm),
    ("bios-q35", Platform::Bios, Machine::Q35),
    ("bios-pc", Platform::Bios, Machine::Pc),
    ("uefi-q35", Platform::Uefi, Machine::Q35),
    ("uefi-pc", Platform::Uefi, Machine::Pc),
    ("multiboot2-q35", Platform::Multiboot2, Machine::Q35),
    ("multiboot2-pc", Platform::Multiboot2, Machine::Pc),
    ("multiboot2-uefi-q35", Platform::Multiboot2Uefi, Machine::Q35),
    ("multiboot2-uefi-pc", Platform::Multiboot2Uefi, Machine::Pc),
];

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, platform, machine) in PLATFORMS {
        let disk = matches!(platform, Platform::Bios | Platform::Uefi);
        let options = Options { machine, ..Options::on(platform) };
        let hello = options.clone();
        rows.push(
            Row::new(format!("self_test::{name}"), "self_test", move || self_test(&options))
                .with_disk_image(disk),
        );
        rows.push(
            Row::new(format!("hello::{name}"), "hello", move || says_hello(&hello)).with_disk_image(disk),
        );
    }
    rows
}

/// All tests that are compiled into the kernel pass.
pub(crate) fn self_test(options: &Options) -> anyhow::Result<Verdict> {
    self_test_says(options, &[])
}

/// As [`self_test`], and the console has each of `says`.
pub(crate) fn self_test_says(options: &Options, says: &[&str]) -> anyhow::Result<Verdict> {
    let run = lab::run("self_test", options)?;
    run.ended(&Ending::Status(0))?;
    let (passed, failed, _) = run.summary()?;
    let lines =
        run.console().lines().filter(|line| line.starts_with("test ") && line.contains(" ... ok")).count();
    anyhow::ensure!(failed == 0 && passed > 0, run.failure("the summary is not that of a success"));
    anyhow::ensure!(
        lines == passed as usize,
        run.failure("the summary counts other tests than there are lines")
    );
    for line in says {
        run.says(&[line])?;
    }
    Ok(Verdict::Kept)
}

/// The app's main is reached, greets, and its end is the machine's.
pub(crate) fn says_hello(options: &Options) -> anyhow::Result<Verdict> {
    let run = lab::run("hello", options)?;
    run.ended(&Ending::Status(0))?.says(&["app main after"])?.says(&["Hello"])?;
    Ok(Verdict::Kept)
}
