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

crate::kernel_test! {
    async fn a_sleeper_wakes_after_its_time_and_not_before() {
        if !time::has_timer() {
            crate::skip!("this machine has no timer");
        }
        for us in [0, 1, 500, 5_000] {
            let duration = Duration::from_micros(us);
            let start = time::now();
            sleep(duration).await;
            assert!(start.elapsed() >= duration, "woken after {:?} of {duration:?}", start.elapsed());
        }
    }
}

crate::kernel_test! {
    /// The later one is waited for first: nobody is forgotten, and nobody wakes at another's deadline.
    async fn many_sleepers_each_wake_after_their_own_deadline() {
        use alloc::vec::Vec;
        let start = time::now();
        let sleepers: Vec<_> = [12, 4, 8, 0, 4]
            .map(|ms| super::spawn(async move {
                sleep(Duration::from_millis(ms)).await;
                (Duration::from_millis(ms), time::now())
            }))
            .into();
        for sleeper in sleepers {
            let (duration, woken) = sleeper.await;
            let slept = woken.as_ns() - start.as_ns();
            assert!(u128::from(slept) >= duration.as_nanos(), "woken after {slept} ns of {duration:?}");
        }
    }
}

crate::kernel_test! {
    async fn a_timeout_ends_what_does_not_end() {
        let start = time::now();
        assert_eq!(timeout(Duration::from_millis(2), core::future::pending::<()>()).await, Err(Elapsed));
        assert!(start.elapsed() >= Duration::from_millis(2));
        assert_eq!(timeout(Duration::from_secs(60), async { 7 }).await, Ok(7));
    }
}

crate::kernel_test! {
    /// One interrupt for the sleeper at most, and none while nothing is to do. A clock that is a little slower than the
    /// timer has it armed again for the rest.
    async fn an_idle_cpu_is_left_alone() {
        if !time::has_timer() {
            crate::skip!("this machine has no timer");
        }
        let timer_interrupts = || crate::cpu::current().interrupts(crate::irq::vectors::TIMER);
        let before = timer_interrupts();
        sleep(Duration::from_millis(30)).await;
        let came = timer_interrupts() - before;
        assert!(came <= 3, "{came} timer interrupts in 30 ms of idleness");
    }
}
