//! Disks that dom0 serves: what a domU wrote is looked at in dom0, byte by byte; devices come and go while it runs.

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use runner::qemu::{Ending, Options, Platform, Tee};
use runner::xen::{Config, Dom0, Domain, Rig};

use crate::lab::{self, PATIENCE, Run};
use crate::row::{Row, Verdict};

/// The guest changes the disk in blocks of this many bytes.
const BLOCK_BYTES: usize = 4096;
const DISK_BYTES: usize = 256 << 10;
/// In dom0.
const IMAGE: &str = "/guest/disk.img";
const LOOP: &str = "/dev/loop0";

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, platform) in [("xen-pv", Platform::XenPv), ("xen-pvh", Platform::XenPvh)] {
        let mut row = |promise: &str, body: fn(Options) -> Result<Verdict>| {
            let options = Options { memory: "64M".into(), ..Options::on(platform) };
            rows.push(Row::new(format!("{name}::{promise}"), "devices", move || body(options)));
        };
        row("a_disk_is_rewritten", disk_is_rewritten);
        row("a_read_only_disk_is_left_alone", read_only_disk);
        row("a_disk_is_the_same_after_save_and_restore", restored);
        row("a_disk_outlasts_a_restore_by_2_level_events_and_grants_2", restored_otherwise);
        row("devices_that_make_no_sense_are_refused", senseless);
        row("a_disk_comes_and_goes_while_the_guest_runs", hot_plug);
        rows.push(Row::new(format!("{name}::the_probe_tells_what_a_disk_offers"), "probe", move || {
            let options = Options { memory: "64M".into(), ..Options::on(platform) };
            let (run, _) = run(&options, "probe", Some("w"), |_| Ok(()))?;
            crate::probe::tells_of_the_disk(&run).map(|()| Verdict::Kept)
        }));
    }
    rows
}

/// Bytes in which no two blocks are alike (the linear congruence of Numerical Recipes).
fn content() -> Vec<u8> {
    let mut state = 1u32;
    let step = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(step).take(DISK_BYTES).collect()
}

/// What guest `disk` makes of it: every byte changed by its block.
fn rewritten() -> Vec<u8> {
    let change = |block: usize| (block as u8).wrapping_mul(31).wrapping_add(17);
    content().iter().enumerate().map(|(at, byte)| byte ^ change(at / BLOCK_BYTES)).collect()
}

/// Runs a guest beside a dom0 with the image behind a loop device; what the image holds afterwards.
fn run(
    options: &Options,
    guest: &str,
    disk: Option<&str>,
    meanwhile: impl FnOnce(&mut Domain<'_>) -> Result<()>,
) -> Result<(Run, Vec<u8>)> {
    let mut config = Config::new(&lab::guest(guest)?, options)?;
    config.more.extend(disk.map(|mode| format!("disk=[\"phy:{LOOP},xvda,{mode}\"]")));
    let mut dom0 = Dom0::start(&Rig::get()?, config.megabytes, Tee::Keep)?;
    dom0.put(&content(), IMAGE)?;
    dom0.run(&format!("losetup {LOOP} {IMAGE}"))?;
    let mut domain = dom0.create(&config)?;
    let met = meanwhile(&mut domain);
    let finished = domain.wait(Some(PATIENCE))?;
    let run = Run::beside(&dom0, finished);
    met.map_err(|error| anyhow::anyhow!(run.failure(&format!("{error:#}"))))?;
    let image = dom0.run(&format!("sync; base64 {IMAGE}"))?;
    let image = STANDARD.decode(image.replace('\n', "")).context("the image is no base64")?;
    Ok((run, image))
}

fn holds(run: &Run, image: &[u8], expected: &[u8]) -> Result<()> {
    let wrong = image.iter().zip(expected).position(|(found, expected)| found != expected);
    ensure!(
        image.len() == expected.len() && wrong.is_none(),
        run.failure(&format!("the image has {} bytes, the first wrong one at {wrong:?}", image.len()))
    );
    Ok(())
}

fn disk_is_rewritten(options: Options) -> Result<Verdict> {
    let (run, image) = run(&options, "devices", Some("w"), |_| Ok(()))?;
    run.ended(&Ending::Status(0))?
        .says(&["xen-blk vbd/51712: 256 KiB", "read-write"])?
        .says(&["name \"xvda\""])?;
    holds(&run, &image, &rewritten())?;
    Ok(Verdict::Kept)
}

fn read_only_disk(options: Options) -> Result<Verdict> {
    let (run, image) = run(&options, "devices", Some("r"), |_| Ok(()))?;
    run.ended(&Ending::Status(0))?.says(&["xen-blk vbd/51712", "read-only"])?;
    holds(&run, &image, &content())?;
    Ok(Verdict::Kept)
}

/// Changed once before, and changed back after.
fn restored(options: Options) -> Result<Verdict> {
    outlasts_restore(Options { append: "app.twice".into(), ..options })
}

fn restored_otherwise(options: Options) -> Result<Verdict> {
    outlasts_restore(Options { append: "app.twice xen.events=2-level xen.grants=2".into(), ..options })
}

fn outlasts_restore(options: Options) -> Result<Verdict> {
    let (run, image) = run(&options, "devices", Some("w"), |domain| {
        domain.wait_for("disk: waits for a key", 0, PATIENCE)?;
        domain.save_and_restore()?;
        domain.wait_for("resumed in another domain", 0, PATIENCE)?;
        domain.send(b"\r")
    })?;
    run.ended(&Ending::Status(0))?;
    holds(&run, &image, &content())?;
    Ok(Verdict::Kept)
}

/// Nodes of devices that no toolstack would make; a sensible one beside them works.
fn senseless(options: Options) -> Result<Verdict> {
    const NODES: [&str; 10] = [
        "vbd/1/backend ''",
        "vbd/2/backend /nowhere vbd/2/backend-id 0 vbd/2/state 1",
        "vbd/3/backend /nowhere vbd/3/backend-id many vbd/3/state 1",
        "vbd/4/backend /nowhere vbd/4/backend-id 70000 vbd/4/state 99",
        "vbd/5/backend $home vbd/5/backend-id 0 vbd/5/state ''",
        "vbd/number/backend /local/domain/0 vbd/number/backend-id 32751 vbd/number/state 4",
        "vbd/6/backend \"$(head -c 1500 /dev/zero | tr '\\0' /)\" vbd/6/backend-id 0 vbd/6/state 6",
        "'vbd/7/backend' \"$(echo -e '\\xff\\xfe')\" vbd/7/backend-id 0 vbd/7/state 1",
        "nothing/at/all 1",
        "vkbd/0/backend /nowhere",
    ];
    let options = Options { append: "app.wait".into(), ..options };
    let (run, image) = run(&options, "devices", None, |domain| {
        domain.wait_for("app main after", 0, PATIENCE)?;
        for nodes in NODES {
            let pairs: Vec<&str> = nodes.split(' ').collect();
            let keyed = |word: &str| format!("$home/device/{}", word.trim_matches('\''));
            // Paths are the words with a kind of device in front.
            let is_path =
                |word: &str| ["vbd/", "'vbd/", "vkbd/", "nothing/"].iter().any(|kind| word.starts_with(kind));
            let words = pairs.iter().map(|word| if is_path(word) { keyed(word) } else { (*word).into() });
            domain.dom0(&format!("xenstore-write {}", words.collect::<Vec<String>>().join(" ")))?;
        }
        domain.wait_for("device/vkbd/0: no driver for kind vkbd", 0, PATIENCE)?;
        domain.dom0("xenstore-rm $home/device/vbd/5; xenstore-rm $home/device/vbd/2/backend")?;
        domain.xl("block-attach", &format!("phy:{LOOP},xvda,w")).map(|_| ())
    })?;
    run.ended(&Ending::Status(0))?
        .says(&["device/vbd/3", "not driven"])?
        .says(&["device/vbd/4", "not driven"])?;
    holds(&run, &image, &rewritten())?;
    Ok(Verdict::Kept)
}

/// A disk comes and is used, a network card comes that nothing drives, and the disk goes.
fn hot_plug(options: Options) -> Result<Verdict> {
    let options = Options { append: "app.wait app.until-gone".into(), ..options };
    let (run, image) = run(&options, "devices", None, |domain| {
        domain.wait_for("app main after", 0, PATIENCE)?;
        domain.xl("network-attach", "bridge=xenbr0")?;
        domain.wait_for("device/vif/0: no driver for kind vif", 0, PATIENCE)?;
        domain.xl("block-attach", &format!("phy:{LOOP},xvda,w"))?;
        domain.wait_for("disk: waits until it is gone", 0, PATIENCE)?;
        let states = domain.dom0("xenstore-read $home/device/vbd/51712/state $home/device/vif/0/state")?;
        ensure!(states.split_whitespace().eq(["4", "1"]), "the devices' states are {states:?}");
        domain.xl("block-detach", "xvda").map(|_| ())
    })?;
    run.ended(&Ending::Status(0))?.says(&["disk: gone, and answers Err"])?;
    holds(&run, &image, &rewritten())?;
    Ok(Verdict::Kept)
}
