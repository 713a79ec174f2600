//! Threads that take turns: by yielding, by waking each other, by handing a lock over. With more than one CPU each has one of
//! its own.

use alloc::sync::Arc;
use core::{
    hint::{black_box, spin_loop},
    sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
};

use kernel::{
    pv_ops,
    sync::{Mutex, channel},
    thread,
};

use super::row::{Rows, row};

const TURNS: u32 = 500;
/// Hand-overs to another CPU.
const FEW: u32 = 200;

pub(super) fn measure(cpus: u32) {
    if cpus == 1 {
        // With more, nobody else wants the CPU that is given.
        yields();
        hand_over();
    } else {
        hand_across();
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

/// A mutex that its holder gives to who waits for it: when it yields first the other comes to wait, then the other takes it.
fn hand_over() {
    static LOCK: Mutex<u32> = Mutex::new(0);
    let turn = || {
        let mut count = LOCK.lock();
        *count += 1;
        thread::yield_now();
        drop(count);
        thread::yield_now();
    };
    beside(turn, || row("hand a mutex over", 2 * TURNS, || (0..TURNS).for_each(|_| turn())));
}

/// As [`hand_over`], to another CPU: from the moment before it is given back to that at which the other has it.
fn hand_across() {
    /// So long it is held: the other comes to wait meanwhile.
    const HOLD_NS: u64 = 100_000;
    /// When it was given back last.
    static LOCK: Mutex<u64> = Mutex::new(0);
    static HOLDER: AtomicU32 = AtomicU32::new(0);
    let turn = |own: u32| {
        let mut given_ns = LOCK.lock();
        let taken_ns = pv_ops::monotonic_ns();
        let took_ns = taken_ns - *given_ns;
        HOLDER.store(own, SeqCst);
        while pv_ops::monotonic_ns() < taken_ns + HOLD_NS {
            spin_loop();
        }
        *given_ns = pv_ops::monotonic_ns();
        drop(given_ns);
        took_ns
    };
    HOLDER.store(1, SeqCst);
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let wait_for = |other: u32, stop: &AtomicBool| {
        while HOLDER.load(SeqCst) != other && !stop.load(SeqCst) {
            spin_loop();
        }
    };
    let other = thread::spawn(move || {
        while !stopped.load(SeqCst) {
            wait_for(1, &stopped);
            turn(2);
        }
    });
    let mut rows = Rows::new();
    for _ in 0..FEW {
        wait_for(2, &stop);
        rows.put_ns(turn(1));
    }
    rows.print("hand a mutex over");
    stop.store(true, SeqCst);
    other.join();
}
