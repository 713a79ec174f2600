//! What breaks where CPUs do not keep out of each other's way: translations that change while they are used, memory that
//! all of them take and give back, CPUs that go down and come up under threads that work.
//! Neighbours: `tests` (what each promises by itself), `sync::torture` (locks and timers).
#![cfg(all(feature = "self-test", target_os = "none"))]

use super::{
    call_on, percpu, probe, smp,
    tests::{PAGE, hide, show},
    this_cpu, tlb,
};
use crate::{
    mm::{frame, heap, layout::PAGE_SIZE},
    sync::{IrqMutex, Mutex, torture::everywhere},
    task,
    thread::{self, JoinHandle},
};
use alloc::vec::Vec;
use core::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    time::Duration,
};

crate::kernel_test! {
    /// Two frames take turns behind one page while all other CPUs read it, half of them with interrupts disabled:
    /// whoever reads between two changes reads the frame that is there.
    fn no_cpu_reads_through_a_stale_translation() {
        let rounds = (320 / u64::from(percpu::up().len())).clamp(8, 40);
        let mut frames = [frame::alloc(0).unwrap(), frame::alloc(0).unwrap()];
        for (value, frame) in frames.iter_mut().enumerate() {
            frame.bytes().fill(value as u8);
        }
        let phys = [frames[0].address(), frames[1].address()];
        // Twice the number of changes, odd while one is made.
        let (stage, done, reads) = (AtomicU64::new(0), AtomicBool::new(false), AtomicU64::new(0));
        show(phys[0]);
        let write = || {
            for change in 1..=rounds {
                stage.fetch_add(1, SeqCst);
                hide();
                show(phys[(change % 2) as usize]);
                stage.fetch_add(1, SeqCst);
                let seen = reads.load(SeqCst);
                // Somebody gets a chance to fill a TLB.
                for _ in 0..10_000 {
                    if reads.load(SeqCst) != seen {
                        break;
                    }
                    core::hint::spin_loop();
                }
            }
            // The others run when their host lets them: it is not over before one of them has read.
            while percpu::up().len() > 1 && reads.load(SeqCst) == 0 {
                pv_ops::sched_yield();
            }
            done.store(true, SeqCst);
        };
        let read = || {
            while !done.load(SeqCst) {
                tlb::poll();
                let before = stage.load(SeqCst);
                let found = probe::read_frame(PAGE).map(|[word, _]| word & 0xff);
                if before % 2 == 0 && stage.load(SeqCst) == before {
                    assert_eq!(found, Some(before / 2 % 2), "CPU {} after {before}", this_cpu());
                    reads.fetch_add(1, SeqCst);
                }
            }
        };
        call_on(percpu::up(), &|| match this_cpu() {
            0 => write(),
            cpu if cpu % 2 == 1 => read(),
            _ => {
                pv_ops::irq_enable();
                read();
                pv_ops::irq_disable();
            }
        });
        hide();
    }
}

/// Memory on its way from one thread to another.
type Shelf = IrqMutex<[Vec<u64>; SHARED]>;
const SHARED: usize = 16;

/// Takes memory of some size, fills it, and puts it in the place of another's, which is as that one filled it.
fn exchange(random: &mut u64, shelf: &Shelf) {
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    let value = *random;
    // Small, mostly; now and then a page, a piece of the arena, or pages of its own.
    let len = match value % 64 {
        0 => 40_000,
        1..=3 => 600 + value as usize / 64 % 4000,
        _ => 1 + value as usize / 64 % 256,
    };
    let mut mine = Vec::new();
    if mine.try_reserve_exact(len).is_err() {
        return;
    }
    mine.resize(len, value);
    assert!(mine.iter().all(|&word| word == value), "CPU {}", this_cpu());
    let place = (value >> 32) as usize % SHARED;
    let other = core::mem::replace(&mut shelf.lock()[place], mine);
    assert!(other.iter().all(|&word| word == other[0]), "CPU {}", this_cpu());
}

crate::kernel_test! {
    /// Threads on every CPU take, fill, hand to others and free memory of all sizes: nothing is given out twice, all comes back.
    fn memory_is_nobody_elses_while_all_cpus_allocate() {
        static SHELF: Shelf = Shelf::new([const { Vec::new() }; SHARED]);
        // As much in all, however many CPUs share the work and the host.
        let rounds = (1600 / percpu::up().len()).max(20);
        let work = move |number: usize| {
            let mut random = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            for _ in 0..rounds {
                exchange(&mut random, &SHELF);
            }
        };
        let threads = thread::count();
        let round = || {
            everywhere(work);
            for place in 0..SHARED {
                let left = core::mem::take(&mut SHELF.lock()[place]);
                drop(left);
            }
            // At the start one of an earlier test may have been on its way out.
            while thread::count() > threads {
                thread::yield_now();
            }
            left_over()
        };
        // What is kept for the next time, tables above all, is there after the first.
        let (before, arena) = round();
        let mut after = round();
        // The arena does not shrink; the second time may need a little more at once.
        let too_few = |(free, arena_after): (u64, u64)| {
            let grown = (arena_after - arena) / PAGE_SIZE;
            let missing = before.saturating_sub(free);
            (missing > grown + 8 + u64::from(percpu::up().len())).then_some((missing, grown))
        };
        // Those who were joined may still be on their way off their CPUs, and those run when their host lets them.
        for _ in 0..400 {
            if too_few(after).is_some() {
                thread::sleep(Duration::from_millis(5));
                after = left_over();
            }
        }
        if let Some((missing, grown)) = too_few(after) {
            panic!("{missing} frames are missing, the arena has taken {grown}");
        }
    }
}

/// Frames that are free and bytes of the arena, when what is only kept for the next time was given back. A CPU without work stays
/// on the stack of its last thread until it has some.
fn left_over() -> (u64, u64) {
    percpu::up().iter().for_each(task::wake_cpu);
    thread::sleep(Duration::from_millis(5));
    task::life::reap();
    heap::trim();
    (frame::statistics().free, heap::statistics().arena_bytes)
}

crate::kernel_test! {
    /// Each CPU but the first goes down and comes up again while threads everywhere lock, sleep and allocate: none of them
    /// is lost, nor any of their timers and wake-ups.
    fn cpus_come_and_go_while_threads_work() {
        static STOP: AtomicBool = AtomicBool::new(false);
        static SUM: Mutex<u64> = Mutex::new(0);
        let all = percpu::up();
        if all.len() == 1 {
            crate::skip!("there is one CPU");
        }
        let work = |number: u64| move || {
            let mut rounds = 0;
            while !STOP.load(SeqCst) {
                rounds += 1;
                *SUM.lock() += 1;
                match (number + rounds) % 4 {
                    0 => thread::sleep(Duration::from_micros(50 * number)),
                    1 => thread::yield_now(),
                    _ => drop(Vec::<u64>::with_capacity((rounds * number) as usize % 2000)),
                }
            }
            rounds
        };
        let threads: Vec<_> = (1..=u64::from(2 * all.len().min(8))).map(|number| thread::spawn(work(number))).collect();
        for cpu in all.iter().filter(|&cpu| cpu > 0).take(3) {
            for _ in 0..2 {
                smp::down(cpu).unwrap();
                thread::sleep(Duration::from_millis(2));
                smp::up(cpu).unwrap();
                thread::sleep(Duration::from_millis(2));
            }
        }
        STOP.store(true, SeqCst);
        let rounds: Vec<u64> = threads.into_iter().map(JoinHandle::join).collect();
        assert!(rounds.iter().all(|&rounds| rounds > 0), "{rounds:?}");
        assert_eq!(rounds.iter().sum::<u64>(), *SUM.lock());
        assert_eq!(percpu::up(), all);
    }
}
