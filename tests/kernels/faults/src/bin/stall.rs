//! Gets no further, in the way that `app.how=` says, and is told so by the kernel. Ends with status 5 after a while where
//! the kernel does not end it. `app.cpu=` is the CPU that gets stuck; `app.how=never` does well.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

use core::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    time::Duration,
};

use kernel::{
    app,
    cpu::{percpu, this_cpu},
    power,
    sync::{Barrier, IrqMutex, Mutex},
    thread::{self, Builder, JoinHandle},
};

kernel::app!(main);

/// How often the kernel looks, and when it has told enough; a spinning CPU has more patience.
const PERIOD: Duration = Duration::from_millis(500);
const ENOUGH: Duration = Duration::from_secs(4);
const LONG_ENOUGH: Duration = Duration::from_secs(15);
const STATUS: u8 = 5;

async fn main() {
    let argument = |name| app::args().find(|(key, _)| *key == name).map(|(_, value)| value);
    let cpu = argument("cpu").and_then(|cpu| cpu.parse().ok()).unwrap_or(0);
    match argument("how").unwrap_or_default() {
        "locks" => locks(),
        "join" => join(),
        "spins" => spins(),
        "itself" => itself(),
        "never" => never(),
        _ => cpu_stuck(cpu),
    }
}

fn watched(period: Duration) {
    if let Err(error) = thread::watch(period) {
        panic!("watch: {error}");
    }
}

static LEFT: Mutex<u32> = Mutex::new(0);
static RIGHT: Mutex<u32> = Mutex::new(0);
static MET: Barrier = Barrier::new(2);

fn start<T: Send + 'static>(name: &str, body: fn() -> T) -> JoinHandle<T> {
    match Builder::new().name(name).spawn(body) {
        Ok(handle) => handle,
        Err(error) => panic!("{name}: {error}"),
    }
}

/// Two threads, each with what the other wants.
fn locks() {
    watched(PERIOD);
    let threads = [start("left", left_then_right), start("right", right_then_left)];
    thread::sleep(ENOUGH);
    drop(threads);
    power::exit(STATUS)
}

#[inline(never)]
fn left_then_right() {
    let mut held = LEFT.lock();
    MET.wait();
    *held += *RIGHT.lock();
}

#[inline(never)]
fn right_then_left() {
    let mut held = RIGHT.lock();
    MET.wait();
    *held += *LEFT.lock();
}

/// A thread waits for the end of another, which waits for what the first has.
fn join() {
    watched(PERIOD);
    drop(start("joiner", lock_and_join));
    thread::sleep(ENOUGH);
    power::exit(STATUS)
}

#[inline(never)]
fn lock_and_join() {
    let mut held = LEFT.lock();
    *held += start("joined", lock_left).join();
}

#[inline(never)]
fn lock_left() -> u32 {
    *LEFT.lock()
}

static INNER: IrqMutex<u32> = IrqMutex::new(0);
static OUTER: IrqMutex<u32> = IrqMutex::new(0);

fn meet() {
    static CAME: AtomicU32 = AtomicU32::new(0);
    CAME.fetch_add(1, SeqCst);
    while CAME.load(SeqCst) < 2 {
        core::hint::spin_loop();
    }
}

/// Two CPUs, each with the spin lock that the other wants; a third goes on.
fn spins() {
    on_all_cpus(|number| match number {
        0 => inner_then_outer(),
        1 => outer_then_inner(),
        _ => ends_after(LONG_ENOUGH, 2),
    });
}

#[inline(never)]
fn inner_then_outer() {
    let mut held = INNER.lock();
    meet();
    *held += *OUTER.lock();
}

#[inline(never)]
fn outer_then_inner() {
    let mut held = OUTER.lock();
    meet();
    *held += *INNER.lock();
}

/// A CPU that takes a spin lock twice.
fn itself() {
    let mut held = INNER.lock();
    *held += *INNER.lock();
}

/// Threads that compute, that wait for a lock which moves on, and that sleep; some CPUs idle in between.
fn never() {
    watched(4 * PERIOD);
    drop(start("busy", || {
        loop {
            core::hint::spin_loop();
        }
    }));
    for name in ["one", "another"] {
        drop(start(name, || {
            loop {
                *LEFT.lock() += 1;
                thread::sleep(Duration::from_millis(1));
            }
        }));
    }
    thread::sleep(3 * ENOUGH);
    power::exit(STATUS)
}

/// One CPU takes no interrupts any more, another ends the guest.
fn cpu_stuck(wanted: u32) {
    static IS_STUCK: AtomicBool = AtomicBool::new(false);
    watched(PERIOD);
    on_all_cpus(move |_| {
        while !IS_STUCK.load(SeqCst) {
            if this_cpu() == wanted && !IS_STUCK.swap(true, SeqCst) {
                stuck();
            }
            core::hint::spin_loop();
        }
        ends_after(ENOUGH, wanted)
    });
}

#[inline(never)]
fn stuck() {
    let held = INNER.lock();
    loop {
        core::hint::black_box(*held);
        core::hint::spin_loop();
    }
}

/// As many threads as there are CPUs, none of which gives way: they are told apart by a number.
fn on_all_cpus(body: impl Fn(u32) + Clone + Send + 'static) {
    for number in 1..percpu::up().len() {
        let body = body.clone();
        drop(thread::spawn(move || body(number)));
    }
    body(0);
}

/// Ends the guest, later: when that CPU has had so much time, what the host took not counted. Without a timer, which may be
/// that of a CPU that is stuck.
fn ends_after(time: Duration, cpu: u32) {
    let had_ns = || pv_ops::monotonic_ns().saturating_sub(pv_ops::steal_ns(cpu));
    let end_ns = had_ns() + time.as_nanos() as u64;
    while had_ns() < end_ns {
        core::hint::spin_loop();
    }
    power::exit(STATUS)
}
