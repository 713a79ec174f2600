//! What only a running guest can show of threads.
#![forbid(unsafe_code)]
#![cfg(all(feature = "self-test", target_os = "none"))]

use alloc::{sync::Arc, vec::Vec};
use core::{
    cell::Cell,
    sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst},
    time::Duration,
};

use super::{Builder, Priority, current, park, park_timeout, sleep, spawn, yield_now};
use crate::{cpu::ipi, mm::frame, sync::IrqState, task, time};

/// Runs other threads until `done`; after half a minute without, the test has failed.
fn wait_until(what: &str, done: impl Fn() -> bool) {
    let start = time::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(30), "never came: {what}");
        yield_now();
    }
}

kernel_test! {
    fn a_thread_gives_the_value_of_its_closure() {
        let two = spawn(|| 2);
        let handle = Builder::new().name("three").spawn(|| current().name().map(|name| name.len())).unwrap();
        assert_eq!(handle.thread().name(), Some("three"));
        assert_eq!((two.join(), handle.join()), (2, Some(5)));
    }
}

kernel_test! {
    async fn a_task_can_wait_for_a_thread_and_a_thread_for_a_task() {
        let thread = spawn(|| task::block_on(async { task::spawn(async { 20 }).await + 1 }));
        assert_eq!(thread.await * 2, 42);
    }
}

kernel_test! {
    fn a_thousand_threads_leave_no_memory_behind() {
        let round = |count: u32| {
            let sum: u32 = (0..count).map(|number| spawn(move || number).join()).sum();
            assert_eq!(sum, count * (count - 1) / 2);
        };
        // What is kept ready for the next one is there after the first ones.
        round(10);
        let (frames, threads) = (frame::statistics().free, super::count());
        round(1000);
        // One of the first may have been on its way out still when they were counted.
        wait_until("the end of all threads", || {
            task::life::reap();
            super::count() <= threads
        });
        let lost = frames.saturating_sub(frame::statistics().free);
        assert!(lost < 64, "{lost} frames are lost");
    }
}

kernel_test! {
    fn many_threads_are_there_at_once() {
        const THREADS: usize = 100;
        static CAME: AtomicUsize = AtomicUsize::new(0);
        static GO: AtomicBool = AtomicBool::new(false);
        let threads: Vec<_> = (0..THREADS)
            .map(|_| Builder::new().stack_size(16 << 10).spawn(|| {
                CAME.fetch_add(1, SeqCst);
                while !GO.load(SeqCst) {
                    park();
                }
            }).unwrap())
            .collect();
        wait_until("all threads", || CAME.load(SeqCst) == THREADS);
        GO.store(true, SeqCst);
        threads.iter().for_each(|handle| handle.thread().unpark());
        threads.into_iter().for_each(super::JoinHandle::join);
    }
}

kernel_test! {
    fn a_stack_that_no_slot_holds_is_an_error() {
        assert_eq!(Builder::new().stack_size(1 << 40).spawn(|| ()).err(), Some(task::OutOfMemory));
    }
}

kernel_test! {
    fn an_unpark_before_the_park_is_not_lost() {
        let thread = spawn(|| {
            sleep(Duration::from_millis(2));
            park();
        });
        thread.thread().unpark();
        thread.join();
    }
}

kernel_test! {
    fn a_park_with_a_time_ends_with_it() {
        if !time::has_timer() {
            crate::skip!("this machine has no timer");
        }
        let start = time::now();
        park_timeout(Duration::from_millis(3));
        assert!(start.elapsed() >= Duration::from_millis(3));
        current().unpark();
        park_timeout(Duration::from_secs(3600));
    }
}

kernel_test! {
    /// On one CPU nobody else would run if the clock did not take the CPU away.
    fn a_thread_that_never_waits_is_preempted() {
        if !time::has_timer() {
            crate::skip!("this machine has no timer");
        }
        static STOP: AtomicBool = AtomicBool::new(false);
        let turns: Arc<[AtomicU32; 3]> = Arc::default();
        let spinners: Vec<_> = (0..3).map(|number| {
            let turns = turns.clone();
            spawn(move || while !STOP.load(SeqCst) {
                turns[number].fetch_add(1, SeqCst);
                core::hint::spin_loop();
            })
        }).collect();
        wait_until("a turn for each", || turns.iter().all(|turns| turns.load(SeqCst) > 0));
        STOP.store(true, SeqCst);
        spinners.into_iter().for_each(super::JoinHandle::join);
    }
}

kernel_test! {
    /// The urgent thread runs although a less urgent one spins on every CPU, and soon: before those give way.
    fn a_woken_urgent_thread_takes_the_cpu() {
        if !time::has_timer() {
            crate::skip!("this machine has no timer");
        }
        static STOP: AtomicBool = AtomicBool::new(false);
        static WOKEN: AtomicU32 = AtomicU32::new(0);
        let urgent = Builder::new().priority(Priority::High).spawn(|| {
            while !STOP.load(SeqCst) {
                park();
                WOKEN.fetch_add(1, SeqCst);
            }
        }).unwrap();
        let lazy: Vec<_> = task::scheduler::cpus().map(|_| Builder::new().priority(Priority::Low).spawn(|| {
            while !STOP.load(SeqCst) {
                core::hint::spin_loop();
            }
        }).unwrap()).collect();
        for round in 1..=20 {
            urgent.thread().unpark();
            while WOKEN.load(SeqCst) < round {
                // No yield: the urgent thread needs none.
                core::hint::spin_loop();
            }
        }
        STOP.store(true, SeqCst);
        urgent.thread().unpark();
        urgent.join();
        lazy.into_iter().for_each(super::JoinHandle::join);
    }
}

kernel_test! {
    fn threads_that_spin_get_equal_shares() {
        if !time::has_timer() || task::scheduler::cpus().len() > 1 {
            crate::skip!("needs one CPU with a timer");
        }
        static STOP: AtomicBool = AtomicBool::new(false);
        let threads: Vec<_> = (0..2).map(|_| spawn(|| {
            while !STOP.load(SeqCst) {
                core::hint::spin_loop();
            }
        })).collect();
        let turns = || [0, 1].map(|number: usize| threads[number].thread().switches());
        let start = time::now();
        while turns().iter().sum::<u64>() < 20 {
            assert!(start.elapsed() < Duration::from_secs(60), "they do not take turns: {:?}", turns());
            sleep(Duration::from_millis(2));
        }
        let turns = turns();
        STOP.store(true, SeqCst);
        threads.into_iter().for_each(super::JoinHandle::join);
        // One of them may have had one turn more at either end.
        assert!(turns[0].abs_diff(turns[1]) <= 2, "turns: {turns:?}");
    }
}

kernel_test! {
    /// The host takes the CPU for itself again and again; what it leaves is shared equally.
    fn threads_share_what_the_host_leaves() {
        if !time::has_timer() || task::scheduler::cpus().len() > 1 {
            crate::skip!("needs one CPU with a timer");
        }
        const SHARE_NS: u64 = 400_000_000;
        static STOP: AtomicBool = AtomicBool::new(false);
        static WORK: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];
        let left_ns = || pv_ops::monotonic_ns().saturating_sub(pv_ops::steal_ns(0));
        let (begun_ns, stolen_ns) = (left_ns(), pv_ops::steal_ns(0));
        let threads: Vec<_> = WORK.iter().map(|work| spawn(|| while !STOP.load(SeqCst) {
            work.fetch_add(1, SeqCst);
        })).collect();
        while left_ns() - begun_ns < SHARE_NS {
            sleep(Duration::from_millis(10));
        }
        STOP.store(true, SeqCst);
        threads.into_iter().for_each(super::JoinHandle::join);
        let stolen_ns = pv_ops::steal_ns(0) - stolen_ns;
        let work = [0, 1].map(|number: usize| WORK[number].load(SeqCst));
        log::info!("{work:?} turns of two threads while {stolen_ns} ns were stolen");
        if stolen_ns < SHARE_NS / 4 {
            crate::skip!("the host takes too little to tell: {stolen_ns} ns");
        }
        assert!(work[0].abs_diff(work[1]) < work[0].max(work[1]) / 4, "{work:?} of {stolen_ns} ns stolen");
    }
}

kernel_test! {
    /// Whoever started it goes on with interrupts disabled, and the CPU's worker may stand before it in the queue.
    fn a_thread_runs_elsewhere_while_the_cpu_that_started_it_is_stuck() {
        if task::scheduler::cpus().len() < 2 {
            crate::skip!("there is no other CPU");
        }
        for _ in 0..200 {
            let runs = Arc::new(AtomicBool::new(false));
            let mark = runs.clone();
            drop(task::spawn(async {}));
            let thread = spawn(move || mark.store(true, SeqCst));
            let stuck = IrqState::disable();
            while !runs.load(SeqCst) {
                // What other CPUs wait for is done, as the test is of threads.
                ipi::serve();
                pv_ops::sched_yield();
            }
            drop(stuck);
            thread.join();
        }
    }
}

thread_local! {
    static NUMBER: Cell<u32> = Cell::new(7);
    static NOTE: Drops = Drops;
}

static DROPPED: AtomicU32 = AtomicU32::new(0);
struct Drops;
impl Drop for Drops {
    fn drop(&mut self) {
        DROPPED.fetch_add(1, SeqCst);
    }
}

kernel_test! {
    fn each_thread_has_its_own_values_and_drops_them_at_its_end() {
        NUMBER.with(|number| number.set(1));
        let threads: Vec<_> = (0..4).map(|own| spawn(move || {
            assert_eq!(NUMBER.with(Cell::get), 7);
            NUMBER.with(|number| number.set(own));
            NOTE.with(|_| yield_now());
            NUMBER.with(Cell::get) == own
        })).collect();
        assert!(threads.into_iter().all(super::JoinHandle::join));
        assert_eq!(NUMBER.with(Cell::get), 1);
        wait_until("the drops", || DROPPED.load(SeqCst) == 4);
    }
}

kernel_test! {
    fn a_cancelled_thread_hears_of_it() {
        let thread = spawn(|| {
            while !super::is_cancelled() {
                park();
            }
            "ended"
        });
        thread.cancel();
        assert_eq!(thread.join(), "ended");
    }
}

kernel_test! {
    async fn a_cancelled_task_is_dropped() {
        let alive = Arc::new(());
        let inside = alive.clone();
        let task = task::spawn(async move {
            core::future::pending::<()>().await;
            drop(inside);
        });
        task.cancel();
        wait_until("the drop", || Arc::strong_count(&alive) == 1);
    }
}
