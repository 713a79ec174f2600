//! Spinning and blocking locks, condition variables, semaphores, barriers and channels: one holder at a time, no wake-up lost.
//! Neighbours: `sync` (the sources).

use super::{
    Condvar, Mutex, Plain, channel, model,
    queued::{Place, Queued},
    semaphore::{Barrier, Semaphore},
    sharing::Sharing,
    wait,
};
use loom::{sync::Arc, thread};

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

/// Runs `body` in so many threads, this one among them.
fn together(threads: usize, body: impl Fn(usize) + 'static) {
    let body = Arc::new(body);
    let start = |number| {
        let body = body.clone();
        thread::spawn(move || body(number))
    };
    let others: Vec<_> = (1..threads).map(start).collect();
    body(0);
    others.into_iter().for_each(|other| other.join().unwrap());
}

#[test]
fn a_blocking_lock_has_one_holder_and_wakes_who_waits() {
    model(2, || {
        let value = Arc::new(Mutex::new(0));
        let counted = value.clone();
        together(3, move |_| *counted.lock() += 1);
        assert_eq!(*value.lock(), 3);
        assert!(!value.lock.is_locked());
    });
}

/// Data and condition variable of a one-way street.
fn street<T>(value: T) -> Arc<(Mutex<T>, Condvar)> {
    Arc::new((Mutex::new(value), Condvar::new()))
}

#[test]
fn a_notification_between_look_and_wait_is_not_lost() {
    model(3, || {
        let shared = street(false);
        together(2, move |number| match number {
            0 => drop(shared.1.wait_while(shared.0.lock(), |open| !*open)),
            _ => {
                *shared.0.lock() = true;
                shared.1.notify_one();
            }
        });
    });
}

#[test]
fn all_who_wait_are_woken_by_one_notification_of_all() {
    model(2, || {
        let shared = street(false);
        together(3, move |number| match number {
            0 => {
                *shared.0.lock() = true;
                shared.1.notify_all();
            }
            _ => drop(shared.1.wait_while(shared.0.lock(), |open| !*open)),
        });
    });
}

#[test]
fn a_permit_that_is_given_back_is_somebody_else_s() {
    model(2, || {
        let shared = Arc::new((Semaphore::new(1), Plain::default()));
        let counted = shared.clone();
        together(3, move |_| {
            let permit = counted.0.acquire();
            counted.1.add_one();
            drop(permit);
        });
        assert_eq!(shared.1.get(), 3);
        assert!(shared.0.try_acquire().is_some());
    });
}

#[test]
fn nobody_leaves_a_barrier_before_all_have_come_and_none_stays() {
    model(2, || {
        let shared = Arc::new((Barrier::new(2), Plain::default()));
        together(2, move |number| {
            if number == 0 {
                shared.1.add_one();
            }
            shared.0.wait();
            assert_eq!(shared.1.get(), 1);
        });
    });
}

#[test]
fn a_channel_loses_neither_value_nor_wake_up() {
    model(2, || {
        let (sender, receiver) = channel::bounded(1).unwrap();
        let other = thread::spawn(move || (1..=2).for_each(|value| sender.send(value).unwrap()));
        assert_eq!([receiver.recv(), receiver.recv()], [Some(1), Some(2)]);
        other.join().unwrap();
        assert_eq!(receiver.recv(), None);
    });
}

#[test]
fn two_senders_and_a_full_channel_go_on() {
    model(2, || {
        let (sender, receiver) = channel::bounded(1).unwrap();
        let start = |value: u32| {
            let sender = sender.clone();
            thread::spawn(move || sender.send(value).unwrap())
        };
        let senders: Vec<_> = (1..=2).map(start).collect();
        drop(sender);
        let sum = receiver.recv().into_iter().chain(receiver.recv()).sum::<u32>();
        assert_eq!(sum, 3);
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    });
}

#[test]
fn who_waits_for_a_channel_hears_of_its_end() {
    model(3, || {
        let (sender, receiver) = channel::bounded::<u32>(1).unwrap();
        let other = thread::spawn(move || drop(sender));
        assert_eq!(receiver.recv(), None);
        other.join().unwrap();
        let (sender, receiver) = channel::bounded(1).unwrap();
        sender.send(1).unwrap();
        let other = thread::spawn(move || drop(receiver));
        assert!(sender.send(2).is_err());
        other.join().unwrap();
    });
}

/// A lock for readers and writers, with a number that would tell a writer beside anybody.
struct Shared {
    lock: Sharing,
    value: Plain,
}

impl Shared {
    fn new() -> Arc<Self> {
        Arc::new(Self { lock: Sharing::new(), value: Plain::default() })
    }

    fn read(&self) -> u32 {
        self.lock.read();
        let value = self.value.get();
        self.lock.end_read();
        value
    }

    fn add(&self) {
        self.lock.write();
        self.value.add_one();
        self.lock.end_write();
    }
}

#[test]
fn a_writer_is_alone_and_everybody_goes_on() {
    for readers in [1, 2] {
        model(2, move || {
            let shared = Shared::new();
            let used = shared.clone();
            together(3, move |number| if number < readers { assert!(used.read() <= 2) } else { used.add() });
            assert_eq!(shared.value.get(), 3 - readers as u32);
            assert!(shared.lock.is_free());
        });
    }
}

#[test]
fn readers_share_and_two_wait_for_a_writer() {
    model(2, || {
        let shared = Shared::new();
        shared.lock.write();
        let used = shared.clone();
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let used = used.clone();
                thread::spawn(move || used.read())
            })
            .collect();
        shared.value.add_one();
        shared.lock.end_write();
        readers.into_iter().for_each(|reader| assert_eq!(reader.join().unwrap(), 1));
    });
}

#[test]
fn a_writer_that_gives_up_holds_nobody_back() {
    model(3, || {
        let shared = Shared::new();
        shared.lock.read();
        let wish = shared.lock.wish();
        let used = shared.clone();
        let reader = thread::spawn(move || used.read());
        drop(wish);
        assert_eq!(reader.join().unwrap(), 0);
        shared.lock.end_read();
        assert!(shared.lock.is_free());
    });
}
