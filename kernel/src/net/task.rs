//! The task that drives the network: asleep until the card, a socket or a deadline wakes it.
//! Neighbours: `stack` (what is done), `drivers::class::net` (how the card is asked and waited for).
#![forbid(unsafe_code)]

use core::{
    future::poll_fn,
    task::{Context, Poll, Waker},
};

use drivers::class::net::{Control, Frame, NetDevice};

use super::{Shared, stack::instant};
use crate::{
    devices::Habit,
    sync::IrqMutex,
    task::{Alarm, would_halt, yield_now},
    time::{self, Instant},
};

/// Frames that are taken in before what they caused goes out: so few that the device works on the last ones while the next
/// are looked at, so many that it is not notified of each.
const BATCH: usize = 8;
/// How long the card is looked at before its interrupt is waited for, where that has brought more frames (`Habit`): to be woken
/// from a halt costs about as much.
const WATCH_NS: u64 = 100_000;

/// Woken when something was released.
static WAKER: IrqMutex<Option<Waker>> = IrqMutex::new(None);

/// Wakes the task, from wherever.
pub(super) fn wake() {
    let waker = WAKER.lock().take();
    waker.into_iter().for_each(Waker::wake);
}

/// Runs for ever.
pub(super) async fn run(shared: &'static Shared) {
    let card = &*shared.card;
    // Cards that cannot choose take everything; smoltcp looks whom a frame is for.
    for control in [Control::AllMulticast(true), Control::Promiscuous(false)] {
        if let Err(error) = card.control(control) {
            log::debug!("net: {control:?}: {error}");
        }
    }
    let mut alarm = Alarm::new();
    let mut queues = Queues { card, next: 0 };
    let (mut habit, mut frames) = (Habit::new(), 0u32);
    let (mut looks, mut begins) = (false, true);
    loop {
        let mut taken = ingress(shared, &mut queues);
        if taken == 0 && looks {
            let watched = watch(shared, &mut queues);
            looks = watched.is_some();
            taken = watched.unwrap_or(0);
        }
        frames = frames.wrapping_add(taken as u32);
        if taken > 0 {
            // Whoever was woken writes first: it goes out with the acknowledgements.
            yield_now().await;
        }
        shared.release_all();
        {
            let mut stack = shared.stack.lock();
            // Whoever looks for the guest already need not ask again.
            let is_new = stack.take_lease() || core::mem::take(&mut begins);
            if card.take_announcement() || is_new {
                stack.announce(card);
            }
            stack.egress(card, time::now().as_ns());
        }
        card.flush();
        if !looks {
            poll_fn(|cx| wait(shared, &mut alarm, cx)).await;
        }
        looks = habit.decide(time::now().as_ns(), frames);
    }
}

/// The card's queues, from which frames are taken in turn: none is kept waiting by another one that is never empty.
struct Queues<'a> {
    card: &'a dyn NetDevice,
    next: u16,
}

impl Queues<'_> {
    fn receive(&mut self) -> Option<Frame> {
        let count = self.card.queues();
        (0..count).find_map(|_| {
            let queue = self.next % count;
            self.next = queue + 1;
            self.card.receive(queue)
        })
    }
}

/// Takes frames in; says how many.
fn ingress(shared: &Shared, queues: &mut Queues<'_>) -> usize {
    let Some(first) = queues.receive() else { return 0 };
    let now = instant(time::now().as_ns());
    let mut stack = shared.stack.lock();
    stack.ingress(&*shared.card, first, now);
    let mut taken = 1;
    while taken < BATCH
        && let Some(frame) = queues.receive()
    {
        stack.ingress(&*shared.card, frame, now);
        taken += 1;
    }
    taken
}

/// Looks for a while whether there is something to do, as long as this CPU would only halt otherwise: takes frames in, and
/// says how many; none if a socket was used.
fn watch(shared: &Shared, queues: &mut Queues<'_>) -> Option<usize> {
    let until = time::now().as_ns() + WATCH_NS;
    while would_halt() && time::now().as_ns() < until {
        let taken = ingress(shared, queues);
        if taken > 0 || shared.stack.lock().is_touched() {
            return Some(taken);
        }
        // Without the hint that this is a loop: QEMU's TCG takes its big lock at each, which the device's side needs.
    }
    None
}

fn wait(shared: &Shared, alarm: &mut Alarm, cx: &mut Context<'_>) -> Poll<()> {
    *WAKER.lock() = Some(cx.waker().clone());
    if !shared.released.lock().is_empty() {
        return Poll::Ready(());
    }
    let mut stack = shared.stack.lock();
    if !stack.wait(cx.waker()) || !shared.card.wait_for_all(cx.waker()) {
        return Poll::Ready(());
    }
    alarm.poll(Instant::from_ns(stack.deadline()), cx)
}
