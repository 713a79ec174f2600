//! The algorithms of locks, waits and wake-ups in every interleaving of two or three threads, by `loom`: the very source
//! of the guest, compiled once more with atomics whose every order is tried.
//! Neighbours: `sync::queued`, `task::parker`, `task::ready` (the sources), `sync::atomic` (what they have in the guest).
#![allow(dead_code, reason = "the sources are compiled whole, and tested by the part that has threads")]
#![allow(clippy::duplicate_mod, reason = "the sources are compiled once more, for loom")]

use loom::{
    cell::UnsafeCell,
    sync::{Arc, Notify},
    thread,
};

mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicU8, Ordering};

    macro_rules! constructor {
        ($(#[$doc:meta])* $vis:vis fn $($function:tt)*) => {
            $(#[$doc])* $vis fn $($function)*
        };
    }
    pub(crate) use constructor;
}

/// Sleeping CPUs: a kick that comes before the sleep ends it, as hypervisors promise.
mod wait {
    use super::{atomic::*, *};

    pub(super) const EARLY_LOOKS: u32 = 1;
    pub(super) const LOOKS: u32 = 2;
    pub(super) const CPUS: usize = 3;

    loom::lazy_static! {
        static ref KICKS: [Notify; CPUS] = core::array::from_fn(|_| Notify::new());
    }

    pub(super) fn relax() {
        thread::yield_now();
    }

    pub(super) fn sleep(cpu: u32, word: &AtomicU8, seen: u8) {
        if word.load(Ordering::SeqCst) == seen {
            KICKS[cpu as usize].wait();
        }
    }

    pub(super) fn kick(cpu: u32) {
        KICKS[cpu as usize].notify();
    }
}

/// A spin lock, as `waiters` sees it.
struct IrqMutex<T>(loom::sync::Mutex<T>);

impl<T> IrqMutex<T> {
    fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
        self.0.lock().unwrap()
    }
}

/// The thread that waits: a wake-up that comes before the wait ends it, as the parker promises.
mod current {
    use super::*;
    use std::task::{Wake, Waker};

    struct Current(Notify);

    impl Wake for Current {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.notify();
        }
    }

    loom::thread_local! {
        static CURRENT: std::sync::Arc<Current> = std::sync::Arc::new(Current(Notify::new()));
    }

    pub(super) fn waker() -> Waker {
        CURRENT.with(|current| current.clone().into())
    }

    pub(super) fn block() {
        CURRENT.with(|current| current.clone()).0.wait();
    }
}

#[path = "../task/parker.rs"]
mod parker;
#[path = "../sync/queued.rs"]
mod queued;
#[path = "../task/ready.rs"]
mod ready;
#[path = "../sync/waiters.rs"]
mod waiters;

use atomic::{AtomicU8, Ordering};
use parker::Parker;
use queued::{Place, Queued};
use ready::{After, State};
use waiters::Waiters;

/// Tries all interleavings with that many preemptions, which keeps a test below some seconds.
fn model(preemptions: usize, test: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(test);
}

/// A number that is no atomic: two threads that touch it at once are told by loom.
#[derive(Default)]
struct Plain(UnsafeCell<u32>);

impl Plain {
    fn add_one(&self) {
        // SAFETY: loom lends the place, and panics when it is lent to another thread as well.
        self.0.with_mut(|value| unsafe { *value += 1 });
    }

    fn get(&self) -> u32 {
        // SAFETY: as in `add_one`.
        self.0.with(|value| unsafe { *value })
    }
}

/// A lock with a counter behind it that would tell two holders at once.
struct Counter {
    lock: Queued,
    places: [Place; wait::CPUS],
    value: Plain,
}

impl Counter {
    fn new() -> Arc<Self> {
        let places = core::array::from_fn(|_| Place::new());
        Arc::new(Self { lock: Queued::new(), places, value: Plain::default() })
    }

    fn add(&self, cpu: u32) {
        if !self.lock.try_lock_in_turn() {
            self.lock.wait(&self.places, cpu, &|| ());
        }
        self.value.add_one();
        self.lock.unlock();
    }
}

fn count(cpus: u32, rounds: u32, preemptions: usize) {
    model(preemptions, move || {
        let counter = Counter::new();
        let others: Vec<_> = (1..cpus)
            .map(|cpu| {
                let counter = counter.clone();
                thread::spawn(move || (0..rounds).for_each(|_| counter.add(cpu)))
            })
            .collect();
        (0..rounds).for_each(|_| counter.add(0));
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(counter.value.get(), cpus * rounds);
        assert!(!counter.lock.is_locked());
    });
}

#[test]
fn the_queued_lock_has_one_holder_and_forgets_no_waiter() {
    count(2, 2, 4);
}

#[test]
fn the_queued_lock_goes_round_among_three() {
    count(3, 1, 2);
}

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

/// A channel of one place, as `sync::channel` is made: a queue, and two crowds that wait.
struct Channel {
    queue: IrqMutex<Vec<u32>>,
    places: Waiters,
    values: Waiters,
}

impl Channel {
    fn new() -> Arc<Self> {
        Arc::new(Self { queue: IrqMutex::new(Vec::new()), places: Waiters::new(), values: Waiters::new() })
    }

    fn send(&self, value: u32) {
        self.places.block_until(|| {
            let mut queue = self.queue.lock();
            if !queue.is_empty() {
                return None;
            }
            queue.push(value);
            drop(queue);
            self.values.wake_one();
            Some(())
        })
    }

    fn receive(&self) -> u32 {
        self.values.block_until(|| {
            let value = self.queue.lock().pop()?;
            self.places.wake_one();
            Some(value)
        })
    }
}

#[test]
fn a_channel_loses_neither_value_nor_wake_up() {
    model(2, || {
        let channel = Channel::new();
        let sender = {
            let channel = channel.clone();
            thread::spawn(move || (1..=2).for_each(|value| channel.send(value)))
        };
        assert_eq!([channel.receive(), channel.receive()], [1, 2]);
        sender.join().unwrap();
    });
}

#[test]
fn two_senders_and_a_full_channel_go_on() {
    model(2, || {
        let channel = Channel::new();
        let senders: Vec<_> = (1..=2)
            .map(|value| {
                let channel = channel.clone();
                thread::spawn(move || channel.send(value))
            })
            .collect();
        assert_eq!(channel.receive() + channel.receive(), 3);
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    });
}

/// The lock of `sync::mutex`: free, held, wanted.
#[test]
fn a_blocking_lock_has_one_holder_and_wakes_who_waits() {
    const FREE: u8 = 0;
    const WANTED: u8 = 2;
    model(2, || {
        let shared = Arc::new((AtomicU8::new(FREE), Waiters::new(), Plain::default()));
        let add = |shared: &(AtomicU8, Waiters, Plain)| {
            if shared.0.compare_exchange(FREE, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
                shared.1.block_until(|| (shared.0.swap(WANTED, Ordering::Acquire) == FREE).then_some(()));
            }
            shared.2.add_one();
            if shared.0.swap(FREE, Ordering::Release) == WANTED {
                shared.1.wake_one();
            }
        };
        let others: Vec<_> = (0..2)
            .map(|_| {
                let shared = shared.clone();
                thread::spawn(move || add(&shared))
            })
            .collect();
        add(&shared);
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!(shared.2.get(), 3);
    });
}
