//! Threads that take turns: by yielding, by waking each other, by handing a lock over. With more than one CPU each has one of
//! its own.

use alloc::sync::Arc;
use core::{
    hint::black_box,
    sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
};

use kernel::{
    sync::{Mutex, channel},
    thread,
};

use super::row::row;

const TURNS: u32 = 500;

pub(super) fn measure(cpus: u32) {
    if cpus == 1 {
        // With more, nobody else wants the CPU that is given.
        yields();
        hand_off();
    } else {
        contended();
    }
    wakes();
    channels();
}

/// Calls `with` while another thread does `act` again and again.
fn beside(act: impl Fn() + Send + 'static, with: impl FnOnce()) {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let other = thread::spawn(move || {
        while !stopped.load(SeqCst) {
            act();
        }
    });
    with();
    stop.store(true, SeqCst);
    other.join();
}

fn yields() {
    beside(thread::yield_now, || {
        row("switch by yield", 2 * TURNS, || (0..TURNS).for_each(|_| thread::yield_now()));
    });
}

/// Two threads that park and wake each other.
fn wakes() {
    let (main, ball) = (thread::current(), Arc::new(AtomicU32::new(0)));
    let played = ball.clone();
    let other = thread::spawn(move || {
        loop {
            match played.load(SeqCst) {
                1 => {
                    played.store(0, SeqCst);
                    main.unpark();
                }
                2 => return,
                _ => thread::park(),
            }
        }
    });
    row("wake a thread", 2 * TURNS, || {
        for _ in 0..TURNS {
            ball.store(1, SeqCst);
            other.thread().unpark();
            while ball.load(SeqCst) != 0 {
                thread::park();
            }
        }
    });
    ball.store(2, SeqCst);
    other.thread().unpark();
    other.join();
}

fn channels() {
    let (to, from) = (channel::bounded(1), channel::bounded(1));
    let (Ok((to, receive)), Ok((send, from))) = (to, from) else { return };
    let other = thread::spawn(move || {
        while let Some(value) = receive.recv() {
            let _: Result<(), channel::SendError<u32>> = send.send(value);
        }
    });
    row("wake through a channel", 2 * TURNS, || {
        for value in 0..TURNS {
            let _ = to.send(value);
            black_box(from.recv());
        }
    });
    drop(to);
    other.join();
}

static LOCK: Mutex<u32> = Mutex::new(0);

/// A mutex that its holder gives to who waits for it.
fn hand_off() {
    let turn = || {
        let mut count = LOCK.lock();
        *count += 1;
        // The other comes to wait.
        thread::yield_now();
    };
    beside(turn, || row("hand a mutex over", TURNS, || (0..TURNS).for_each(|_| turn())));
}

/// A mutex that two CPUs want all the time.
fn contended() {
    let turn = || *LOCK.lock() += 1;
    beside(turn, || row("contended mutex", TURNS, || (0..TURNS).for_each(|_| turn())));
}
