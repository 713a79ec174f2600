//! Under real Xen: the same kernel as dom0 and beside a Linux dom0, PV and PVH; and what `xl` does to it from outside.

use anyhow::ensure;
use runner::qemu::{Ending, Options, Platform};
use runner::xen::Domain;

use crate::lab::{self, PATIENCE};
use crate::platforms::{says_hello, self_test};
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

/// Something done to a running shell from outside, and how the guest ends by it.
struct Deed {
    name: &'static str,
    act: fn(&mut Domain<'_>) -> anyhow::Result<()>,
    ending: Ending,
}

const DEEDS: [Deed; 6] = [
    Deed { name: "console_answers_what_is_typed", act: console_answers, ending: Ending::PowerOff },
    Deed { name: "xl_shutdown_is_answered", act: xl_shutdown, ending: Ending::PowerOff },
    Deed { name: "xl_reboot_is_answered", act: xl_reboot, ending: Ending::Reset },
    Deed { name: "nonsense_in_xenstore_is_survived", act: nonsense, ending: Ending::PowerOff },
    Deed { name: "xl_save_and_restore_keep_the_guest", act: save_and_restore, ending: Ending::PowerOff },
    Deed { name: "xenstore_says_what_the_guest_can", act: features, ending: Ending::PowerOff },
];

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, platform) in SHAPES {
        let options = Options { memory: MEMORY.into(), ..Options::on(platform) };
        let (hello, tests) = (options.clone(), options.clone());
        rows.push(Row::new(format!("self_test::{name}"), "self_test", move || self_test(&tests)));
        rows.push(Row::new(format!("hello::{name}"), "hello", move || says_hello(&hello)));
        if !platform.is_xen_domu() {
            continue;
        }
        for deed in &DEEDS {
            let options = options.clone();
            rows.push(Row::new(format!("{name}::{}", deed.name), "shell", move || {
                dealt_with(&options, deed)
            }));
        }
    }
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

fn save_and_restore(domain: &mut Domain<'_>) -> anyhow::Result<()> {
    domain.save_and_restore()?;
    power_off(domain)
}

/// Values that no toolstack would write, and a request the guest does not know.
fn nonsense(domain: &mut Domain<'_>) -> anyhow::Result<()> {
    let from = domain.written();
    for node in
        ["control/shutdown frobnicate", "memory/target minus-one", "memory/target 0", "memory/target ''"]
    {
        domain.dom0(&format!("xenstore-write $home/{node}"))?;
    }
    domain.xl("sysrq", "Z")?;
    domain.wait_for("frobnicate", from, PATIENCE)?;
    power_off(domain)
}

fn features(domain: &mut Domain<'_>) -> anyhow::Result<()> {
    for feature in ["poweroff", "reboot", "suspend"] {
        let value = domain.dom0(&format!("xenstore-read $home/control/feature-{feature}"))?;
        ensure!(value == "1", "control/feature-{feature} is {value:?}");
    }
    let tree = domain.dom0("xenstore-ls $home")?;
    ensure!(tree.contains("target ="), "there is no memory/target in\n{tree}");
    power_off(domain)
}
