//! Waiting for a time: `sleep`, `sleep_until`, and `timeout` around another future.
//! Neighbours: `time::timer` (who wakes), `executor` (who halts meanwhile).
#![forbid(unsafe_code)]

use core::{
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use crate::time::timer::{self, Timer};

/// Waits for `duration` at least.
pub fn sleep(duration: Duration) -> Sleep {
    let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    sleep_until(pv_ops::monotonic_ns().saturating_add(ns))
}

/// Waits until the monotonic clock shows `deadline_ns` at least.
pub fn sleep_until(deadline_ns: u64) -> Sleep {
    Sleep { deadline_ns, timer: None }
}

/// Future of [`sleep`] and [`sleep_until`].
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct Sleep {
    deadline_ns: u64,
    timer: Option<Timer>,
}

impl Future for Sleep {
    type Output = ();

    /// Without memory for a timer it stays ready and is polled until the time has come.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if pv_ops::monotonic_ns() >= self.deadline_ns {
            self.timer = None;
            return Poll::Ready(());
        }
        if self.timer.as_ref().is_some_and(|timer| timer.set_waker(cx.waker())) {
            return Poll::Pending;
        }
        match timer::register(self.deadline_ns, cx.waker().clone()) {
            Ok(timer) => self.timer = Some(timer),
            Err(_) => cx.waker().wake_by_ref(),
        }
        Poll::Pending
    }
}

/// The time was over before the future was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the time is over")]
pub struct Elapsed;

/// Runs `future`, but not longer than `duration`.
///
/// # Errors
/// [`Elapsed`]: the future was dropped unfinished.
pub async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    let mut sleep = pin!(sleep(duration));
    core::future::poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        sleep.as_mut().poll(cx).map(|()| Err(Elapsed))
    })
    .await
}
