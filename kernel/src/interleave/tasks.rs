//! Threads that wait and are woken, tasks that are woken and polled.
//! Neighbours: `task::parker`, `task::ready` (the sources).

use super::{
    Plain,
    atomic::{AtomicU8, Ordering},
    model,
    parker::Parker,
    ready::{After, State},
};
use loom::{
    sync::{Arc, Notify},
    thread,
};

#[test]
fn a_wake_up_before_or_during_a_wait_ends_it() {
    model(5, || {
        let shared = Arc::new((Parker::new(), Notify::new(), AtomicU8::new(0)));
        let waker = {
            let shared = shared.clone();
            thread::spawn(move || {
                for value in 1..=2 {
                    shared.2.store(value, Ordering::Relaxed);
                    if shared.0.unpark() {
                        // The run queue.
                        shared.1.notify();
                    }
                }
            })
        };
        // Waits as the kernel does: until its condition holds.
        while shared.2.load(Ordering::Relaxed) != 2 {
            if shared.0.park() {
                shared.1.wait();
            }
        }
        waker.join().unwrap();
    });
}

/// A task that two wakers wake and two workers poll: it stands in one list at a time, and is polled after each wake.
#[test]
fn a_woken_task_is_queued_once_and_polled_afterwards() {
    model(3, || {
        struct Task {
            state: State,
            polled: Plain,
            event: AtomicU8,
            seen: AtomicU8,
        }
        impl Task {
            /// What a worker does with a task from a list, until it is in none.
            fn run(&self) {
                loop {
                    if !self.state.begin() {
                        return;
                    }
                    // Two pollers at once would be told here.
                    self.polled.add_one();
                    self.seen.store(self.event.load(Ordering::Acquire), Ordering::Release);
                    if self.state.end(false) == After::Leave {
                        return;
                    }
                }
            }
        }
        let task = Arc::new(Task {
            state: State::ready(),
            polled: Plain::default(),
            event: AtomicU8::new(0),
            seen: AtomicU8::new(0),
        });
        let wakers: Vec<_> = (0..2)
            .map(|_| {
                let task = task.clone();
                thread::spawn(move || {
                    task.event.fetch_add(1, Ordering::Release);
                    if task.state.wake() {
                        task.run();
                    }
                })
            })
            .collect();
        task.run();
        wakers.into_iter().for_each(|waker| waker.join().unwrap());
        assert_eq!(task.seen.load(Ordering::Acquire), 2, "an event that no poll saw");
    });
}
