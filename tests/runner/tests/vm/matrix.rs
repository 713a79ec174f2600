//! Every virtio device over every transport with every ring: what was negotiated, what the host sees of the data, how many
//! notifications and interrupts it took. `cargo run -- matrix` prints it as a table.
//!
//! One machine has all devices of a cell of the table, and a guest that uses one after the other.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use runner::host::cache;
use runner::qemu::{Ending, Line, Machine, Options, Running};
use serde_json::json;

use crate::image::Image;
use crate::lab::{self, Run};
use crate::row::{Row, Verdict};

/// How a virtio device is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Pci,
    Mmio,
}

/// What the devices of a machine offer: a cell of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    pub(crate) transport: Transport,
    pub(crate) packed: bool,
    pub(crate) event_idx: bool,
    pub(crate) indirect: bool,
}

const YES_NO: [bool; 2] = [true, false];
/// Bytes that go through the console's port and back.
const ECHO_BYTES: usize = 64 << 10;
/// What the guest makes of each of them.
const ECHO_CHANGE: u8 = 0x5a;
/// Bytes of memory of the guest, and those that the host leaves it for a while.
const MEMORY: u64 = 64 << 20;
const SMALL_MEMORY: u64 = 48 << 20;

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for transport in [Transport::Pci, Transport::Mmio] {
        for packed in YES_NO {
            for event_idx in YES_NO {
                for indirect in YES_NO {
                    let offer = Offer { transport, packed, event_idx, indirect };
                    rows.push(Row::new(offer.name(), "devices", move || every_device_works(offer)));
                }
            }
        }
    }
    for transport in [Transport::Pci, Transport::Mmio] {
        for packed in YES_NO {
            let offer = Offer { transport, packed, ..Offer::ALL };
            let [transport, ring, ..] = offer.words();
            let name = format!("matrix::{transport}_{ring}_four_queues");
            rows.push(Row::new(name, "devices", move || every_cpu_has_its_queue(offer)));
        }
    }
    rows
}

impl Offer {
    /// The one most like that of an ordinary host.
    pub(crate) const ALL: Self =
        Self { transport: Transport::Pci, packed: false, event_idx: true, indirect: true };

    fn words(self) -> [&'static str; 4] {
        let Self { transport, packed, event_idx, indirect } = self;
        [
            if transport == Transport::Pci { "pci" } else { "mmio" },
            if packed { "packed" } else { "split" },
            if event_idx { "event_idx" } else { "no_event_idx" },
            if indirect { "indirect" } else { "direct" },
        ]
    }

    fn name(self) -> String {
        format!("matrix::{}", self.words().join("_"))
    }

    /// A machine with such devices.
    pub(crate) fn options(self, append: &str) -> Options {
        let machine = if self.transport == Transport::Pci { Machine::Q35 } else { Machine::Microvm };
        Options { machine, append: append.into(), ..Options::default() }
    }

    /// QEMU's words for a device `kind` of this offer.
    pub(crate) fn device(self, kind: &str) -> String {
        let on = |yes| if yes { "on" } else { "off" };
        let Self { transport, packed, event_idx, indirect } = self;
        let bus = if transport == Transport::Pci { "pci" } else { "device" };
        let (packed, event_idx, indirect) = (on(packed), on(event_idx), on(indirect));
        format!("virtio-{kind}-{bus},packed={packed},event_idx={event_idx},indirect_desc={indirect}")
    }

    /// What the guest says was negotiated of the rings of a device `kind`: of those of a disk not the event index if they are split.
    fn told(self, kind: &str) -> Vec<&'static str> {
        // QEMU offers the reset of a queue on both transports; only that of PCI has a register for it.
        let features = [
            (self.packed, "packed"),
            (self.indirect, "indirect"),
            (self.event_idx && (self.packed || kind != "blk"), "event index"),
            (self.transport == Transport::Pci, "ring reset"),
        ];
        features.into_iter().filter(|(is_on, _)| *is_on).map(|(_, name)| name).collect()
    }
}

/// Adds a device to the line; QEMU's MMIO transport speaks the legacy protocol unless told not to.
pub(crate) fn modern_mmio(line: &mut Line) {
    line.option("-global", "virtio-mmio.force-legacy=false");
}

fn every_device_works(offer: Offer) -> Result<Verdict> {
    every_device_works_on(offer, &offer.options(""))
}

/// As [`every_device_works`], on a machine of the offer's kind.
pub(crate) fn every_device_works_on(offer: Offer, options: &Options) -> Result<Verdict> {
    let image = Image::new(&format!("{}-{:?}", offer.name(), options.accel))?;
    let socket = image.path.with_extension("sock");
    let append = "app.want=disk,rng,port,balloon log=debug".into();
    let options = Options { append, memory: "64M".into(), ..options.clone() };
    let (running, line) = lab::start_with("devices", &options, |line| {
        modern_mmio(line);
        image.attach(line, "");
        line.option("-device", offer.device("blk") + ",drive=disk,serial=matrix");
        line.option("-device", offer.device("rng"));
        line.option("-chardev", format!("socket,id=echo,server=on,wait=off,path={}", socket.display()));
        line.option("-device", offer.device("serial"));
        line.option("-device", "virtserialport,chardev=echo,name=echo");
        line.option("-device", offer.device("balloon"));
    })?;
    let meanwhile = echo(&socket).and_then(|()| breathe(&running));
    let run = lab::finish(running, &line)?;
    meanwhile.map_err(|error| anyhow::anyhow!(run.failure(&format!("{error:#}"))))?;
    run.ended(&Ending::Status(0))?.says(&["name \"matrix\""])?.says(&["entropy: two pieces"])?;
    run.says(&["random: seeded by virtio-rng"])?;
    for kind in ["blk", "rng", "console", "balloon"] {
        negotiated(&run, kind, &offer.told(kind))?;
    }
    image.ends_as(&run, &image.rewritten())?;
    let disk = counts(&run, "disk: ")?;
    let port = counts(&run, "port: ")?;
    let [transport, ring, event, indirect] = offer.words();
    println!("| {transport} | {ring} | {event} | {indirect} | {} | {} |", disk.cell(), port.cell());
    ensure!(
        disk.requests >= 2 * image.blocks(),
        run.failure("fewer requests than the disk has blocks to read and write")
    );
    for counts in [disk, port] {
        ensure!(
            (1..=counts.requests).contains(&counts.notifications)
                && (1..=counts.requests).contains(&counts.interrupts),
            run.failure("more notifications or interrupts than requests")
        );
    }
    Ok(Verdict::Kept)
}

/// Four CPUs ask a disk with four queues: each by its own, whose messages come to that CPU. MMIO has one interrupt for all.
fn every_cpu_has_its_queue(offer: Offer) -> Result<Verdict> {
    const QUEUES: u64 = 4;
    let [transport, ring, event, indirect] = offer.words();
    let image = Image::new(&format!("{transport}-{ring}-queues"))?;
    let options = Options { smp: QUEUES as u32, ..offer.options("app.want=queues,disk") };
    let (running, line) = lab::start_with("devices", &options, |line| {
        modern_mmio(line);
        image.attach(line, "");
        line.option("-device", offer.device("blk") + &format!(",drive=disk,num-queues={QUEUES}"));
    })?;
    let run = lab::finish(running, &line)?;
    run.ended(&Ending::Status(0))?.says(&[&format!("{QUEUES} queues")])?;
    image.ends_as(&run, &image.rewritten())?;
    for number in 0..QUEUES {
        let queue = counts(&run, &format!("queue {number}: "))?;
        let own = run.console().lines().find(|line| line.contains(&format!("queue {number}: ")));
        let own = own.and_then(|line| line.split(", ").last()?.split(' ').next()?.parse::<u64>().ok());
        println!("| {transport} | {ring} | {event} | {indirect} | queue {number}: {} | - |", queue.cell());
        ensure!(
            (1..=queue.requests).contains(&queue.notifications),
            run.failure("more notifications than requests, or none")
        );
        let all_came_home = queue.interrupts > 0 && own == Some(queue.interrupts);
        ensure!(
            offer.transport == Transport::Mmio || all_came_home,
            run.failure(&format!("not every interrupt of queue {number} came to its CPU"))
        );
    }
    Ok(Verdict::Kept)
}

/// The guest's line about a device of `kind` names these features of its rings and no others.
fn negotiated(run: &Run, kind: &str, told: &[&str]) -> Result<()> {
    let prefix = format!("virtio-{kind} ");
    let named = |line: &str| {
        let words = ["packed", "indirect", "event index", "in order", "notification data", "ring reset"];
        words.into_iter().filter(|word| line.contains(&format!(", {word}"))).collect::<Vec<_>>()
    };
    let up = [" KiB, ", ": random bytes", ": console", ": balloon"];
    let line =
        run.console().lines().find(|line| line.contains(&prefix) && up.iter().any(|up| line.contains(up)));
    let line = line.with_context(|| run.failure(&format!("no line tells of virtio-{kind}")))?;
    ensure!(named(line) == told, run.failure(&format!("negotiated {:?}, not {told:?}: {line}", named(line))));
    Ok(())
}

/// Sends bytes through the guest's port, and compares what comes back.
fn echo(socket: &std::path::Path) -> Result<()> {
    let mut stream = connect(socket)?;
    stream.set_read_timeout(Some(lab::PATIENCE))?;
    let bytes: Vec<u8> = (0..ECHO_BYTES).map(|at| (at * 7 + at / 251) as u8).collect();
    let expected: Vec<u8> = bytes.iter().map(|byte| byte ^ ECHO_CHANGE).collect();
    let mut to = stream.try_clone()?;
    let sender = std::thread::spawn(move || {
        to.write_all(&(ECHO_BYTES as u64).to_le_bytes()).and_then(|()| to.write_all(&bytes))
    });
    let mut found = vec![0; ECHO_BYTES];
    stream.read_exact(&mut found).context("the port sends too little back")?;
    sender
        .join()
        .map_err(|_| anyhow::anyhow!("the sender panicked"))?
        .context("the port takes too little")?;
    let (found, expected) = (cache::sha256(&found), cache::sha256(&expected));
    ensure!(found == expected, "what came back through the port has sha256 {found}, not {expected}");
    Ok(())
}

/// QEMU makes the socket while it starts.
pub(crate) fn connect(socket: &std::path::Path) -> Result<UnixStream> {
    let mut last = None;
    for _ in 0..1000 {
        match UnixStream::connect(socket) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Some(error),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(last.context("no attempt")?).context("the port's socket")
}

/// Has the guest lend memory, and gives it back.
fn breathe(running: &Running) -> Result<()> {
    let from = running.wait_for("balloon: ready", 0, lab::PATIENCE)?;
    running.ask("balloon", &json!({ "value": SMALL_MEMORY }))?;
    let pages = (MEMORY - SMALL_MEMORY) / 4096;
    let from = running.wait_for(&format!("balloon: inflated to {pages} pages"), from, lab::PATIENCE)?;
    // The guest tells its size when the device has taken note of the last pages, which it counts before.
    let deadline = Instant::now() + lab::PATIENCE;
    loop {
        let actual = running.ask("query-balloon", &json!({}))?["actual"].as_u64();
        if actual == Some(SMALL_MEMORY) {
            break;
        }
        let is_over = Instant::now() > deadline;
        ensure!(!is_over, "QEMU thinks that the guest has {actual:?} bytes, not {SMALL_MEMORY}");
        std::thread::sleep(Duration::from_millis(10));
    }
    running.ask("balloon", &json!({ "value": MEMORY }))?;
    running.wait_for("balloon: deflated", from, lab::PATIENCE)?;
    Ok(())
}

/// What a device has sent to and fro, as the guest counts it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    pub(crate) requests: u64,
    notifications: u64,
    pub(crate) interrupts: u64,
}

impl Counts {
    fn cell(self) -> String {
        format!(
            "{} requests, {} notifications, {} interrupts",
            self.requests, self.notifications, self.interrupts
        )
    }
}

/// The counts in the guest's line that has `of`.
pub(crate) fn counts(run: &Run, of: &str) -> Result<Counts> {
    let line = run.console().lines().find(|line| line.contains(of) && line.contains(" notifications, "));
    let line = line.with_context(|| run.failure(&format!("the guest tells no counts of {of}")))?;
    let number = |what: &str| {
        let words: Vec<&str> = line.split([' ', ',']).filter(|word| !word.is_empty()).collect();
        let at = words.iter().position(|word| *word == what)?;
        words.get(at.checked_sub(1)?)?.parse().ok()
    };
    let counts = number("requests").zip(number("notifications")).zip(number("interrupts"));
    let ((requests, notifications), interrupts) =
        counts.with_context(|| run.failure(&format!("no three counts in `{line}`")))?;
    Ok(Counts { requests, notifications, interrupts })
}
