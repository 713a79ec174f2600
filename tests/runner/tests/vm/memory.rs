//! What the host gets back of a guest's memory, measured at the QEMU that runs it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use runner::qemu::{Ending, Options, Running};
use serde_json::json;

use crate::lab;
use crate::matrix::{Offer, modern_mmio};
use crate::row::{Row, Verdict};

const MIB: u64 = 1 << 20;

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::new("balloon::free_memory_goes_back_to_the_host", "devices", || {
            memory_goes_back(",free-page-reporting=on", |_| Ok(()))
        }),
        Row::new("balloon::memory_in_the_balloon_goes_back_to_the_host", "devices", || {
            memory_goes_back("", |running| running.ask("balloon", &json!({ "value": 64 * MIB })).map(|_| ()))
        }),
        Row::new("balloon::it_gives_memory_back_before_the_guest_runs_out", "devices", it_deflates_on_oom),
        Row::new("balloon::the_guest_tells_the_host_what_is_free", "devices", statistics_are_told),
    ]
}

/// Memory that the guest has written to and freed makes QEMU smaller again, by `means`.
fn memory_goes_back(device: &str, means: impl FnOnce(&Running) -> Result<()>) -> Result<Verdict> {
    let (mut running, _) = start("app.want=touch app.mib=160", device)?;
    let from = running.wait_for("touch: begin", 0, lab::PATIENCE)?;
    let before = running.resident_bytes()?;
    let from = running.wait_for("blocks of 4 MiB written", from, lab::PATIENCE)?;
    let most = running.resident_bytes()?;
    running.wait_for("touch: freed", from, lab::PATIENCE)?;
    means(&running)?;
    let after = settle(&mut running, most - 100 * MIB)?;
    println!(
        "balloon: QEMU has {} MiB before, {} with memory in use, {} after",
        before / MIB,
        most / MIB,
        after / MIB
    );
    ensure!(most >= before + 140 * MIB, "writing 160 MiB took QEMU from {before} to {most} bytes only");
    ensure!(after <= most - 100 * MIB, "QEMU still has {after} bytes of {most}");
    Ok(Verdict::Kept)
}

/// What QEMU has once it is below `limit`, or when the time is over.
fn settle(running: &mut Running, limit: u64) -> Result<u64> {
    let deadline = Instant::now() + lab::PATIENCE / 2;
    loop {
        let now = running.resident_bytes()?;
        if now <= limit || Instant::now() > deadline {
            return Ok(now);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn start(append: &str, device: &str) -> Result<(Running, runner::qemu::Line)> {
    lab::start_with("devices", &Options { ..Offer::ALL.options(append) }, |line| {
        modern_mmio(line);
        line.option("-device", format!("{},id=balloon0{device}", Offer::ALL.device("balloon")));
    })
}

fn it_deflates_on_oom() -> Result<Verdict> {
    let (running, line) = start("app.want=hog", ",deflate-on-oom=on")?;
    let met = running
        .wait_for("balloon: ready", 0, lab::PATIENCE)
        .and_then(|_| running.ask("balloon", &json!({ "value": 100 * MIB })).map(|_| ()));
    let run = lab::finish(running, &line)?;
    met?;
    run.ended(&Ending::Status(0))?.says(&["hog: ", "are left in the balloon"])?;
    Ok(Verdict::Kept)
}

fn statistics_are_told() -> Result<Verdict> {
    let (running, _) = start("app.want=balloon", "")?;
    running.wait_for("balloon: ready", 0, lab::PATIENCE)?;
    let path = "/machine/peripheral/balloon0";
    let polling = json!({ "path": path, "property": "guest-stats-polling-interval", "value": 1 });
    running.ask("qom-set", &polling)?;
    let deadline = Instant::now() + lab::PATIENCE / 2;
    loop {
        let answer = running.ask("qom-get", &json!({ "path": path, "property": "guest-stats" }))?;
        let statistic = |name: &str| answer["stats"][name].as_i64().unwrap_or(-1);
        let (free, total) = (statistic("stat-free-memory"), statistic("stat-total-memory"));
        if answer["last-update"].as_i64() > Some(0) && free > 0 {
            let all = 256 * MIB as i64;
            ensure!((all / 2..=all).contains(&total) && free <= total, "{free} of {total} bytes are free");
            return Ok(Verdict::Kept);
        }
        ensure!(Instant::now() < deadline, "the guest tells nothing: {answer}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
