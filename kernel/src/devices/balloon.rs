//! Lending memory to the host: a task that keeps a virtio balloon as large as the host wants it, tells it how much memory is
//! free, and which (VirtIO 1.3 §5.5).
//!
//! An app that wants this calls [`serve`], once; others do not carry the driver. What is lent are blocks of frames, which come
//! back when the host says so, and, where it allows that, when an allocation would fail. Neighbours: `mm::frame` (whose memory
//! it is), `drivers::virtio::balloon` (the device).
#![forbid(unsafe_code)]

use alloc::{boxed::Box, string::String, vec::Vec};
use core::{
    future::poll_fn,
    task::{Context, Poll},
    time::Duration,
};

use drivers::{
    dma::DmaBuffer,
    virtio::{
        DeviceId, Features,
        balloon::{Balloon, MAX_PAGES, MAX_REPORT, News, PAGE_BYTES, Statistic},
        transport::Transport,
    },
};

use super::{
    Failure, failure,
    virtio::{self, rings},
    wiring::{Cause, Connect, Messages},
};
use crate::{
    mm::{
        dma,
        frame::{self, Frame, MAX_ORDER},
    },
    platform::Platform,
    sync::{IrqMutex, OnceCell},
    task,
};

/// How often free memory is reported, and a target that could not be reached is tried again.
const PERIOD: Duration = Duration::from_secs(1);
/// Frames that are left to the guest whatever the host wants: 1 MiB, or a sixteenth of all.
const LEAST_FREE: u64 = 256;

struct Held {
    driver: Balloon,
    /// What the balloon has.
    blocks: Vec<Frame>,
    pages: u64,
}

static HELD: IrqMutex<Option<Held>> = IrqMutex::new(None);

/// What the balloon is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Pages of 4 KiB that it has.
    pub pages: u64,
    /// Pages that the host wants it to have.
    pub target: u64,
    /// What was negotiated.
    pub features: Features,
    /// Notifications sent to the device.
    pub notifications: u64,
}

/// Looks for a balloon and, from then on, does what the host wants with it; false if there is none. The first call counts.
pub fn serve() -> bool {
    static TAKEN: OnceCell<()> = OnceCell::uninit();
    TAKEN.init_once(|| virtio::take(DeviceId::BALLOON, Messages::ONE, bring_up));
    HELD.lock().is_some()
}

/// What the balloon is like; `None` if there is none.
pub fn status() -> Option<Status> {
    let held = HELD.lock();
    let held = held.as_ref()?;
    Some(Status {
        pages: held.pages,
        target: held.driver.news().target.into(),
        features: held.driver.features(),
        notifications: held.driver.counts().notifications,
    })
}

fn bring_up(transport: Box<dyn Transport>, name: String, connect: Connect) -> Result<(), Failure> {
    if HELD.lock().is_some() {
        return Err(failure("there is a balloon already"));
    }
    let driver = Balloon::probe(transport, &Platform).map_err(failure)?;
    let features = driver.features();
    let (on_oom, reports) = (driver.deflates_on_oom(), driver.reports());
    *HELD.lock() = Some(Held { driver, blocks: Vec::new(), pages: 0 });
    let connected = connect.to("virtio-balloon", Box::new(interrupt)).map_err(failure);
    if connected.is_err() {
        drop(HELD.lock().take());
        return connected;
    }
    log::info!(
        "{name}: balloon{}{}{}",
        if on_oom { ", deflated when memory runs out" } else { "" },
        if reports { ", free memory reported" } else { "" },
        rings(features)
    );
    if on_oom {
        frame::on_shortage(relief);
    }
    drop(task::spawn(run(reports)));
    Ok(())
}

fn interrupt(cause: Cause) {
    if let Some(held) = &mut *HELD.lock() {
        match cause {
            Cause::Any => held.driver.interrupt(),
            Cause::Queues { .. } => held.driver.queue_interrupt(),
        }
    }
}

fn with<R>(act: impl FnOnce(&mut Held) -> R) -> Option<R> {
    HELD.lock().as_mut().map(act)
}

/// Waits for `poll` with the balloon; `None` if that is gone.
async fn wait<R>(mut poll: impl FnMut(&mut Held, &mut Context<'_>) -> Poll<R>) -> Option<R> {
    poll_fn(|cx| match with(|held| poll(held, cx)) {
        Some(Poll::Ready(result)) => Poll::Ready(Some(result)),
        Some(Poll::Pending) => Poll::Pending,
        None => Poll::Ready(None),
    })
    .await
}

/// The balloon's task. It ends when the device has failed: nothing is lent any more then.
async fn run(reports: bool) {
    let mut is_behind = false;
    loop {
        let news = wait(|held, cx| held.driver.poll_news(cx.waker()));
        let news: Option<News> = if reports || is_behind {
            match task::timeout(PERIOD, news).await {
                Ok(news) => news,
                Err(_) => with(|held| held.driver.news()),
            }
        } else {
            news.await
        };
        let (Some(news), None) = (news, with(|held| held.driver.fault()).flatten()) else { break };
        if news.wants_statistics {
            tell();
        }
        is_behind = !adjust(news.target.into()).await;
        if reports {
            report().await;
        }
    }
    let held = HELD.lock().take();
    if let Some(error) = held.as_ref().and_then(|held| held.driver.fault()) {
        log::warn!("virtio-balloon: {error}: no memory is lent any more");
    }
    drop(held);
}

fn tell() {
    let statistics = frame::statistics();
    let (free, total) = (statistics.free_bytes(), statistics.total_bytes());
    let values = [(Statistic::Free, free), (Statistic::Total, total), (Statistic::Available, free)];
    with(|held| held.driver.tell(&values));
}

/// Brings the balloon to `target` pages, as far as that goes; whether it got there.
async fn adjust(target: u64) -> bool {
    loop {
        let Some(pages) = with(|held| held.pages) else { return true };
        let moved = match () {
            () if pages < target => grow(target - pages).await,
            () if pages > target => shrink(pages - target).await,
            () => return true,
        };
        if !moved {
            return false;
        }
        with(|held| held.driver.set_actual(held.pages as u32));
    }
}

/// The largest order of blocks of which `pages` make one, and one list takes all pages.
fn order_of(pages: u64) -> u8 {
    (pages.min(MAX_PAGES as u64).ilog2() as u8).min(MAX_ORDER)
}

/// Numbers of the pages of a block, as the device counts them.
fn numbers(block: &Frame) -> impl Iterator<Item = u32> + use<> {
    let first = block.address() / PAGE_BYTES;
    (first..first + block.len_bytes() / PAGE_BYTES).map(|number| number as u32)
}

/// Lends one more block, of `wanted` pages at most.
async fn grow(wanted: u64) -> bool {
    let statistics = frame::statistics();
    let room = statistics.free.saturating_sub(LEAST_FREE.max(statistics.total / 16));
    if room == 0 {
        return false;
    }
    let order = order_of(wanted.min(room));
    let Some(block) = (0..=order).rev().find_map(|order| frame::alloc_spare(order).ok()) else {
        return false;
    };
    if !make_room() {
        return false;
    }
    let sent = with(|held| {
        let sent = held.blocks.len() < held.blocks.capacity() && held.driver.inflate(numbers(&block));
        if sent {
            held.pages += block.len_bytes() / PAGE_BYTES;
            held.blocks.push(block);
        }
        sent
    });
    sent == Some(true)
        && matches!(wait(|held, cx| held.driver.poll_read(true, cx.waker())).await, Some(Ok(())))
}

/// Makes room in the list for a block, and for its halves; memory for it is taken while no lock is held.
fn make_room() -> bool {
    const ROOM: usize = MAX_ORDER as usize + 2;
    let Some((len, capacity)) = with(|held| (held.blocks.len(), held.blocks.capacity())) else {
        return false;
    };
    if capacity - len >= ROOM {
        return true;
    }
    let mut larger = Vec::new();
    if larger.try_reserve_exact(2 * len + 2 * ROOM).is_err() {
        return false;
    }
    let smaller = with(|held| {
        larger.append(&mut held.blocks);
        core::mem::replace(&mut held.blocks, larger)
    });
    drop(smaller);
    true
}

/// Takes one block back, of `wanted` pages at most, and frees it once the host knows.
async fn shrink(wanted: u64) -> bool {
    if !make_room() {
        return false;
    }
    let Some(Some(block)) = with(|held| take(held, wanted)) else { return false };
    let read = wait(|held, cx| held.driver.poll_read(false, cx.waker())).await;
    drop(block);
    matches!(read, Some(Ok(())))
}

/// Takes a block of `wanted` pages at most out of the balloon, if there is room for the halves that stay, and tells the host.
fn take(held: &mut Held, wanted: u64) -> Option<Frame> {
    let mut block = held.blocks.pop()?;
    while block.len_bytes() / PAGE_BYTES > wanted && held.blocks.capacity() - held.blocks.len() > 1 {
        match block.split() {
            Ok((stays, goes)) => {
                held.blocks.push(stays);
                block = goes;
            }
            Err(whole) => {
                block = whole;
                break;
            }
        }
    }
    if !held.driver.deflate(numbers(&block)) {
        held.blocks.push(block);
        return None;
    }
    held.pages -= block.len_bytes() / PAGE_BYTES;
    Some(block)
}

/// Looks that the host is given to take note of what comes back while somebody waits for memory.
const RELIEF_LOOKS: u32 = 10_000_000;

/// Called when an allocation would fail: takes a block back at once (§5.5.6.1). The caller may hold the heap's lock: nobody is
/// woken here, nothing is allocated, and a balloon in use is left alone.
fn relief() -> bool {
    let Some(mut held) = HELD.try_lock() else { return false };
    let Some(held) = held.as_mut() else { return false };
    let settle = |held: &mut Held| {
        (0..RELIEF_LOOKS).any(|_| {
            core::hint::spin_loop();
            held.driver.deflate_was_read()
        })
    };
    if !settle(held) {
        return false;
    }
    let Some(block) = take(held, MAX_PAGES as u64) else { return false };
    if held.driver.must_tell_host() && !settle(held) {
        // The host has not read it: the block stays where it is, to be told of again.
        held.pages += block.len_bytes() / PAGE_BYTES;
        held.blocks.push(block);
        return false;
    }
    drop(block);
    true
}

/// Tells the host of large free blocks that it does not know of (§5.5.6.7), a quarter of what is free at a time.
async fn report() {
    loop {
        let quarter = frame::statistics().free_bytes() / 4;
        let mut memory = Vec::with_capacity(MAX_REPORT);
        let mut bytes = 0;
        while memory.len() < MAX_REPORT
            && bytes + (PAGE_BYTES << MAX_ORDER) <= quarter
            && let Some(block) = dma::alloc_unreported()
        {
            bytes += PAGE_BYTES << MAX_ORDER;
            memory.push(DmaBuffer::new(block));
        }
        if memory.is_empty() {
            return;
        }
        let sent = with(|held| held.driver.report(memory));
        match sent {
            Some(Ok(())) => drop(wait(|held, cx| held.driver.poll_reported(cx.waker())).await),
            // Dropped here, it counts as reported: a device that takes none is not asked again and again.
            Some(Err(memory)) => return drop(memory),
            None => return,
        }
    }
}
