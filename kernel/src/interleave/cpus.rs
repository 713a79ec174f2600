//! CPUs that idle and take work: what one makes ready, another runs, once, and no CPU sleeps while there is work for it.
//! And translations: none is used after its flush was waited for.
//! Neighbours: `task::bell`, `cpu::tlb::requests` (the sources); the queue and the steps around the first are those of
//! `task::scheduler` and `task::idle`.

use super::{
    atomic::{AtomicBool, AtomicUsize, Ordering, fence},
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
    /// The threads that have not left their CPU yet, so that no other can go on with them.
    stays: [AtomicBool; 4],
}

impl Machine {
    fn new() -> Arc<Self> {
        let cpu = |_| Cpu {
            queue: Mutex::new(Vec::new()),
            len: AtomicUsize::new(0),
            bell: Bell::new(),
            interrupt: Notify::new(),
        };
        let stays = core::array::from_fn(|_| AtomicBool::new(false));
        Arc::new(Self { idle: Marks::new(), cpus: core::array::from_fn(cpu), stays })
    }

    /// As `scheduler::enqueue`.
    fn enqueue(&self, target: u32, thread: u32) {
        self.push(target, thread);
        if self.idle.contains_after_work(target) {
            self.kick(target);
        } else {
            self.share(target);
        }
    }

    fn push(&self, target: u32, thread: u32) {
        let there = &self.cpus[target as usize];
        let mut queue = there.queue.lock().unwrap();
        queue.push(thread);
        there.len.store(queue.len(), Ordering::Relaxed);
    }

    fn kick(&self, cpu: u32) {
        if self.cpus[cpu as usize].bell.ring() {
            self.cpus[cpu as usize].interrupt.notify();
        }
    }

    fn share(&self, cpu: u32) {
        if let Some(other) = self.idle.find(0..2, cpu) {
            self.kick(other);
        }
    }

    /// As `switch::left` and `scheduler::arrive`: `thread` was left on this CPU, and the next has arrived.
    fn leave(&self, cpu: u32, thread: u32) {
        self.stays[thread as usize].store(false, Ordering::Release);
        fence(Ordering::SeqCst);
        if self.cpus[cpu as usize].len.load(Ordering::Relaxed) != 0 {
            self.share(cpu);
        }
    }

    fn pick(&self, from: u32) -> Option<u32> {
        self.take(from, |_| true)
    }

    fn take(&self, from: u32, fit: impl Fn(u32) -> bool) -> Option<u32> {
        let there = &self.cpus[from as usize];
        let mut queue = there.queue.lock().unwrap();
        let at = queue.iter().position(|&thread| fit(thread))?;
        let thread = queue.remove(at);
        there.len.store(queue.len(), Ordering::Relaxed);
        Some(thread)
    }

    fn steal(&self, from: u32) -> Option<u32> {
        if self.cpus[from as usize].len.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.take(from, |thread| !self.stays[thread as usize].load(Ordering::Acquire))
    }

    /// As `scheduler::leave` and `idle::rest`: its own queue, others' queues, else it waits; with or without listening before it
    /// halts.
    fn next(&self, cpu: u32, listens: bool) -> u32 {
        let this = &self.cpus[cpu as usize];
        loop {
            if let Some(thread) = self.pick(cpu) {
                return thread;
            }
            this.bell.forget();
            self.idle.set(cpu);
            if let Some(thread) = self.steal(1 - cpu) {
                self.idle.clear_for_work(cpu);
                return thread;
            }
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

/// A thread comes for CPU 1, or for CPU 0, which does not look any more; CPU 1 has it.
fn wakes(target: u32, listens: bool) {
    model(3, move || {
        let machine = Machine::new();
        let other = {
            let machine = machine.clone();
            thread::spawn(move || machine.enqueue(target, 1))
        };
        assert_eq!(machine.next(1, listens), 1);
        other.join().unwrap();
    });
}

#[test]
fn a_cpu_that_goes_to_sleep_sees_the_work_or_is_interrupted() {
    wakes(1, false);
}

#[test]
fn a_cpu_that_listens_hears_the_bell_or_is_interrupted() {
    wakes(1, true);
}

#[test]
fn a_thread_in_the_queue_of_a_stuck_cpu_runs_elsewhere() {
    wakes(0, false);
}

#[test]
fn so_it_does_where_the_other_listens() {
    wakes(0, true);
}

/// CPU 0 goes from a thread that was woken meanwhile to one in which it gets stuck.
#[test]
fn a_thread_that_was_woken_before_it_had_left_its_cpu_runs_elsewhere() {
    model(3, || {
        let machine = Machine::new();
        machine.stays[1].store(true, Ordering::Relaxed);
        let start = |act: fn(&Machine)| {
            let machine = machine.clone();
            thread::spawn(move || act(&machine))
        };
        let others = [start(|machine| machine.enqueue(0, 1)), start(|machine| machine.leave(0, 1))];
        assert_eq!(machine.next(1, false), 1);
        others.into_iter().for_each(|other| other.join().unwrap());
    });
}

/// CPU 1 takes a thread of CPU 0 while another comes for it, and gets stuck with what it took: CPU 0 has what came.
#[test]
fn who_is_found_idle_but_has_found_work_leaves_none_behind() {
    model(3, || {
        let machine = Machine::new();
        machine.push(0, 1);
        let taker = {
            let machine = machine.clone();
            thread::spawn(move || {
                let thread = machine.next(1, false);
                // As `scheduler::arrive`.
                if machine.cpus[1].len.load(Ordering::Relaxed) != 0 {
                    machine.share(1);
                }
                thread
            })
        };
        let giver = {
            let machine = machine.clone();
            thread::spawn(move || machine.enqueue(1, 2))
        };
        let mut ran = [machine.next(0, false), taker.join().unwrap()];
        giver.join().unwrap();
        ran.sort_unstable();
        assert_eq!(ran, [1, 2]);
    });
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
