//! Virtio consoles: people and programs of the host talk with the guest through QEMU's sockets.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Result, anyhow, ensure};
use runner::qemu::Ending;
use serde_json::json;

use crate::lab;
use crate::matrix::{Offer, Transport, connect, modern_mmio};
use crate::row::{Row, Verdict};

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::new("virtio_console::people_talk_to_the_guest_pci", "devices", || talk(Transport::Pci)),
        Row::new("virtio_console::people_talk_to_the_guest_mmio", "devices", || talk(Transport::Mmio)),
        Row::new("virtio_console::two_ports_are_two_pci", "devices", || two_ports(Transport::Pci)),
        Row::new("virtio_console::two_ports_are_two_mmio", "devices", || two_ports(Transport::Mmio)),
    ]
}

/// The hypervisor's console is the only one: it shows how the guest started, and takes a line.
fn talk(transport: Transport) -> Result<Verdict> {
    let offer = Offer { transport, ..Offer::ALL };
    let socket = lab::scratch_path(&format!("hvc-{transport:?}.sock"))?;
    let (running, line) = lab::start_with("devices", &offer.options("app.want=hvc console=hvc"), |line| {
        modern_mmio(line);
        line.option("-chardev", format!("socket,id=hvc,server=on,wait=on,path={}", socket.display()));
        line.option("-device", offer.device("serial"));
        line.option("-device", "virtconsole,chardev=hvc");
    })?;
    let talked = converse(&socket);
    let run = lab::finish(running, &line)?;
    let heard = talked.map_err(|error| anyhow!(run.failure(&format!("{error:#}"))))?;
    run.ended(&Ending::Status(0))?;
    for said in ["booted by PVH", "hvc: who is there?\r\n", "hvc: hello Pliant\r\n"] {
        ensure!(heard.contains(said), run.failure(&format!("no {said:?} in {heard:?}")));
    }
    Ok(Verdict::Kept)
}

/// Answers the guest's question; returns all that it said.
fn converse(socket: &Path) -> Result<String> {
    let mut stream = connect(socket)?;
    stream.set_read_timeout(Some(lab::PATIENCE))?;
    let (mut heard, mut has_answered, mut buffer) = (String::new(), false, [0; 4096]);
    // QEMU closes the socket when the guest has ended.
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        heard += &String::from_utf8_lossy(&buffer[..count]);
        if heard.contains("who is there?") && !has_answered {
            stream.write_all(b"Pliant\r")?;
            has_answered = true;
        }
    }
    Ok(heard)
}

/// Bytes stay with their port; the host closes one and takes it away (VirtIO 1.3 §5.3.6.2), and the other goes on.
fn two_ports(transport: Transport) -> Result<Verdict> {
    let offer = Offer { transport, ..Offer::ALL };
    let sockets = ["one", "two"].map(|name| lab::scratch_path(&format!("port-{name}-{transport:?}.sock")));
    let [one, two] = sockets;
    let (one, two) = (one?, two?);
    let (running, line) = lab::start_with("devices", &offer.options("app.want=ports"), |line| {
        modern_mmio(line);
        line.option("-device", offer.device("serial"));
        for (name, socket) in [("one", &one), ("two", &two)] {
            line.option("-chardev", format!("socket,id={name},server=on,wait=off,path={}", socket.display()));
            line.option("-device", format!("virtserialport,chardev={name},name={name},id={name}"));
        }
    })?;
    let talked = (|| {
        let (mut one, mut two) = (connect(&one)?, connect(&two)?);
        let from = running.wait_for("ports: both are open", 0, lab::PATIENCE)?;
        one.write_all(b"this")?;
        two.write_all(b"that")?;
        answers(&mut two, b"twothat")?;
        answers(&mut one, b"onethis")?;
        drop(one);
        let from = running.wait_for("ports: one is closed", from, lab::PATIENCE)?;
        running.ask("device_del", &json!({ "id": "one" }))?;
        running.wait_for("ports: one is gone, and takes nothing: true", from, lab::PATIENCE)?;
        two.write_all(b"more")?;
        // Closes it, for which the guest waits.
        answers(&mut two, b"twomore")
    })();
    let run = lab::finish(running, &line)?;
    talked.map_err(|error: anyhow::Error| anyhow!(run.failure(&format!("{error:#}"))))?;
    run.ended(&Ending::Status(0))?;
    Ok(Verdict::Kept)
}

/// What comes next from the guest is this.
fn answers(stream: &mut UnixStream, expected: &[u8]) -> Result<()> {
    stream.set_read_timeout(Some(lab::PATIENCE))?;
    let mut heard = vec![0; expected.len()];
    stream.read_exact(&mut heard)?;
    ensure!(heard == expected, "{:?} came", String::from_utf8_lossy(&heard));
    Ok(())
}
