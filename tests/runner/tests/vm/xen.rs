//! Under real Xen: the same kernel as dom0 and beside a Linux dom0, PV and PVH; and what `xl` does to it from outside.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use runner::qemu::{Ending, Options, Platform};
use runner::xen::Domain;

use crate::lab::{self, PATIENCE};
use crate::platforms::{says_hello, self_test, self_test_says};
use crate::row::{Row, Verdict};

/// The shapes in which Xen runs the kernel.
const SHAPES: [(&str, Platform); 4] = [
    ("xen-pv-dom0", Platform::XenPvDom0),
    ("xen-pvh-dom0", Platform::XenPvhDom0),
    ("xen-pv", Platform::XenPv),
    ("xen-pvh", Platform::XenPvh),
];
/// Memory of a guest.
const MEMORY: &str = "64M";

/// More than a PV guest's first tables map, with the guest's own tables for it beyond the builder's; and more than 4 GiB.
const MORE_MEMORY: [&str; 2] = ["640M", "5G"];

/// Something done to a running shell from outside, and how the guest ends by it.
struct Deed {
    name: &'static str,
    act: fn(&mut Domain<'_>) -> anyhow::Result<()>,
    ending: Ending,
    /// Done to a guest with two CPUs too.
    on_many_cpus: bool,
}

const DEEDS: [Deed; 9] = [
    Deed {
        name: "console_answers_what_is_typed",
        act: console_answers,
        ending: Ending::PowerOff,
        on_many_cpus: false,
    },
    Deed { name: "xl_shutdown_is_answered", act: xl_shutdown, ending: Ending::PowerOff, on_many_cpus: false },
    Deed { name: "xl_reboot_is_answered", act: xl_reboot, ending: Ending::Reset, on_many_cpus: false },
    Deed {
        name: "nonsense_in_xenstore_is_survived",
        act: nonsense,
        ending: Ending::PowerOff,
        on_many_cpus: false,
    },
    Deed {
        name: "xl_save_and_restore_keep_the_guest",
        act: save_and_restore,
        ending: Ending::PowerOff,
        on_many_cpus: true,
    },
    Deed {
        name: "a_sleeper_outlasts_two_restores",
        act: sleep_through_restores,
        ending: Ending::PowerOff,
        on_many_cpus: true,
    },
    Deed {
        name: "xl_mem_set_takes_memory_and_gives_it_back",
        act: mem_set,
        ending: Ending::PowerOff,
        on_many_cpus: false,
    },
    Deed {
        name: "a_checkpoint_changes_nothing",
        act: checkpoint,
        ending: Ending::PowerOff,
        on_many_cpus: true,
    },
    Deed {
        name: "xenstore_says_what_the_guest_can",
        act: features,
        ending: Ending::PowerOff,
        on_many_cpus: false,
    },
];

/// The kernel's tests on another than the best interface that Xen has.
struct Variant {
    name: &'static str,
    platform: Platform,
    append: &'static str,
    /// What the kernel says of it.
    says: &'static [&'static str],
}

const OLDER: &[&str] = &["event channels: 2-level ABI", "grant table: version 2"];
const VARIANTS: [Variant; 4] = [
    Variant {
        name: "xen-pv-2-level-events-grants-2",
        platform: Platform::XenPv,
        append: "xen.events=2-level xen.grants=2",
        says: OLDER,
    },
    Variant {
        name: "xen-pvh-2-level-events-grants-2",
        platform: Platform::XenPvh,
        append: "xen.events=2-level xen.grants=2",
        says: OLDER,
    },
    Variant {
        name: "xen-pvh-fifo-events-grants-1",
        platform: Platform::XenPvh,
        append: "xen.grants=1",
        says: &["event channels: FIFO ABI", "grant table: version 1"],
    },
    // What is left then is the machine's own timer.
    Variant {
        name: "xen-pvh-dom0-no-events",
        platform: Platform::XenPvhDom0,
        append: "xen.events=none",
        says: &["timer: local APIC countdown"],
    },
];

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, platform) in SHAPES {
        let options = Options { memory: MEMORY.into(), ..Options::on(platform) };
        let (hello, tests) = (options.clone(), options.clone());
        rows.push(Row::new(format!("self_test::{name}"), "self_test", move || self_test(&tests)));
        rows.push(Row::new(format!("hello::{name}"), "hello", move || says_hello(&hello)));
        if !platform.is_xen_domu() {
            for memory in MORE_MEMORY {
                let options = Options { memory: memory.into(), ..options.clone() };
                let row = format!("hello::{name}-{memory}");
                rows.push(Row::new(row, "hello", move || says_hello(&options)));
            }
            rows.push(Row::new(format!("{name}::console_answers_what_is_typed"), "shell", move || {
                dom0_console_answers(&options)
            }));
            continue;
        }
        for deed in &DEEDS {
            let options = options.clone();
            rows.push(Row::new(format!("{name}::{}", deed.name), "shell", move || {
                dealt_with(&options, deed)
            }));
        }
        let many = Options { smp: 2, ..options.clone() };
        for deed in DEEDS.iter().filter(|deed| deed.on_many_cpus) {
            let options = many.clone();
            rows.push(Row::new(format!("{name}-2-cpus::{}", deed.name), "shell", move || {
                dealt_with(&options, deed)
            }));
        }
    }
    rows.push(Row::new("xen-pv::a_stack_overflow_is_told_by_xen", "stack_overflow", stack_overflow));
    rows.extend(VARIANTS.map(|Variant { name, platform, append, says }| {
        let options = Options { memory: MEMORY.into(), append: append.into(), ..Options::on(platform) };
        Row::new(format!("self_test::{name}"), "self_test", move || self_test_says(&options, says))
    }));
    rows
}

fn dealt_with(options: &Options, deed: &'static Deed) -> anyhow::Result<Verdict> {
    let run = lab::run_beside_dom0("shell", options, |domain| {
        domain.wait_for("app main after", 0, PATIENCE)?;
        (deed.act)(domain)
    })?;
    run.ended(&deed.ending)?;
    Ok(Verdict::Kept)
}

/// Xen builds an exception's frame on the stack that it interrupts: where there is no room, it has the last word.
fn stack_overflow() -> anyhow::Result<Verdict> {
    let run = lab::run("stack_overflow", &Options::on(Platform::XenPv))?;
    run.ended(&Ending::Crashed)?.noted("domain_crash_sync called from entry.S")?;
    Ok(Verdict::Kept)
}

/// The line is Xen's, which passes on what dom0 is to have.
fn dom0_console_answers(options: &Options) -> anyhow::Result<Verdict> {
    let (mut running, line) = lab::start("shell", options)?;
    let mut at = running.wait_for(lab::PROMPT, 0, PATIENCE)?;
    for _ in 0..3 {
        running.send(b"help\r")?;
        at = running.wait_for("help", at, PATIENCE)?;
        at = running.wait_for("poweroff", at, PATIENCE)?;
    }
    running.send(b"poweroff\r")?;
    lab::finish(running, &line)?.ended(&Ending::PowerOff)?;
    Ok(Verdict::Kept)
}

/// The guest takes a command and executes it.
fn answers(domain: &mut Domain<'_>) -> anyhow::Result<()> {
    let from = domain.written();
    domain.send(b"help\r")?;
    domain.wait_for("poweroff", from, PATIENCE).map(|_| ())
}

fn power_off(domain: &mut Domain<'_>) -> anyhow::Result<()> {
    answers(domain)?;
    domain.send(b"poweroff\r")
}

fn console_answers(domain: &mut Domain<'_>) -> anyhow::Result<()> {
    for _ in 0..3 {
        answers(domain)?;
    }
    domain.send(b"poweroff\r")
}

fn xl_shutdown(domain: &mut Domain<'_>) -> anyhow::Result<()> {
    domain.xl("shutdown", "").map(|_| ())
}

fn xl_reboot(domain: &mut Domain<'_>) -> anyhow::Result<()> {
    domain.xl("reboot", "").map(|_| ())
}

/// What the guest was told before is still so; it has told the new domain's toolstack what it can, and follows it.
fn save_and_restore(domain: &mut Domain<'_>) -> anyhow::Result<()> {
    domain.send(b"log debug\r")?;
    answers(domain)?;
    domain.save_and_restore()?;
    let from = domain.written();
    domain.send(b"log\r")?;
    domain.wait_for("DEBUG", from, PATIENCE)?;
    features_are_told(domain)?;
    domain.xl("shutdown", "").map(drop)
}

/// A deadline from the first life is kept in the third, by a clock that went on from where it stood.
fn sleep_through_restores(domain: &mut Domain<'_>) -> anyhow::Result<()> {
    let from = domain.written();
    domain.send(b"sleep 4\rclock\r")?;
    for _ in 0..2 {
        domain.save_and_restore()?;
    }
    domain.wait_for("monotonic ", from, PATIENCE)?;
    power_off(domain)
}

fn checkpoint(domain: &mut Domain<'_>) -> anyhow::Result<()> {
    for _ in 0..2 {
        let from = domain.written();
        domain.checkpoint()?;
        domain.wait_for("resumed", from, PATIENCE)?;
        answers(domain)?;
    }
    domain.xl("shutdown", "").map(drop)
}

/// What the balloon is told to leave, in MiB.
const FEWER_MEGABYTES: u32 = 40;

/// Memory goes, stays away over a restore, and comes back.
fn mem_set(domain: &mut Domain<'_>) -> anyhow::Result<()> {
    let before = megabytes(domain)?;
    let free_before = free_kib(domain)?;
    domain.xl("mem-set", &FEWER_MEGABYTES.to_string())?;
    has_megabytes(domain, FEWER_MEGABYTES)?;
    let free_between = free_kib(domain)?;
    ensure!(free_between < free_before, "{free_between} KiB are free in the guest, {free_before} before");
    domain.save_and_restore()?;
    answers(domain)?;
    has_megabytes(domain, FEWER_MEGABYTES)?;
    // More than it can do without: it says so, and lives.
    let from = domain.written();
    domain.dom0("xenstore-write $home/memory/target 0")?;
    domain.wait_for("more tries", from, PATIENCE)?;
    domain.xl("mem-set", &before.to_string())?;
    has_megabytes(domain, before)?;
    let free_after = free_kib(domain)?;
    ensure!(free_after > free_between, "{free_after} KiB are free in the guest, {free_between} before");
    power_off(domain)
}

/// The guest's memory as `xl list` shows it.
fn megabytes(domain: &mut Domain<'_>) -> anyhow::Result<u32> {
    let table = domain.xl("list", "")?;
    let word = table.lines().last().and_then(|line| line.split_ascii_whitespace().nth(2)?.parse().ok());
    word.with_context(|| format!("xl list says:\n{table}"))
}

/// Waits until `xl list` shows so much.
fn has_megabytes(domain: &mut Domain<'_>, wanted: u32) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        let found = megabytes(domain)?;
        if found == wanted {
            return Ok(());
        }
        ensure!(started.elapsed() < PATIENCE / 2, "the guest has {found} MiB, expected {wanted}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// What the guest says is free.
fn free_kib(domain: &mut Domain<'_>) -> anyhow::Result<u64> {
    let from = domain.written();
    domain.send(b"mem\r")?;
    let until = domain.wait_for(" KiB free, largest block", from, PATIENCE)?;
    let text = domain.text(from, until);
    let number = text.rsplit(" KiB free,").nth(1).and_then(|text| text.rsplit(' ').next()?.parse().ok());
    number.with_context(|| format!("no free memory in {text:?}"))
}

/// Values that no toolstack would write: shell words, as `xenstore-write` takes them.
const NONSENSE: [&str; 7] = [
    "''",
    "-1",
    "18446744073709551616",
    "poweroffpoweroff",
    "\"$(echo -e '\\x01\\xff\\xfe\\x80')\"",
    "\"$(head -c 1500 /dev/zero | tr '\\0' x)\"",
    "'   0x10   '",
];

/// All of it in every node that the guest looks at, keys that nobody has, and nodes that vanish.
fn nonsense(domain: &mut Domain<'_>) -> anyhow::Result<()> {
    const NODES: [&str; 5] =
        ["control/shutdown", "control/sysrq", "memory/target", "memory/static-max", "domid"];
    let from = domain.written();
    for node in NODES {
        let writes = NONSENSE.map(|value| format!("xenstore-write $home/{node} {value};"));
        domain.dom0(&writes.concat())?;
    }
    for key in ["Z", "0", "h"] {
        domain.xl("sysrq", key)?;
    }
    // The last of each is what the guest is sure to see.
    domain.dom0("xenstore-write $home/control/shutdown frobnicate $home/memory/target 0")?;
    domain.wait_for("frobnicate", from, PATIENCE)?;
    for node in NODES {
        // What comes again is dom0's alone.
        domain.dom0(&format!("xenstore-rm $home/{node}; xenstore-write $home/{node} poweroff"))?;
    }
    power_off(domain)
}

/// Waits until the guest has told what it can.
fn features_are_told(domain: &mut Domain<'_>) -> anyhow::Result<()> {
    for feature in ["poweroff", "reboot", "suspend"] {
        let node = format!("$home/control/feature-{feature}");
        let value = domain
            .dom0(&format!("until xenstore-exists {node}; do sleep 0.1; done; xenstore-read {node}"))?;
        ensure!(value == "1", "control/feature-{feature} is {value:?}");
    }
    Ok(())
}

fn features(domain: &mut Domain<'_>) -> anyhow::Result<()> {
    features_are_told(domain)?;
    let tree = domain.dom0("xenstore-ls $home")?;
    ensure!(tree.contains("target ="), "there is no memory/target in\n{tree}");
    power_off(domain)
}
