//! The task that drives the network: asleep until the card, a socket or a deadline wakes it.
//! Neighbours: `stack` (what is done), `drivers::class::net` (how the card is asked and waited for).
#![forbid(unsafe_code)]

use core::{
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll, Waker},
};

use drivers::class::net::Control;

use super::Shared;
use crate::{
    sync::IrqMutex,
    task::{Sleep, sleep_until, yield_now},
    time::{self, Instant},
};

/// Frames that are taken in before what they caused goes out.
const BATCH: usize = 64;

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
    let mut alarm = Alarm::default();
    loop {
        let taken = ingress(shared);
        if taken > 0 {
            // Whoever was woken writes first: it goes out with the acknowledgements.
            yield_now().await;
        }
        shared.release_all();
        {
            let mut stack = shared.stack.lock();
            stack.take_lease();
            if card.take_announcement() {
                stack.announce(card);
            }
            stack.egress(card);
        }
        card.flush();
        if taken < BATCH {
            poll_fn(|cx| wait(shared, &mut alarm, cx)).await;
        }
    }
}

/// Takes frames in; says how many.
fn ingress(shared: &Shared) -> usize {
    let mut stack = shared.stack.lock();
    let mut taken = 0;
    while taken < BATCH
        && let Some(frame) = shared.card.receive()
    {
        stack.ingress(&*shared.card, frame);
        taken += 1;
    }
    taken
}

fn wait(shared: &Shared, alarm: &mut Alarm, cx: &mut Context<'_>) -> Poll<()> {
    *WAKER.lock() = Some(cx.waker().clone());
    if !shared.released.lock().is_empty() {
        return Poll::Ready(());
    }
    let mut stack = shared.stack.lock();
    if !stack.wait(cx.waker()) || !shared.card.wait(cx.waker()) {
        return Poll::Ready(());
    }
    match stack.deadline() {
        Some(at) => alarm.poll(at, cx),
        None => Poll::Pending,
    }
}

/// A timer that is set anew only for earlier deadlines: to be woken once too often is cheaper than to set it with every
/// segment that is sent.
#[derive(Default)]
struct Alarm(Option<(u64, Sleep)>);

impl Alarm {
    /// Ready when `at`, in nanoseconds, is over.
    fn poll(&mut self, at: u64, cx: &mut Context<'_>) -> Poll<()> {
        if time::now().as_ns() >= at {
            self.0 = None;
            return Poll::Ready(());
        }
        if self.0.as_ref().is_none_or(|(armed, _)| *armed > at) {
            self.0 = Some((at, sleep_until(Instant::from_ns(at))));
        }
        let is_over = self.0.as_mut().is_some_and(|(_, sleep)| Pin::new(sleep).poll(cx).is_ready());
        if is_over {
            self.0 = None;
        }
        match is_over {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}
