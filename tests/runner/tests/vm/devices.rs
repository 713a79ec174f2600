//! Paravirtual devices: what the guest wrote is looked at on the host, byte by byte.

use anyhow::Result;
use runner::qemu::{Ending, Machine, Options};

use crate::image::Image;
use crate::lab::{self, Run};
use crate::matrix::{Offer, Transport, modern_mmio};
use crate::row::{Row, Verdict};

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::new("virtio_blk::a_read_only_disk_is_left_alone", "devices", a_read_only_disk_is_left_alone),
        Row::new("virtio_blk::ports_reach_pci_without_ecam", "devices", ports_reach_pci_without_ecam),
        Row::new("virtio_blk::the_command_line_names_an_mmio_device", "devices", command_line_names_a_device),
        Row::new("virtio_blk::a_legacy_device_is_refused", "devices", a_legacy_device_is_refused),
        Row::new("virtio_blk::a_full_queue_waits", "devices", a_full_queue_waits),
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
