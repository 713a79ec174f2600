//! Waiting for time to pass.
//! Neighbours: `time::timer` (who wakes), `time::now` (the clock).
#![forbid(unsafe_code)]

use core::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use crate::time::{self, Instant, timer};

/// Waits for `duration`, and a little more: never less.
pub fn sleep(duration: Duration) -> Sleep {
    sleep_until(time::now() + duration)
}

/// Waits until [`time::now`] has reached `deadline`.
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline, timer: None }
}

/// Future of [`sleep`] and [`sleep_until`]. Dropping it cancels the timer.
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct Sleep {
    deadline: Instant,
    timer: Option<timer::Timer>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if time::now() >= self.deadline {
            self.timer = None;
            return Poll::Ready(());
        }
        let waits = self.timer.as_ref().is_some_and(|timer| timer.set_waker(cx.waker()));
        if !waits {
            self.timer = match time::has_timer() {
                true => timer::register(self.deadline.as_ns(), cx.waker().clone()).ok(),
                false => None,
            };
        }
        if self.timer.is_none() {
            // A machine without a timer, or no memory for one more: asked again in the next round.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

/// The time was over before the future was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("timed out")]
pub struct Elapsed;

/// Gives `future` that much time, and drops it when the time is over.
///
/// # Errors
/// [`Elapsed`] when it was not done in time.
pub async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    let mut sleep = pin!(sleep(duration));
    poll_fn(|cx| {
        if let Poll::Ready(result) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(result));
        }
        sleep.as_mut().poll(cx).map(|()| Err(Elapsed))
    })
    .await
}
