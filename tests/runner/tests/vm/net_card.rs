//! What a network card does beside taking frames to and fro: queues of several CPUs, filters, the length of frames.
//! Neighbours: `net` (bytes, whole and unchanged), `raw_socket` (frames as they are).

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use runner::qemu::network::{self, GUEST, GUEST6};
use runner::qemu::{Ending, Machine, Options};

use crate::lab::{self, Run};
use crate::net::{Guest, Offer, at_tap, echo, noise};
use crate::raw_socket::RawSocket;
use crate::row::Row;

/// CPUs and pairs of queues.
const QUEUES: u16 = 4;

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (transport, machine) in [("pci", Machine::Q35), ("mmio", Machine::Microvm)] {
        for (ring, packed) in [("split", false), ("packed", true)] {
            let offer = Offer { machine, packed, ..Offer::ALL };
            let name = format!("virtio_net_queues::{transport}_{ring}_every_cpu_has_its_pair");
            rows.push(at_tap(name, "net", move || every_cpu_has_its_pair(offer)));
        }
    }
    rows.extend([
        at_tap("virtio_net_queues::tcp_goes_through_several_queues", "net", tcp_goes_through),
        at_tap("net::filters_keep_out_what_is_not_asked_for", "net", filters_keep_out),
        at_tap("net::no_frame_is_longer_than_the_card_allows", "net", no_frame_is_longer),
        at_tap("net::a_length_that_no_network_has_is_refused", "net", no_network_has_it),
    ]);
    rows
}

/// Starts a guest with a pair of queues for each CPU.
fn start_wide(offer: Offer, append: &str) -> Result<Guest> {
    network::widen_tap()?;
    let options = Options { smp: QUEUES.into(), ..offer.options() };
    let options = Options { append: format!("{} {append}", options.append), ..options };
    Guest::start(&options, |line| network::at_wide_tap(line, offer.machine, QUEUES, &offer.device()))
}

/// Each CPU sends frames of a flow of its own, which the host sends back: it finds the queue by the flow, and on PCI that queue
/// interrupts the CPU that has sent. MMIO has one interrupt for all.
fn every_cpu_has_its_pair(offer: Offer) -> Result<()> {
    let guest = start_wide(offer, "app.raw=queues")?;
    guest.wait_for("queues: ready", 0)?;
    let is_over = AtomicBool::new(false);
    let run = std::thread::scope(|scope| {
        let echo = scope.spawn(|| send_back(&is_over));
        let run = guest.end_by_itself();
        is_over.store(true, Relaxed);
        echo.join().map_err(|_| anyhow::anyhow!("the echo panicked"))??;
        run
    })?;
    run.says(&["virtio-net", &format!("{QUEUES} pairs of queues")])?;
    for queue in 0..QUEUES {
        let [sent, received, _, interrupts, own] = counts(&run, queue)?;
        ensure!(sent > 0 && received > 0, run.failure(&format!("queue {queue} is idle")));
        ensure!(
            offer.machine == Machine::Microvm || (interrupts > 0 && own == interrupts),
            run.failure(&format!("not every interrupt of queue {queue} came to its CPU"))
        );
    }
    Ok(())
}

/// Sends every datagram of the guest back to where it came from.
fn send_back(is_over: &AtomicBool) -> Result<()> {
    let raw = RawSocket::open(network::TAP)?;
    while !is_over.load(Relaxed) {
        let mut frame = raw.receive(Duration::from_millis(100))?;
        // To port 7, of the addresses that the guest makes up.
        if frame.get(23..24) == Some(&[17]) && frame.get(36..38) == Some(&[0, 7]) {
            let (addresses, ports) = ([0, 6, 6], [26, 30, 4]);
            for [at, to, len] in [addresses, ports, [34, 36, 2]] {
                let (left, right) = frame.split_at_mut(to);
                left[at..at + len].swap_with_slice(&mut right[..len]);
            }
            raw.send(&frame)?;
        }
    }
    Ok(())
}

/// The numbers in the guest's line about a queue: sent, received, notifications, interrupts, those on its CPU.
fn counts(run: &Run, queue: u16) -> Result<[u64; 5]> {
    let prefix = format!("queue {queue}: ");
    let line = run.console().lines().find_map(|line| line.split(&prefix).nth(1));
    let line = line.with_context(|| run.failure(&format!("no line tells of queue {queue}")))?;
    println!("queue {queue}: {line}");
    let numbers: Vec<u64> = line.split([' ', ',']).filter_map(|word| word.parse().ok()).collect();
    numbers.try_into().map_err(|_| anyhow::anyhow!("not five numbers in `{line}`"))
}

/// The protocols are one task, which takes from all queues, whichever the host chooses for a flow.
fn tcp_goes_through() -> Result<()> {
    let guest = start_wide(Offer::ALL, "")?;
    guest.wait_for("net: ready", 0)?;
    let sent = noise(4 << 20);
    for address in [IpAddr::from(GUEST), IpAddr::from(GUEST6)] {
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..8).map(|_| scope.spawn(|| echo(address, &sent))).collect();
            clients
                .into_iter()
                .try_for_each(|client| client.join().map_err(|_| anyhow::anyhow!("a client panicked"))?)
        })?;
    }
    guest.end()?.says(&["virtio-net", &format!("{QUEUES} pairs of queues")])?;
    Ok(())
}

/// A frame for filters: to whom, of which VLAN, its number.
fn numbered(to: [u8; 6], vlan: Option<u8>, number: u8) -> Vec<u8> {
    let tag = vlan.map(|vlan| vec![0x81, 0, 0, vlan]).unwrap_or_default();
    let mut frame = [&to[..], &[2, 0, 0, 0, 0, 1], &tag, &[0x88, 0xb5, number]].concat();
    frame.resize(60, 0);
    frame
}

/// What the guest tells the card decides which frames it sees (§5.1.6.5.1 to §5.1.6.5.3): the frames of each step are the same.
fn filters_keep_out() -> Result<()> {
    const ALL: [u8; 6] = [0xff; 6];
    let raw = RawSocket::open(network::TAP)?;
    let options = Offer::ALL.options();
    let options = Options { append: format!("{} app.raw=filters", options.append), ..options };
    let guest = Guest::start(&options, |line| network::at_tap(line, Machine::Q35, &Offer::ALL.device()))?;
    let own = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
    let frames = [
        numbered(own, None, 0),
        numbered([2, 0, 0, 0, 0, 9], None, 1),
        numbered([0x01, 0, 0x5e, 0, 0, 1], None, 2),
        numbered([0x01, 0, 0x5e, 0, 0, 2], None, 3),
        numbered(ALL, None, 4),
        numbered(own, Some(7), 5),
        numbered(own, Some(8), 6),
    ];
    let steps = [
        ("promiscuous", "{0, 1, 2, 3, 4, 5, 6}"),
        ("one group", "{0, 2, 4}"),
        ("all groups", "{0, 2, 3, 4}"),
        ("VLAN 7", "{0, 2, 4, 5}"),
        ("no VLAN", "{0, 2, 4}"),
        ("another address", "{1, 2, 4}"),
    ];
    let mut from = 0;
    for (step, _) in steps {
        from = guest.wait_for(&format!("filter: {step} is set"), from)?;
        frames.iter().try_for_each(|frame| raw.send(frame))?;
        raw.send(&numbered(ALL, None, 99))?;
        from = guest.wait_for(&format!("filter: {step}: "), from)?;
    }
    let run = guest.end_by_itself()?;
    for (step, seen) in steps {
        run.says(&[&format!("filter: {step}: {seen}")])?;
    }
    Ok(())
}

/// §5.1.4.1: the device says what the network takes, and both ends keep to it.
fn no_frame_is_longer() -> Result<()> {
    const MTU: usize = 1280;
    let offer = Offer { offloads: false, ..Offer::ALL };
    let raw = RawSocket::open(network::TAP)?;
    let guest = Guest::start(&offer.options(), |line| {
        network::at_tap(line, offer.machine, &format!("{},host_mtu={MTU}", offer.device()));
    })?;
    guest.wait_for("net: ready", 0)?;
    let is_over = AtomicBool::new(false);
    let (longest, sizes) = std::thread::scope(|scope| {
        let watch = scope.spawn(|| segments(&raw, &is_over));
        let echoed =
            [GUEST.into(), GUEST6.into()].into_iter().try_for_each(|address| echo(address, &noise(1 << 20)));
        is_over.store(true, Relaxed);
        let watched = watch.join().map_err(|_| anyhow::anyhow!("the watcher panicked"))?;
        echoed.and(watched)
    })?;
    let run = guest.end()?;
    run.says(&["virtio-net", &format!("mtu {MTU}")])?;
    ensure!(longest == MTU + 14, run.failure(&format!("the longest frame has {longest} bytes")));
    // What is left for data (RFC 9293 §3.7.1): without the headers of IP and TCP.
    ensure!(sizes == [MTU as u16 - 60, MTU as u16 - 40], run.failure(&format!("segments of {sizes:?}")));
    Ok(())
}

/// The length of the longest frame from the guest, and what it says of how long a segment may be, in order.
fn segments(raw: &RawSocket, is_over: &AtomicBool) -> Result<(usize, Vec<u16>)> {
    let (mut longest, mut sizes) = (0, BTreeSet::new());
    while !is_over.load(Relaxed) {
        let frame = raw.receive(Duration::from_millis(100))?;
        if frame.get(6..8) != Some(&[0x52, 0x54]) {
            continue;
        }
        longest = longest.max(frame.len());
        let tcp = match frame.get(12..14) {
            Some([8, 0]) if frame.get(23) == Some(&6) => frame.get(34..),
            Some([0x86, 0xdd]) if frame.get(20) == Some(&6) => frame.get(54..),
            _ => None,
        };
        // The answer to a first segment, SYN and ACK: the option of kind 2, 4 bytes long, comes first.
        if let Some([.., a, b]) = tcp.filter(|tcp| tcp.get(13) == Some(&0x12)).and_then(|tcp| tcp.get(20..24))
        {
            sizes.insert(u16::from_be_bytes([*a, *b]));
        }
    }
    Ok((longest, sizes.into_iter().collect()))
}

fn no_network_has_it() -> Result<()> {
    let options = Offer::ALL.options();
    let (running, line) = lab::start_with("net", &options, |line| {
        network::at_tap(line, Machine::Q35, &format!("{},host_mtu=67", Offer::ALL.device()));
    })?;
    let run = lab::finish(running, &line)?;
    run.ended(&Ending::Status(1))?;
    run.says(&["virtio-net 00:", "mtu", "67", "68 at least", "not used"])?.says(&["no network card"])?;
    Ok(())
}
