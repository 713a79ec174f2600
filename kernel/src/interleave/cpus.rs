//! CPUs that idle and take work: what one makes ready, another runs, once, and no CPU sleeps while there is work for it.
//! And translations: none is used after its flush was waited for.
//! Neighbours: `task::bell`, `cpu::tlb::requests` (the sources); the queue and the steps around the first are those of
//! `task::scheduler` and `task::idle`.

use super::{
    atomic::{AtomicUsize, Ordering},
    bell::{Bell, Marks},
    model,
    requests::Requests,
};
use core::cell::Cell;
use loom::{
    sync::{Arc, Mutex, Notify},
    thread,
};

/// A CPU: its run queue, with the length beside it that is looked at without the lock, its bell, its interrupts.
struct Cpu {
    queue: Mutex<Vec<u32>>,
    len: AtomicUsize,
    bell: Bell,
    interrupt: Notify,
}

struct Machine {
    idle: Marks,
    cpus: [Cpu; 2],
}

impl Machine {
    fn new() -> Arc<Self> {
        let cpu = |_| Cpu {
            queue: Mutex::new(Vec::new()),
            len: AtomicUsize::new(0),
            bell: Bell::new(),
            interrupt: Notify::new(),
        };
        Arc::new(Self { idle: Marks::new(), cpus: core::array::from_fn(cpu) })
    }

    /// As `scheduler::enqueue`.
    fn enqueue(&self, target: u32, thread: u32) {
        let there = &self.cpus[target as usize];
        let mut queue = there.queue.lock().unwrap();
        queue.push(thread);
        there.len.store(queue.len(), Ordering::Relaxed);
        drop(queue);
        if self.idle.contains_after_work(target) && there.bell.ring() {
            there.interrupt.notify();
        }
    }

    fn pick(&self, from: u32) -> Option<u32> {
        let there = &self.cpus[from as usize];
        let mut queue = there.queue.lock().unwrap();
        let thread = queue.pop();
        there.len.store(queue.len(), Ordering::Relaxed);
        thread
    }

    /// As `scheduler::leave`: its own queue, others' queues, else it idles; with or without listening before it halts.
    fn next(&self, cpu: u32, listens: bool) -> u32 {
        let this = &self.cpus[cpu as usize];
        loop {
            let other = 1 - cpu;
            let is_worth = || self.cpus[other as usize].len.load(Ordering::Relaxed) != 0;
            let next = self.pick(cpu).or_else(|| is_worth().then(|| self.pick(other)).flatten());
            if let Some(thread) = next {
                return thread;
            }
            this.bell.forget();
            self.idle.set(cpu);
            let has_work = || this.len.load(Ordering::Relaxed) != 0 || this.bell.is_rung();
            if !has_work() {
                if listens {
                    this.bell.listen();
                    if !has_work() {
                        thread::yield_now();
                    }
                    this.bell.cease();
                }
                if !has_work() {
                    this.interrupt.wait();
                }
            }
            self.idle.clear(cpu);
        }
    }
}

fn wakes(listens: bool) {
    model(3, move || {
        let machine = Machine::new();
        let other = {
            let machine = machine.clone();
            thread::spawn(move || machine.enqueue(1, 7))
        };
        assert_eq!(machine.next(1, listens), 7);
        other.join().unwrap();
    });
}

#[test]
fn a_cpu_that_goes_to_sleep_sees_the_work_or_is_interrupted() {
    wakes(false);
}

#[test]
fn a_cpu_that_listens_hears_the_bell_or_is_interrupted() {
    wakes(true);
}

/// One CPU makes two threads ready for itself and runs one; the other takes what it can get, and waits for one of its own.
#[test]
fn a_thread_that_two_cpus_want_runs_once() {
    model(2, || {
        let machine = Machine::new();
        let other = {
            let machine = machine.clone();
            thread::spawn(move || {
                let mut ran = Vec::new();
                while ran.last() != Some(&3) {
                    ran.push(machine.next(1, false));
                }
                ran
            })
        };
        machine.enqueue(0, 1);
        machine.enqueue(0, 2);
        machine.enqueue(1, 3);
        let mut ran: Vec<u32> = core::iter::from_fn(|| machine.pick(0)).collect();
        ran.extend(other.join().unwrap());
        ran.sort_unstable();
        assert_eq!(ran, [1, 2, 3]);
    });
}

/// One CPU changes a page's frame and waits for the other's flush; the other reads through its translation meanwhile.
fn shoot_down(sleeps: bool) {
    const PAGES: u64 = 3;
    const NEW: usize = 1;
    model(3, move || {
        // The requests, the page-table entry, and whether the old frame is somebody else's by now.
        let shared = Arc::new((Requests::new(), AtomicUsize::new(0), AtomicUsize::new(0)));
        let reader = {
            let shared = shared.clone();
            thread::spawn(move || {
                let (requests, entry, is_freed) = &*shared;
                let translation = Cell::new(None);
                let flush = |_| translation.set(None);
                let read = || {
                    let is_freed = is_freed.load(Ordering::Acquire) != 0;
                    let frame = translation.get().unwrap_or_else(|| entry.load(Ordering::Relaxed));
                    translation.set(Some(frame));
                    assert!(!is_freed || frame == NEW, "read through an old translation");
                    is_freed
                };
                let mut is_over = read();
                if sleeps {
                    requests.sleep(&flush);
                    requests.wake(&flush);
                    is_over = read();
                }
                while !is_over {
                    if requests.is_behind() {
                        requests.serve(&flush);
                    }
                    thread::yield_now();
                    is_over = read();
                }
            })
        };
        let (requests, entry, is_freed) = &*shared;
        entry.store(NEW, Ordering::Relaxed);
        if requests.ask(PAGES) {
            let goal = requests.asked();
            while requests.done() < goal {
                thread::yield_now();
            }
        }
        is_freed.store(1, Ordering::Release);
        reader.join().unwrap();
    });
}

#[test]
fn nobody_reads_through_an_old_translation() {
    shoot_down(false);
}

#[test]
fn nobody_does_after_a_sleep() {
    shoot_down(true);
}
