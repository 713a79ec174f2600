//! A deadline that is put off again and again, and hardly ever comes: how long somebody may let others wait.
//! Neighbours: `sleep` (a deadline that comes).
#![forbid(unsafe_code)]

use core::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::Duration,
};

use super::sleep::{Elapsed, Sleep, sleep_until};
use crate::time::{self, Instant};

/// A timer that is set anew for earlier deadlines only. One that is too early wakes once for nothing, which is cheaper
/// than to set it whenever the deadline moves.
#[derive(Debug, Default)]
pub struct Alarm {
    set: Option<(Instant, Sleep, Waker)>,
}

impl Alarm {
    /// Not set.
    pub const fn new() -> Self {
        Self { set: None }
    }

    /// Ready when `deadline` is over; else the task is woken then, or before.
    pub fn poll(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let now = time::now();
        if now >= deadline {
            return Poll::Ready(());
        }
        if let Some((at, _, waker)) = &self.set
            && now < *at
            && *at <= deadline
            && waker.will_wake(cx.waker())
        {
            return Poll::Pending;
        }
        let mut sleep = sleep_until(deadline);
        let state = Pin::new(&mut sleep).poll(cx);
        self.set = state.is_pending().then(|| (deadline, sleep, cx.waker().clone()));
        state
    }

    /// As [`timeout`](super::timeout): gives `future` that much time, and drops it when the time is over.
    ///
    /// # Errors
    /// [`Elapsed`] when it was not done in time.
    pub async fn timeout<F: Future>(&mut self, duration: Duration, future: F) -> Result<F::Output, Elapsed> {
        let mut future = pin!(future);
        let mut deadline = None;
        poll_fn(|cx| {
            if let Poll::Ready(result) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(result));
            }
            let deadline = *deadline.get_or_insert_with(|| time::now() + duration);
            self.poll(deadline, cx).map(|()| Err(Elapsed))
        })
        .await
    }
}

crate::kernel_test! {
    async fn an_alarm_that_is_put_off_comes_at_its_last_deadline() {
        if !time::has_timer() {
            crate::skip!("this machine has no timer");
        }
        let mut alarm = Alarm::new();
        let start = time::now();
        for ms in [30, 2, 10] {
            let deadline = time::now() + Duration::from_millis(ms);
            // Looked at once, and then put off or brought forward.
            poll_fn(|cx| { let _ = alarm.poll(deadline, cx); Poll::Ready(()) }).await;
        }
        let deadline = start + Duration::from_millis(12);
        poll_fn(|cx| alarm.poll(deadline, cx)).await;
        assert!(time::now() >= deadline);
        assert_eq!(alarm.timeout(Duration::from_secs(100), async { 7 }).await, Ok(7));
        assert_eq!(alarm.timeout(Duration::from_millis(1), core::future::pending::<()>()).await, Err(Elapsed));
    }
}
