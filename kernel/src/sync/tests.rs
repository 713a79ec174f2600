//! What only a running guest can show of locks: threads on all CPUs, interrupts in between.
#![forbid(unsafe_code)]
#![cfg(all(feature = "self-test", target_os = "none"))]

use alloc::{sync::Arc, vec::Vec};
use core::{
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::Duration,
};

use super::{Barrier, Condvar, Mutex, RwLock, Semaphore, channel};
use crate::{
    task,
    thread::{self, JoinHandle, spawn},
    time,
};

/// Data that a second holder would spoil.
#[derive(Default)]
pub(super) struct Pair(pub(super) u64, pub(super) u64);

impl Pair {
    pub(super) fn add(&mut self) {
        assert_eq!(self.0, self.1, "two holders");
        self.0 += 1;
        core::hint::spin_loop();
        self.1 += 1;
    }
}

crate::kernel_test! {
    async fn a_mutex_has_one_holder_among_tasks_and_threads() {
        static PAIR: Mutex<Pair> = Mutex::new(Pair(0, 0));
        let tasks: Vec<_> = (0..4).map(|_| task::spawn(async {
            for _ in 0..200 {
                let mut pair = PAIR.lock_async().await;
                pair.add();
                task::yield_now().await;
            }
        })).collect();
        let threads: Vec<_> = (0..4).map(|_| spawn(|| for _ in 0..200 {
            let mut pair = PAIR.lock();
            pair.add();
            thread::yield_now();
        })).collect();
        for task in tasks {
            task.await;
        }
        for thread in threads {
            thread.await;
        }
        assert_eq!(PAIR.lock().1, 1600);
    }
}

crate::kernel_test! {
    /// A wait that is given up hands its wake-up on: the lock is not lost.
    async fn a_wait_that_is_given_up_loses_no_wake_up() {
        static LOCK: Mutex<()> = Mutex::new(());
        if !time::has_timer() {
            crate::skip!("this machine has no timer");
        }
        for _ in 0..20 {
            let held = LOCK.lock_async().await;
            let impatient = task::spawn(async {
                task::timeout(Duration::from_micros(300), LOCK.lock_async()).await.is_ok()
            });
            let patient = task::spawn(async { drop(LOCK.lock_async().await) });
            task::sleep(Duration::from_micros(250)).await;
            drop(held);
            let _ = impatient.await;
            patient.await;
        }
    }
}

crate::kernel_test! {
    fn a_condvar_wakes_one_for_one_and_all_for_all() {
        struct Shared { state: Mutex<(u32, u32)>, changed: Condvar }
        let shared = Arc::new(Shared { state: Mutex::new((0, 0)), changed: Condvar::new() });
        let threads: Vec<_> = (0..6).map(|_| {
            let shared = shared.clone();
            spawn(move || {
                let mut state = shared.state.lock();
                state.0 += 1;
                state = shared.changed.wait(state);
                state.1 += 1;
            })
        }).collect();
        while shared.state.lock().0 != 6 {
            thread::yield_now();
        }
        shared.changed.notify_one();
        while shared.state.lock().1 == 0 {
            thread::yield_now();
        }
        thread::sleep(Duration::from_millis(1));
        assert_eq!(shared.state.lock().1, 1, "one was notified");
        shared.changed.notify_all();
        threads.into_iter().for_each(JoinHandle::join);
        assert_eq!(shared.state.lock().1, 6);
    }
}

crate::kernel_test! {
    async fn a_task_can_wait_for_a_condvar() {
        static STATE: Mutex<bool> = Mutex::new(false);
        static CHANGED: Condvar = Condvar::new();
        let waiter = task::spawn(async {
            let mut state = STATE.lock_async().await;
            while !*state {
                state = CHANGED.wait_async(state).await;
            }
        });
        task::yield_now().await;
        *STATE.lock_async().await = true;
        CHANGED.notify_all();
        waiter.await;
    }
}

crate::kernel_test! {
    fn a_channel_brings_every_value_once_and_in_order() {
        const VALUES: u32 = 1000;
        let (sender, receiver) = channel::bounded(4).unwrap();
        let senders: Vec<_> = (0..3_u32).map(|number| {
            let sender = sender.clone();
            spawn(move || (0..VALUES).for_each(|value| sender.send((number, value)).unwrap()))
        }).collect();
        drop(sender);
        let mut next = [0; 3];
        while let Some((number, value)) = receiver.recv() {
            assert_eq!(value, next[number as usize], "out of order");
            next[number as usize] += 1;
        }
        assert_eq!(next, [VALUES; 3]);
        senders.into_iter().for_each(JoinHandle::join);
    }
}

crate::kernel_test! {
    async fn a_channel_joins_tasks_and_threads_and_knows_its_end() {
        let (sender, receiver) = channel::bounded(1).unwrap();
        let sum = spawn(move || {
            let mut sum = 0;
            while let Some(value) = receiver.recv() {
                sum += value;
                if sum > 1000 {
                    break;
                }
            }
            sum
        });
        let mut value = 0_u32;
        while sender.send_async(value).await.is_ok() {
            value += 1;
        }
        assert!(sum.await > 1000);
        assert_eq!(sender.try_send(7), Err(channel::TrySendError::Closed(7)));
    }
}

crate::kernel_test! {
    fn a_semaphore_lets_so_many_in() {
        static INSIDE: AtomicUsize = AtomicUsize::new(0);
        static MOST: AtomicUsize = AtomicUsize::new(0);
        let semaphore = Arc::new(Semaphore::new(3));
        let threads: Vec<_> = (0..8).map(|_| {
            let semaphore = semaphore.clone();
            spawn(move || for _ in 0..20 {
                let _permit = semaphore.acquire();
                MOST.fetch_max(INSIDE.fetch_add(1, SeqCst) + 1, SeqCst);
                thread::yield_now();
                INSIDE.fetch_sub(1, SeqCst);
            })
        }).collect();
        threads.into_iter().for_each(JoinHandle::join);
        assert!((1..=3).contains(&MOST.load(SeqCst)), "{MOST:?} at a time");
        let all: Vec<_> = (0..3).map(|_| semaphore.try_acquire().unwrap()).collect();
        assert!(semaphore.try_acquire().is_none());
        drop(all);
    }
}

crate::kernel_test! {
    fn a_barrier_holds_until_all_are_there() {
        static CAME: AtomicUsize = AtomicUsize::new(0);
        let barrier = Arc::new(Barrier::new(4));
        let threads: Vec<_> = (0..4).map(|_| {
            let barrier = barrier.clone();
            spawn(move || {
                let mut last = 0;
                for round in 1..=10 {
                    CAME.fetch_add(1, SeqCst);
                    last += usize::from(barrier.wait());
                    assert!(CAME.load(SeqCst) >= 4 * round, "through before all came");
                    barrier.wait();
                }
                last
            })
        }).collect();
        assert_eq!(threads.into_iter().map(JoinHandle::join).sum::<usize>(), 10, "one a round is last");
    }
}

crate::kernel_test! {
    /// Readers never see a pair half written, and whoever gives up waiting holds nobody back.
    async fn a_lock_for_readers_and_writers_serves_tasks_and_threads() {
        static PAIR: RwLock<Pair> = RwLock::new(Pair(0, 0));
        let look = |pair: &Pair| assert_eq!(pair.0, pair.1, "a writer beside a reader");
        let tasks: Vec<_> = (0..4).map(|_| task::spawn(async move {
            for _ in 0..100 {
                PAIR.write_async().await.add();
                look(&*PAIR.read_async().await);
                task::yield_now().await;
            }
        })).collect();
        let threads: Vec<_> = (0..4).map(|_| spawn(move || for _ in 0..100 {
            PAIR.write().add();
            let pair = PAIR.read();
            thread::yield_now();
            look(&pair);
        })).collect();
        for task in tasks {
            task.await;
        }
        for thread in threads {
            thread.await;
        }
        let (one, two) = (PAIR.read(), PAIR.try_read());
        assert_eq!((one.1, two.is_some(), PAIR.try_write().is_none()), (800, true, true));
        if time::has_timer() {
            assert!(task::timeout(Duration::from_millis(2), PAIR.write_async()).await.is_err());
            assert!(PAIR.try_read().is_some(), "a writer that gave up holds readers back");
        }
    }
}
