//! The bare card, without protocols: `app.raw=filters` tells which frames come through its filters, `app.raw=queues` has every
//! CPU send and receive by a pair of queues of its own.
#![forbid(unsafe_code)]

use alloc::{collections::BTreeSet, format, string::String, sync::Arc, vec::Vec};
use core::{
    future::poll_fn,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    task::Poll,
};

use drivers::class::net::{Control, ETHERNET_HEADER_BYTES, Frame, MacAddress, SendOffload};
use kernel::{
    cpu,
    devices::{self, net::Card},
    println, task, yield_now,
};

/// The type of frames for experiments (IEEE 802), behind which their number stands.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
/// Behind a VLAN's tag (IEEE 802.1Q) everything stands so many bytes later.
const VLAN: [u8; 2] = [0x81, 0x00];
const VLAN_BYTES: usize = 4;
/// The number of the last frame of a step.
const END: u8 = 99;

/// Frames that each queue is to have sent and received, at least.
const LEAST: u64 = 64;
/// Tasks that send: more than CPUs, so that a CPU without work finds some.
const TASKS: u8 = 16;
/// Frames of one task, at most.
const MOST: u32 = 4_000;

pub(crate) async fn run(what: &str) -> Result<(), String> {
    let card = devices::net::cards().into_iter().next().ok_or("no network card")?;
    match what {
        "filters" => filters(&card).await,
        "queues" => queues(card).await,
        _ => Err(format!("app.raw={what} is unknown")),
    }
}

/// Sets filter after filter, and tells the numbers of the frames that came through each.
async fn filters(card: &Card) -> Result<(), String> {
    const GROUP: &[MacAddress] = &[MacAddress([0x01, 0, 0x5e, 0, 0, 1])];
    const OTHER: MacAddress = MacAddress([2, 0, 0, 0, 0, 9]);
    let steps: [(&str, &[Control<'static>]); 6] = [
        ("promiscuous", &[Control::Promiscuous(true)]),
        (
            "one group",
            &[Control::Promiscuous(false), Control::AllMulticast(false), Control::Multicast(GROUP)],
        ),
        ("all groups", &[Control::AllMulticast(true)]),
        ("VLAN 7", &[Control::AllMulticast(false), Control::Vlan(7, true)]),
        ("no VLAN", &[Control::Vlan(7, false)]),
        ("another address", &[Control::Mac(OTHER)]),
    ];
    for (name, controls) in steps {
        for control in controls {
            card.control(*control).map_err(|error| format!("{name}: {error}"))?;
        }
        println!("filter: {name} is set");
        let mut seen = BTreeSet::new();
        loop {
            let frame = next(card, 0).await;
            let number = number(frame.bytes());
            card.recycle(frame);
            card.flush();
            match number {
                Some(END) => break,
                number => seen.extend(number),
            }
        }
        println!("filter: {name}: {seen:?}");
    }
    Ok(())
}

fn number(frame: &[u8]) -> Option<u8> {
    let at = if frame.get(12..14)? == VLAN { VLAN_BYTES } else { 0 };
    (frame.get(at + 12..at + 14)? == ETHERTYPE).then(|| frame.get(at + ETHERNET_HEADER_BYTES).copied())?
}

/// The next frame of a queue.
async fn next(card: &Card, queue: u16) -> Frame {
    poll_fn(|cx| {
        if let Some(frame) = card.receive(queue) {
            return Poll::Ready(frame);
        }
        if !card.wait(queue, cx.waker()) {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await
}

/// Sends until every queue has had its share, interrupts too, or for a while, each frame of the flow of its CPU; then tells what
/// each queue has done.
async fn queues(card: Card) -> Result<(), String> {
    for queue in 0..card.queues() {
        let card = card.clone();
        drop(task::spawn(async move {
            loop {
                let frame = next(&card, queue).await;
                card.recycle(frame);
                card.flush();
            }
        }));
    }
    println!("queues: ready");
    let is_over = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..TASKS).map(|_| task::spawn(send(card.clone(), is_over.clone()))).collect();
    for task in tasks {
        task.await;
    }
    for queue in 0..card.queues() {
        let counts = card.queue_counts(queue);
        println!(
            "queue {queue}: {} sent, {} received, {} notifications, {} interrupts, {} of them on its CPU",
            counts.sent, counts.received, counts.notifications, counts.interrupts, counts.own_interrupts
        );
    }
    Ok(())
}

async fn send(card: Card, is_over: Arc<AtomicBool>) {
    for number in 0..MOST {
        if is_over.load(Relaxed) {
            return;
        }
        let bytes = datagram(card.info().mac, cpu::this_cpu() as u8);
        if let Some(mut frame) = card.buffer(bytes.len()) {
            frame.bytes_mut().copy_from_slice(&bytes);
            card.send(frame, SendOffload::default());
        }
        card.flush();
        // Some work: other CPUs take tasks meanwhile.
        if core::hint::black_box((0..20_000u64).fold(0, |sum, at| core::hint::black_box(sum ^ at))) == 1 {
            return;
        }
        let is_enough = |queue| {
            let counts = card.queue_counts(queue);
            counts.sent >= LEAST && counts.received >= LEAST && counts.interrupts > 0
        };
        if number % 16 == 0 && (0..card.queues()).all(is_enough) {
            is_over.store(true, Relaxed);
        }
        yield_now().await;
    }
}

/// A datagram to nobody's address (RFC 5737): the host knows a flow by addresses and ports.
fn datagram(MacAddress(mac): MacAddress, flow: u8) -> [u8; 60] {
    let mut frame = [0; 60];
    frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    frame[6..12].copy_from_slice(&mac);
    frame[12..24].copy_from_slice(&[8, 0, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17]);
    frame[26..34].copy_from_slice(&[198, 51, 100, 2, 198, 51, 100, 1]);
    // Port 4096 and on to port 7; no checksum.
    frame[34..42].copy_from_slice(&[16, flow, 0, 7, 0, 26, 0, 0]);
    frame
}
