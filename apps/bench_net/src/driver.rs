//! Through the driver.
#![forbid(unsafe_code)]

use core::{future::poll_fn, task::Poll};

use drivers::class::net::{Frame, SendOffload};
use kernel::{devices::net::Card, yield_now};

use crate::{Case, Counted, HEADER, now_ns};

/// Looks for room before an interrupt is waited for.
const LOOKS: u32 = 1000;

/// Sends batch after batch for so long.
pub(crate) async fn measure(card: &Card, case: Case, ns: u64) -> Counted {
    let (before, start) = (card.counts(), now_ns());
    while now_ns() < start + ns {
        for _ in 0..case.batch {
            let mut frame = match card.buffer(case.len) {
                Some(frame) => frame,
                None => room(card, case.len).await,
            };
            frame.bytes_mut()[..HEADER.len()].copy_from_slice(&HEADER);
            card.send(frame, SendOffload::default());
        }
        card.flush();
    }
    let after = card.counts();
    Counted {
        frames: after.sent - before.sent,
        ns: now_ns() - start,
        notifications: after.notifications - before.notifications,
        interrupts: after.interrupts - before.interrupts,
    }
}

/// Room for a frame: looked for at first, then waited for.
async fn room(card: &Card, len: usize) -> Frame {
    card.flush();
    for _ in 0..LOOKS {
        if let Some(frame) = card.buffer(len) {
            return frame;
        }
        yield_now().await;
    }
    poll_fn(|cx| match card.buffer(len) {
        Some(frame) => Poll::Ready(frame),
        None => {
            if !card.wait_for_all(cx.waker()) {
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        }
    })
    .await
}
