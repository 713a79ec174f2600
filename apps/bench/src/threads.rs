//! What threads, tasks, locks, timers and memory cost: nanoseconds and cycles for one of each.
//!
//! Each row is measured some times over, many operations in a row each; shown are the least and the median. Where
//! threads take turns the figure is for one turn: of two that wake each other, half a round trip.

use alloc::{boxed::Box, string::String, sync::Arc, vec::Vec};
use core::{
    future::Future,
    hint::black_box,
    sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    time::Duration,
};

use kernel::{
    cpu::{self, CpuSet, probe},
    mm::layout,
    println, pv_ops,
    sync::{IrqMutex, Mutex, channel},
    task,
    thread::{self, Builder},
    time,
};

/// Times that a row is measured.
const ROWS: usize = 15;

/// Measures all and prints the table.
pub(crate) async fn measure() {
    println!("on {} CPU(s)             ns: least (median)   cycles", cpu::percpu::up().len());
    memory();
    locks();
    yields();
    wakes();
    hand_off();
    starts();
    tasks().await;
    lateness().await;
    others();
}

/// One row: `run` does `count` operations.
fn row(name: &str, count: u32, mut run: impl FnMut()) {
    let mut rows: Vec<(u64, u64)> = Vec::new();
    run();
    for _ in 0..ROWS {
        let (start_ns, start) = (pv_ops::monotonic_ns(), pv_ops::rdtsc());
        run();
        rows.push((pv_ops::monotonic_ns() - start_ns, pv_ops::rdtsc() - start));
    }
    print(name, count, rows);
}

/// As [`row`], for what awaits.
async fn row_async<F: Future<Output = ()>>(name: &str, count: u32, run: impl Fn() -> F) {
    let mut rows: Vec<(u64, u64)> = Vec::new();
    run().await;
    for _ in 0..ROWS {
        let (start_ns, start) = (pv_ops::monotonic_ns(), pv_ops::rdtsc());
        run().await;
        rows.push((pv_ops::monotonic_ns() - start_ns, pv_ops::rdtsc() - start));
    }
    print(name, count, rows);
}

fn print(name: &str, count: u32, mut rows: Vec<(u64, u64)>) {
    rows.sort_unstable();
    let count = u64::from(count);
    let (least, median) = (rows[0], rows[rows.len() / 2]);
    let ns: String = alloc::format!("{} ({})", least.0 / count, median.0 / count);
    println!("{name:<24} {ns:<20} {}", least.1 / count);
}

fn memory() {
    row("allocate 64 bytes", 1000, || {
        for value in 0..1000_u64 {
            drop(black_box(Box::new([value; 8])));
        }
    });
    row("allocate 4 KiB", 200, || {
        for _ in 0..200 {
            drop(black_box(Vec::<u8>::with_capacity(4096)));
        }
    });
    // Nothing is mapped there: the fault is taken, recognised and returned from.
    row("page fault", 100, || {
        for _ in 0..100 {
            black_box(probe::read_frame(layout::HUGE - 4096));
        }
    });
}

fn locks() {
    static SPIN: IrqMutex<u64> = IrqMutex::new(0);
    static MUTEX: Mutex<u64> = Mutex::new(0);
    row("free spin lock", 1000, || (0..1000).for_each(|_| *SPIN.lock() += 1));
    row("free mutex", 1000, || (0..1000).for_each(|_| *MUTEX.lock() += 1));
}

/// Two threads that both want this CPU; with more CPUs each has one of its own, and nothing is given.
fn yields() {
    const TURNS: u32 = 500;
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let other = thread::spawn(move || {
        while !stopped.load(SeqCst) {
            thread::yield_now();
        }
    });
    row("switch by yield", 2 * TURNS, || (0..TURNS).for_each(|_| thread::yield_now()));
    stop.store(true, SeqCst);
    other.join();
}

/// Two threads that park and wake each other.
fn wakes() {
    const TURNS: u32 = 500;
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
    row("wake by unpark", 2 * TURNS, || {
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
    let (to, from) = (channel::bounded(1), channel::bounded(1));
    let (Ok((to, receive)), Ok((send, from))) = (to, from) else { return };
    let other = thread::spawn(move || {
        while let Some(value) = receive.recv() {
            let _: Result<(), channel::SendError<u32>> = send.send(value);
        }
    });
    row("wake by channel", 2 * TURNS, || {
        for value in 0..TURNS {
            let _ = to.send(value);
            black_box(from.recv());
        }
    });
    drop(to);
    other.join();
}

/// A mutex that its holder gives to who waits for it.
fn hand_off() {
    const TURNS: u32 = 300;
    static LOCK: Mutex<u32> = Mutex::new(0);
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let turn = || {
        let mut count = LOCK.lock();
        *count += 1;
        // The other comes to wait.
        thread::yield_now();
    };
    let other = thread::spawn(move || {
        while !stopped.load(SeqCst) {
            turn();
        }
    });
    row("mutex hand-off", TURNS, || (0..TURNS).for_each(|_| turn()));
    stop.store(true, SeqCst);
    other.join();
}

fn starts() {
    row("start and join a thread", 50, || (0..50).for_each(|_| thread::spawn(|| ()).join()));
    row("the same, 16 KiB stack", 50, || {
        for _ in 0..50 {
            if let Ok(handle) = Builder::new().stack_size(16 << 10).spawn(|| ()) {
                handle.join();
            }
        }
    });
}

async fn tasks() {
    row_async("spawn and await a task", 200, || async {
        for _ in 0..200 {
            task::spawn(async {}).await;
        }
    })
    .await;
    let in_a_task = task::spawn(async {
        row_async("turn of a task", 1000, || async {
            for _ in 0..1000 {
                task::yield_now().await;
            }
        })
        .await;
    });
    in_a_task.await;
}

/// How late a sleeper of 1 ms is.
async fn lateness() {
    if !time::has_timer() {
        return;
    }
    let mut late = Vec::new();
    for _ in 0..100 {
        let deadline = time::now() + Duration::from_millis(1);
        let start = pv_ops::rdtsc();
        let begin_ns = pv_ops::monotonic_ns();
        task::sleep_until(deadline).await;
        let ns = pv_ops::monotonic_ns();
        let cycles = pv_ops::rdtsc() - start;
        let late_ns = ns - deadline.as_ns();
        late.push((late_ns, cycles * late_ns / (ns - begin_ns).max(1)));
    }
    print("timer of 1 ms, late by", 1, late);
}

/// What CPUs ask of each other.
fn others() {
    let Some(other) = cpu::percpu::others().iter().next() else { return };
    row("call on another CPU", 100, || (0..100).for_each(|_| cpu::call_on(CpuSet::one(other), &|| ())));
    row("TLB flush everywhere", 100, || {
        (0..100).for_each(|_| pv_ops::flush_tlb_others(&cpu::percpu::others(), layout::HUGE, 4096));
    });
}
