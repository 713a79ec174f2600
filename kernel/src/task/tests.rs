//! Tasks on the host: threads play the interrupt handlers.
#![forbid(unsafe_code)]

use super::{executor::Tasks, yield_now};
use core::{
    future::{Future, poll_fn},
    pin::pin,
    task::{Context, Poll, Waker},
};
use std::{
    boxed::Box,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    vec::Vec,
};

/// A queue of its own for each test.
fn queue() -> &'static Tasks {
    Box::leak(Box::new(Tasks::new()))
}

/// The test plays the worker while it waits.
fn block_on<F: Future>(queue: &Tasks, future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(result) = future.as_mut().poll(&mut context) {
            return result;
        }
        let round = queue.len(0);
        (0..round).for_each(|_| _ = queue.run_one(0, 1));
        if round == 0 {
            thread::yield_now();
        }
    }
}

/// A device with an interrupt: counts events, wakes who waits for one.
#[derive(Default)]
struct Device {
    state: Mutex<(usize, Option<Waker>)>,
}

impl Device {
    fn interrupt(&self) {
        let waker = {
            let mut state = self.state.lock().unwrap();
            state.0 += 1;
            state.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    async fn event(&self) {
        poll_fn(|cx| {
            let mut state = self.state.lock().unwrap();
            if state.0 > 0 {
                state.0 -= 1;
                return Poll::Ready(());
            }
            state.1 = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

#[test]
fn a_handle_gives_the_result_whether_awaited_early_or_late() {
    let queue = queue();
    let sum = block_on(queue, async {
        let early = queue.spawn(0, async { 1 }).unwrap();
        let late = queue.spawn(0, async { 2 }).unwrap();
        let first = early.await;
        while !late.is_finished() {
            yield_now().await;
        }
        first + late.await
    });
    assert_eq!(sum, 3);
}

#[test]
fn a_task_outlives_its_handle() {
    let queue = queue();
    let ran = Arc::new(AtomicUsize::new(0));
    block_on(queue, async {
        let count = ran.clone();
        drop(queue.spawn(0, async move { count.fetch_add(1, Ordering::Relaxed) }).unwrap());
        while ran.load(Ordering::Relaxed) == 0 {
            yield_now().await;
        }
    });
    assert_eq!(queue.count(), 0);
}

#[test]
fn tasks_take_turns() {
    let queue = queue();
    let log = Arc::new(Mutex::new(Vec::new()));
    block_on(queue, async {
        let tasks: Vec<_> = ["a", "b", "c"]
            .map(|name| {
                let log = log.clone();
                queue.spawn(0, async move {
                    for _ in 0..3 {
                        log.lock().unwrap().push(name);
                        yield_now().await;
                    }
                })
            })
            .into_iter()
            .collect();
        for task in tasks {
            task.unwrap().await;
        }
    });
    assert_eq!(log.lock().unwrap().concat(), "abcabcabc");
}

#[test]
fn a_task_that_wakes_itself_does_not_starve_the_root() {
    let queue = queue();
    block_on(queue, async {
        drop(queue.spawn(0, async {
            loop {
                yield_now().await;
            }
        }));
        yield_now().await;
        yield_now().await;
    });
}

#[test]
fn no_wake_up_is_lost_between_two_threads() {
    const EVENTS: usize = 20_000;
    let queue = queue();
    let devices: Vec<Arc<Device>> = (0..4).map(|_| Arc::default()).collect();
    let threads: Vec<_> = devices
        .iter()
        .cloned()
        .map(|device| thread::spawn(move || (0..EVENTS).for_each(|_| device.interrupt())))
        .collect();
    block_on(queue, async {
        let mut tasks = Vec::new();
        for device in devices {
            let task = queue.spawn(0, async move {
                for _ in 0..EVENTS {
                    device.event().await;
                }
            });
            tasks.push(task.unwrap());
        }
        for task in tasks {
            task.await;
        }
    });
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn many_wakes_before_a_turn_are_one_poll() {
    let queue = queue();
    let polls = Arc::new(AtomicUsize::new(0));
    let device = Arc::new(Device::default());
    block_on(queue, async {
        let (count, inner) = (polls.clone(), device.clone());
        let task = queue
            .spawn(0, async move {
                let mut event = pin!(inner.event());
                poll_fn(|cx| {
                    count.fetch_add(1, Ordering::Relaxed);
                    event.as_mut().poll(cx)
                })
                .await;
            })
            .unwrap();
        yield_now().await;
        let waker = device.state.lock().unwrap().1.clone().unwrap();
        (0..10).for_each(|_| waker.wake_by_ref());
        device.interrupt();
        task.await;
    });
    assert_eq!(polls.load(Ordering::Relaxed), 2);
}

#[test]
fn a_wake_after_the_end_frees_the_task_in_the_executor() {
    let queue = queue();
    let kept = Arc::new(Mutex::new(None));
    let slot = kept.clone();
    block_on(queue, async {
        queue
            .spawn(
                0,
                poll_fn(move |cx| {
                    *slot.lock().unwrap() = Some(cx.waker().clone());
                    Poll::Ready(())
                }),
            )
            .unwrap()
            .await;
    });
    assert_eq!(queue.count(), 1, "the waker keeps it");
    kept.lock().unwrap().take().unwrap().wake();
    assert_eq!(queue.count(), 1, "it stands in the queue, to be freed by the executor");
    block_on(queue, async { yield_now().await });
    assert_eq!(queue.count(), 0);
}

#[test]
fn block_on_inside_a_task_runs_the_other_tasks() {
    let queue = queue();
    let total = block_on(queue, async {
        let outer = queue.spawn(0, async move {
            let inner = queue.spawn(0, async { 20 }).unwrap();
            block_on(queue, inner) + 1
        });
        outer.unwrap().await
    });
    assert_eq!(total, 21);
}

#[test]
fn dropping_an_awaited_future_is_no_wake_up() {
    let queue = queue();
    let device = Device::default();
    let mut event = Box::pin(device.event());
    assert!(event.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(event);
    device.interrupt();
    block_on(queue, device.event());
}

#[test]
fn a_cancelled_task_is_dropped_and_not_polled_again() {
    let queue = queue();
    let alive = Arc::new(());
    block_on(queue, async {
        let inside = alive.clone();
        let task = queue.spawn(0, async move {
            core::future::pending::<()>().await;
            drop(inside);
        });
        yield_now().await;
        assert_eq!(Arc::strong_count(&alive), 2);
        task.unwrap().cancel();
        yield_now().await;
    });
    assert_eq!((Arc::strong_count(&alive), queue.count()), (1, 0));
}

#[test]
fn a_cpu_without_tasks_takes_those_of_another() {
    let queue = queue();
    let task = queue.spawn(3, async { 7 }).unwrap();
    assert!(!queue.run_one(1, 3), "the fourth CPU is not asked");
    assert!(queue.run_one(1, 4));
    assert!(task.is_finished());
}
