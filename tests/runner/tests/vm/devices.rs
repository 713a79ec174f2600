//! Paravirtual devices: what the guest wrote is looked at on the host, byte by byte.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use runner::host::{cache, paths};
use runner::qemu::{Ending, Machine, Options};

use crate::lab::{self, Run};
use crate::row::{Row, Verdict};

/// The guest changes the disk in blocks of this many bytes.
const BLOCK_BYTES: usize = 4096;
const DISK_BYTES: usize = 4 << 20;

/// How a virtio device is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Pci,
    Mmio,
}

/// What a virtio device offers.
#[derive(Clone, Copy, Debug)]
struct Offer {
    transport: Transport,
    packed: bool,
    event_idx: bool,
    indirect: bool,
}

const YES_NO: [bool; 2] = [true, false];

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for transport in [Transport::Pci, Transport::Mmio] {
        for packed in YES_NO {
            for event_idx in YES_NO {
                for indirect in YES_NO {
                    let offer = Offer { transport, packed, event_idx, indirect };
                    rows.push(Row::new(offer.name(), "disk", move || disk_is_rewritten(offer)));
                }
            }
        }
    }
    rows.extend([
        Row::new("virtio_blk::a_read_only_disk_is_left_alone", "disk", a_read_only_disk_is_left_alone),
        Row::new("virtio_blk::ports_reach_pci_without_ecam", "disk", ports_reach_pci_without_ecam),
        Row::new("virtio_blk::the_command_line_names_an_mmio_device", "disk", command_line_names_a_device),
        Row::new("virtio_blk::a_legacy_device_is_refused", "disk", a_legacy_device_is_refused),
        Row::new("virtio_blk::a_full_queue_waits", "disk", a_full_queue_waits),
    ]);
    rows
}

impl Offer {
    const ALL: Self = Self { transport: Transport::Pci, packed: false, event_idx: true, indirect: true };

    fn name(self) -> String {
        let Self { transport, packed, event_idx, indirect } = self;
        let transport = if transport == Transport::Pci { "pci" } else { "mmio" };
        let ring = if packed { "packed" } else { "split" };
        let event = if event_idx { "event_idx" } else { "no_event_idx" };
        let indirect = if indirect { "indirect" } else { "direct" };
        format!("virtio_blk::{transport}_{ring}_{event}_{indirect}")
    }

    fn options(self) -> Options {
        let machine = if self.transport == Transport::Pci { Machine::Q35 } else { Machine::Microvm };
        Options { machine, ..Options::default() }
    }

    fn device(self) -> String {
        let on = |yes| if yes { "on" } else { "off" };
        let Self { transport, packed, event_idx, indirect } = self;
        let bus = if transport == Transport::Pci { "pci" } else { "device" };
        let (packed, event_idx, indirect) = (on(packed), on(event_idx), on(indirect));
        format!("virtio-blk-{bus},drive=disk,packed={packed},event_idx={event_idx},indirect_desc={indirect}")
    }

    /// What the guest says was negotiated.
    fn told(self) -> String {
        let features =
            [(self.packed, ", packed"), (self.indirect, ", indirect"), (self.event_idx, ", event index")];
        features.into_iter().filter(|(is_on, _)| *is_on).map(|(_, name)| name).collect()
    }
}

/// A disk image of its own for a row; it goes when the row is over.
struct Image {
    path: PathBuf,
    content: Vec<u8>,
}

impl Image {
    fn new(row: &str) -> Result<Self> {
        let directory = paths::output_directory().join("disks");
        fs::create_dir_all(&directory)?;
        let path = directory.join(format!("{}-{}.img", row.replace("::", "-"), std::process::id()));
        // Bytes in which no two blocks are alike (the linear congruence of Numerical Recipes).
        let mut state = 1u32;
        let step = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let content: Vec<u8> = std::iter::repeat_with(step).take(DISK_BYTES).collect();
        fs::write(&path, &content)?;
        Ok(Self { path, content })
    }

    /// What guest `disk` makes of it: every byte changed by its block, the last block zero.
    fn rewritten(&self) -> Vec<u8> {
        let blocks = self.content.chunks(BLOCK_BYTES).enumerate();
        let mut bytes: Vec<u8> = blocks
            .flat_map(|(block, bytes)| {
                let change = (block as u8).wrapping_mul(31).wrapping_add(17);
                bytes.iter().map(move |byte| byte ^ change)
            })
            .collect();
        bytes[DISK_BYTES - BLOCK_BYTES..].fill(0);
        bytes
    }

    fn sha256(&self) -> Result<String> {
        cache::file_sha256(&self.path)
    }

    /// Runs `disk` with the image behind `device`.
    fn run(&self, options: &Options, device: &str, drive: &str) -> Result<Run> {
        let (running, line) = lab::start_with("disk", options, |line| {
            let file = self.path.display().to_string().replace(',', ",,");
            line.option("-drive", format!("id=disk,if=none,format=raw,discard=unmap,file={file}{drive}"));
            line.option("-device", device);
            let rng =
                if options.machine == Machine::Microvm { "virtio-rng-device" } else { "virtio-rng-pci" };
            line.option("-device", rng);
            // QEMU's MMIO transport speaks the legacy protocol unless told not to.
            line.option("-global", "virtio-mmio.force-legacy=false");
        })?;
        lab::finish(running, &line)
    }

    fn ends_as(&self, run: &Run, expected: &[u8]) -> Result<()> {
        let (found, expected) = (self.sha256()?, cache::sha256(expected));
        ensure!(found == expected, run.failure(&format!("the image has sha256 {found}, not {expected}")));
        Ok(())
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Requests, notifications and interrupts, as the guest counts them.
fn counts(run: &Run) -> Result<[u64; 3]> {
    let line = run.console().lines().find(|line| line.contains(" notifications, "));
    let line = line.with_context(|| run.failure("the guest tells no counts"))?;
    let mut numbers = line.split_whitespace().filter_map(|word| word.parse().ok());
    let mut next = || numbers.next().with_context(|| run.failure(&format!("no three counts in `{line}`")));
    Ok([next()?, next()?, next()?])
}

fn disk_is_rewritten(offer: Offer) -> Result<Verdict> {
    let image = Image::new(&offer.name())?;
    let run = image.run(&offer.options(), &offer.device(), "")?;
    run.ended(&Ending::Status(0))?;
    let told = format!("read-write{}", offer.told());
    let is_told =
        run.console().lines().any(|line| line.contains("virtio-blk") && line.trim_end().ends_with(&told));
    ensure!(is_told, run.failure(&format!("no line of virtio-blk ends in `{told}`")));
    run.says(&["entropy: two pieces"])?;
    image.ends_as(&run, &image.rewritten())?;
    let [requests, notifications, interrupts] = counts(&run)?;
    println!("{}: {requests} requests, {notifications} notifications, {interrupts} interrupts", offer.name());
    let blocks = (DISK_BYTES / BLOCK_BYTES) as u64;
    ensure!(requests >= 2 * blocks, run.failure("fewer requests than the disk has blocks to read and write"));
    ensure!(
        (1..=requests).contains(&notifications) && (1..=requests).contains(&interrupts),
        run.failure("more notifications or interrupts than requests")
    );
    Ok(Verdict::Kept)
}

fn a_read_only_disk_is_left_alone() -> Result<Verdict> {
    let image = Image::new("read-only")?;
    let run = image.run(&Offer::ALL.options(), &Offer::ALL.device(), ",readonly=on")?;
    run.ended(&Ending::Status(0))?.says(&["virtio-blk", "read-only"])?;
    image.ends_as(&run, &image.content)?;
    Ok(Verdict::Kept)
}

/// The machine `pc` has no configuration space in memory.
fn ports_reach_pci_without_ecam() -> Result<Verdict> {
    let image = Image::new("ports")?;
    let options = Options { machine: Machine::Pc, ..Options::default() };
    let run = image.run(&options, &Offer::ALL.device(), "")?;
    run.ended(&Ending::Status(0))?;
    image.ends_as(&run, &image.rewritten())?;
    Ok(Verdict::Kept)
}

/// Without ACPI tables only the command line tells of MMIO devices: QEMU fills its places from the last one on.
fn command_line_names_a_device() -> Result<Verdict> {
    let image = Image::new("command-line")?;
    let offer = Offer { transport: Transport::Mmio, ..Offer::ALL };
    let append = "virtio_mmio=512@0xfeb00e00:12 virtio_mmio=512@0xfeb00c00:11 virtio_mmio=nonsense".into();
    let options = Options { append, ..offer.options() };
    let (running, line) = lab::start_with("disk", &options, |line| {
        line.option("-machine", "acpi=off");
        let file = image.path.display().to_string().replace(',', ",,");
        line.option("-drive", format!("id=disk,if=none,format=raw,discard=unmap,file={file}"));
        line.option("-global", "virtio-mmio.force-legacy=false");
        line.option("-device", offer.device());
    })?;
    let run = lab::finish(running, &line)?;
    run.ended(&Ending::Status(0))?.says(&["virtio-blk 0xfeb00e00"])?.says(&["virtio_mmio=nonsense"])?;
    image.ends_as(&run, &image.rewritten())?;
    Ok(Verdict::Kept)
}

/// A device that speaks the protocol from before the standard only.
fn a_legacy_device_is_refused() -> Result<Verdict> {
    let image = Image::new("legacy")?;
    let run = image.run(&Offer::ALL.options(), "virtio-blk-pci,drive=disk,disable-modern=on", "")?;
    run.ended(&Ending::Status(1))?.says(&["no usable virtio common configuration"])?;
    image.ends_as(&run, &image.content)?;
    Ok(Verdict::Kept)
}

/// More tasks than the queue has room for.
fn a_full_queue_waits() -> Result<Verdict> {
    let image = Image::new("full")?;
    let device = "virtio-blk-pci,drive=disk,queue-size=8,indirect_desc=off";
    let run = image.run(&Offer::ALL.options(), device, "")?;
    run.ended(&Ending::Status(0))?;
    image.ends_as(&run, &image.rewritten())?;
    Ok(Verdict::Kept)
}
