//! Virtio disks: what the guest wrote is looked at on the host, byte by byte.

use anyhow::{Result, ensure};
use runner::qemu::{Ending, Machine, Options};
use serde_json::json;

use crate::image::Image;
use crate::lab::{self, Run};
use crate::matrix::{Offer, Transport, counts, modern_mmio};
use crate::row::{Row, Verdict};

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::new("virtio_blk::a_read_only_disk_is_left_alone", "devices", a_read_only_disk_is_left_alone),
        Row::new("virtio_blk::ports_reach_pci_without_ecam", "devices", ports_reach_pci_without_ecam),
        Row::new("virtio_blk::the_command_line_names_an_mmio_device", "devices", command_line_names_a_device),
        Row::new("virtio_blk::a_legacy_device_is_refused", "devices", a_legacy_device_is_refused),
        Row::new("virtio_blk::a_full_queue_waits", "devices", a_full_queue_waits),
        Row::new("virtio_blk::a_machine_without_messages_uses_its_line_q35", "devices", || {
            by_line(Machine::Q35)
        }),
        Row::new("virtio_blk::a_machine_without_messages_uses_its_line_pc", "devices", || {
            by_line(Machine::Pc)
        }),
        Row::new(
            "virtio_blk::a_device_without_messages_and_line_is_looked_at",
            "devices",
            a_device_that_cannot_interrupt,
        ),
        Row::new("virtio_blk::one_task_with_many_requests_in_flight_split", "devices", || in_flight(false)),
        Row::new("virtio_blk::one_task_with_many_requests_in_flight_packed", "devices", || in_flight(true)),
        Row::new("virtio_blk::a_bad_block_fails_alone_split", "devices", || a_bad_block(false)),
        Row::new("virtio_blk::a_bad_block_fails_alone_packed", "devices", || a_bad_block(true)),
        Row::new("virtio_blk::what_is_discarded_is_given_back", "devices", what_is_discarded),
        Row::new("virtio_blk::a_disk_with_several_queues_is_rewritten", "devices", several_queues),
        Row::new("virtio_blk::a_queue_is_reset_alone_and_works_again_split", "devices", || {
            a_queue_is_reset(false)
        }),
        Row::new("virtio_blk::a_queue_is_reset_alone_and_works_again_packed", "devices", || {
            a_queue_is_reset(true)
        }),
        Row::new("virtio_blk::a_disk_that_grows_is_noticed", "devices", a_disk_that_grows_is_noticed),
        Row::new(
            "virtio_blk::a_transitional_device_is_driven_as_a_modern_one",
            "devices",
            a_transitional_device,
        ),
    ]
}

/// Runs the guest `devices` with the image behind `device`.
fn run(image: &Image, options: &Options, device: &str, drive: &str) -> Result<Run> {
    let (running, line) = lab::start_with("devices", options, |line| {
        modern_mmio(line);
        image.attach(line, drive);
        line.option("-device", device);
    })?;
    lab::finish(running, &line)
}

fn disk(offer: Offer) -> String {
    offer.device("blk") + ",drive=disk"
}

fn a_read_only_disk_is_left_alone() -> Result<Verdict> {
    let image = Image::new("read-only")?;
    let run = run(&image, &Offer::ALL.options(""), &disk(Offer::ALL), ",readonly=on")?;
    run.ended(&Ending::Status(0))?.says(&["virtio-blk", "read-only"])?;
    image.ends_as(&run, &image.content)?;
    Ok(Verdict::Kept)
}

/// The machine `pc` has no configuration space in memory.
fn ports_reach_pci_without_ecam() -> Result<Verdict> {
    let image = Image::new("ports")?;
    let options = Options { machine: Machine::Pc, ..Options::default() };
    let run = run(&image, &options, &disk(Offer::ALL), "")?;
    run.ended(&Ending::Status(0))?;
    image.ends_as(&run, &image.rewritten())?;
    Ok(Verdict::Kept)
}

/// Without ACPI tables only the command line tells of MMIO devices: QEMU fills its places from the last one on.
fn command_line_names_a_device() -> Result<Verdict> {
    let image = Image::new("command-line")?;
    let offer = Offer { transport: Transport::Mmio, ..Offer::ALL };
    let append = "virtio_mmio=512@0xfeb00e00:12 virtio_mmio=512@0xfeb00c00:11 virtio_mmio=nonsense".into();
    let options = Options { append, ..offer.options("") };
    let (running, line) = lab::start_with("devices", &options, |line| {
        line.option("-machine", "acpi=off");
        modern_mmio(line);
        image.attach(line, "");
        line.option("-device", disk(offer));
    })?;
    let run = lab::finish(running, &line)?;
    run.ended(&Ending::Status(0))?.says(&["virtio-blk 0xfeb00e00"])?.says(&["virtio_mmio=nonsense"])?;
    image.ends_as(&run, &image.rewritten())?;
    Ok(Verdict::Kept)
}

/// A device that speaks the protocol from before the standard only.
fn a_legacy_device_is_refused() -> Result<Verdict> {
    let image = Image::new("legacy")?;
    let run = run(&image, &Offer::ALL.options(""), "virtio-blk-pci,drive=disk,disable-modern=on", "")?;
    run.ended(&Ending::Status(1))?.says(&["no usable virtio common configuration"])?;
    image.ends_as(&run, &image.content)?;
    Ok(Verdict::Kept)
}

/// More tasks than the queue has room for.
fn a_full_queue_waits() -> Result<Verdict> {
    let image = Image::new("full")?;
    let device = "virtio-blk-pci,drive=disk,queue-size=8,indirect_desc=off";
    let run = run(&image, &Offer::ALL.options(""), device, "")?;
    run.ended(&Ending::Status(0))?;
    image.ends_as(&run, &image.rewritten())?;
    Ok(Verdict::Kept)
}

/// A device without MSI-X interrupts by the line that the firmware has routed its pin to (VirtIO 1.3 §4.1.5.3).
fn by_line(machine: Machine) -> Result<Verdict> {
    let image = Image::new(&format!("line-{machine:?}"))?;
    let options = Options { machine, ..Options::default() };
    let run = run(&image, &options, &(disk(Offer::ALL) + ",vectors=0"), "")?;
    run.ended(&Ending::Status(0))?;
    image.ends_as(&run, &image.rewritten())?;
    let polled = run.console().contains("it is looked at every");
    ensure!(!polled, run.failure("the line was not used"));
    ensure!(counts(&run, "disk: ")?.interrupts > 0, run.failure("no interrupt came"));
    Ok(Verdict::Kept)
}

/// Neither messages nor a line: the firmware has routed the pin nowhere, as the register Interrupt Line is made to say (255:
/// unknown, PCI §6.2.4), by the ports of the configuration space, before the guest walks the bus.
fn a_device_that_cannot_interrupt() -> Result<Verdict> {
    const SLOT: u32 = 0x10;
    const INTERRUPT_LINE: u32 = 0x3c;
    let image = Image::new("looked-at")?;
    let device = format!("{},vectors=0,addr={SLOT:#x}", disk(Offer::ALL));
    let (mut running, line) = lab::start_with("devices", &Offer::ALL.options("app.hold"), |line| {
        image.attach(line, "");
        line.option("-device", device);
    })?;
    running.wait_for("disk: waits for a key", 0, lab::PATIENCE)?;
    let place = 1 << 31 | SLOT << 11 | INTERRUPT_LINE;
    for command in [format!("o/w 0xcf8 {place:#x}"), "o/b 0xcfc 0xff".into()] {
        running.ask("human-monitor-command", &json!({ "command-line": command }))?;
    }
    running.send(b"\r")?;
    let run = lab::finish(running, &line)?;
    run.ended(&Ending::Status(0))?.says(&["no interrupt: it is looked at every 1 ms"])?;
    image.ends_as(&run, &image.rewritten())?;
    Ok(Verdict::Kept)
}

/// The disk is rewritten by one task; the host finds every byte. Neighbouring blocks have gone to the device as one.
fn in_flight(is_packed: bool) -> Result<Verdict> {
    let image = Image::new(&format!("in-flight-{is_packed}"))?;
    let offer = Offer { packed: is_packed, ..Offer::ALL };
    let run = run(&image, &offer.options("app.alone app.depth=100"), &disk(offer), "")?;
    run.ended(&Ending::Status(0))?.says(&["were written by one task"])?;
    image.ends_as(&run, &image.rewritten())?;
    let requests = counts(&run, "disk: ")?.requests;
    ensure!(requests < image.blocks(), run.failure(&format!("{requests} requests: neighbours went alone")));
    Ok(Verdict::Kept)
}

/// One block cannot be read, another not be written: what was asked together with these goes well.
fn a_bad_block(packed: bool) -> Result<Verdict> {
    const UNREADABLE: usize = 100;
    const UNWRITABLE: usize = 205;
    const SECTORS: usize = 8;
    let image = Image::new(&format!("bad-block-{packed}"))?;
    let offer = Offer { packed, ..Offer::ALL };
    let faults = [("read", UNREADABLE), ("write", UNWRITABLE)].into_iter().enumerate();
    let faults: String = faults
        .map(|(number, (kind, block))| {
            let rule = format!("file.inject-error.{number}");
            format!(",{rule}.event=none,{rule}.iotype={kind},{rule}.sector={}", block * SECTORS + 3)
        })
        .collect();
    let options = offer.options("app.alone app.bad app.depth=100");
    let (running, line) = lab::start_with("devices", &options, |line| {
        modern_mmio(line);
        let file =
            format!("file.driver=blkdebug,file.image.driver=file,file.image.filename={}", image.file());
        line.option("-drive", format!("id=disk,if=none,format=raw,{file}{faults},werror=report"));
        line.option("-device", disk(offer));
    })?;
    let run = lab::finish(running, &line)?;
    run.ended(&Ending::Status(0))?.says(&[&format!("blocks [{UNREADABLE}, {UNWRITABLE}] failed")])?;
    let mut expected = image.rewritten();
    for block in [UNREADABLE, UNWRITABLE] {
        let bytes = block * SECTORS * 512..(block + 1) * SECTORS * 512;
        expected[bytes.clone()].copy_from_slice(&image.content[bytes]);
    }
    image.ends_as(&run, &expected)?;
    Ok(Verdict::Kept)
}

/// The host's file has a hole then, which reads as zeroes.
fn what_is_discarded() -> Result<Verdict> {
    const BLOCK: std::ops::Range<usize> = 4096..2 * 4096;
    let image = Image::new("discard")?;
    let run = run(&image, &Offer::ALL.options("app.want=discard"), &disk(Offer::ALL), "")?;
    run.ended(&Ending::Status(0))?.says(&["disk: a block discarded"])?;
    let mut expected = image.content.clone();
    expected[BLOCK].fill(0);
    image.ends_as(&run, &expected)?;
    Ok(Verdict::Kept)
}

fn several_queues() -> Result<Verdict> {
    let image = Image::new("queues")?;
    let options = Options { smp: 2, ..Options::default() };
    let run = run(&image, &options, &(disk(Offer::ALL) + ",num-queues=2"), "")?;
    run.ended(&Ending::Status(0))?;
    image.ends_as(&run, &image.rewritten())?;
    Ok(Verdict::Kept)
}

/// VirtIO 1.3 §2.6.1.
fn a_queue_is_reset(packed: bool) -> Result<Verdict> {
    let image = Image::new(&format!("reset-{packed}"))?;
    let offer = Offer { packed, ..Offer::ALL };
    let run = run(&image, &offer.options("app.want=cancel"), &disk(offer), "")?;
    run.ended(&Ending::Status(0))?.says(&["virtio-blk", ", ring reset"])?.says(&["disk: queue reset"])?;
    image.ends_as(&run, &image.rewritten())?;
    Ok(Verdict::Kept)
}

/// The host makes the disk larger while the guest runs (VirtIO 1.3 §5.2.6, configuration change).
fn a_disk_that_grows_is_noticed() -> Result<Verdict> {
    let image = Image::new("grows")?;
    let (running, line) = lab::start_with("devices", &Offer::ALL.options("app.want=growth"), |line| {
        image.attach(line, "");
        line.option("-device", disk(Offer::ALL) + ",physical_block_size=4096");
    })?;
    let sectors = image.content.len() as u64 / 512;
    let from = running.wait_for(&format!("growth: {sectors} sectors, 4096 behind"), 0, lab::PATIENCE);
    let grown = from.and_then(|_| {
        running.ask("block_resize", &json!({ "device": "disk", "size": 2 * image.content.len() })).map(|_| ())
    });
    let run = lab::finish(running, &line)?;
    grown?;
    run.ended(&Ending::Status(0))?.says(&[&format!("growth: now {} sectors", 2 * sectors)])?;
    Ok(Verdict::Kept)
}

/// QEMU's default on a conventional bus: the device knows the legacy interface too (VirtIO 1.3 §4.1.2.1).
fn a_transitional_device() -> Result<Verdict> {
    let image = Image::new("transitional")?;
    let run = run(&image, &Offer::ALL.options("log=debug"), &(disk(Offer::ALL) + ",disable-legacy=off"), "")?;
    run.ended(&Ending::Status(0))?.says(&["1af4:1001"])?;
    image.ends_as(&run, &image.rewritten())?;
    Ok(Verdict::Kept)
}
