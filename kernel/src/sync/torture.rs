//! Locks that everybody wants, timers that all come at once: nobody is lost, nobody is let in twice.
//! Neighbours: `tests` (what each lock promises by itself), `cpu::torture` (memory and translations).
#![forbid(unsafe_code)]
#![cfg(all(feature = "self-test", target_os = "none"))]

use alloc::vec::Vec;
use core::{
    sync::atomic::{AtomicU32, Ordering::SeqCst},
    time::Duration,
};

use super::{IrqMutex, Mutex, tests::Pair};
use crate::{
    cpu, task,
    thread::{self, JoinHandle, spawn},
    time,
};

/// Two for each CPU, so that they wait for the CPU and for each other.
pub(crate) fn everywhere<T: Send + 'static>(body: impl Fn(usize) -> T + Clone + Send + 'static) -> Vec<T> {
    let count = 2 * cpu::percpu::up().len() as usize;
    let start = |number| {
        let body = body.clone();
        spawn(move || body(number))
    };
    let threads: Vec<_> = (0..count).map(start).collect();
    threads.into_iter().map(JoinHandle::join).collect()
}

/// What each of them does: as much in all, however many CPUs share the work and the host.
fn rounds() -> u64 {
    (16_000 / u64::from(cpu::percpu::up().len())).min(2000)
}

crate::kernel_test! {
    fn a_spin_lock_has_one_holder_on_all_cpus() {
        static PAIR: IrqMutex<Pair> = IrqMutex::new(Pair(0, 0));
        let rounds = rounds();
        let threads = everywhere(move |_| (0..rounds).for_each(|_| PAIR.lock().add())).len() as u64;
        let pair = PAIR.lock();
        assert_eq!((pair.0, pair.1), (threads * rounds, threads * rounds));
    }
}

crate::kernel_test! {
    /// All CPUs stand in the queue at once, again and again: each gets the lock as often as it asks.
    fn cpus_that_queue_for_a_spin_lock_all_get_it() {
        static LOCK: IrqMutex<u32> = IrqMutex::new(0);
        let cpus = cpu::percpu::up().len();
        let rounds = [const { AtomicU32::new(0) }; cpu::MAX_CPUS];
        cpu::call_on(cpu::percpu::up(), &|| {
            for _ in 0..200 {
                let mut count = LOCK.lock();
                *count += 1;
                rounds[cpu::this_cpu() as usize].fetch_add(1, SeqCst);
            }
        });
        assert_eq!(*LOCK.lock(), cpus * 200);
        assert_eq!(rounds.iter().filter(|rounds| rounds.load(SeqCst) == 200).count(), cpus as usize);
    }
}

crate::kernel_test! {
    fn a_mutex_has_one_holder_among_threads() {
        static PAIR: Mutex<Pair> = Mutex::new(Pair(0, 0));
        let rounds = rounds();
        let threads = everywhere(move |_| {
            for round in 0..rounds {
                let mut pair = PAIR.lock();
                pair.add();
                if round % 64 == 0 {
                    // The others come to wait.
                    thread::yield_now();
                }
            }
        }).len() as u64;
        assert_eq!(PAIR.lock().0, threads * rounds);
        assert!(PAIR.try_lock().is_some());
    }
}

crate::kernel_test! {
    /// Timers of thousands of tasks on all CPUs at once: each wakes its own, none early.
    async fn a_storm_of_timers_wakes_everybody() {
        if !time::has_timer() {
            crate::skip!("this machine has no timer");
        }
        let tasks: Vec<_> = (0..4000_u64).map(|number| task::spawn(async move {
            let deadline = time::now() + Duration::from_micros(number * 7919 % 20_000);
            task::sleep_until(deadline).await;
            time::now() >= deadline
        })).collect();
        for task in tasks {
            assert!(task.await, "woken early");
        }
    }
}

crate::kernel_test! {
    /// Timers whose wakers set the next one, in the interrupt, on all CPUs at once; every other one is given up.
    fn timers_that_set_timers_all_come() {
        use alloc::{sync::Arc, task::Wake};
        use core::task::Waker;
        use crate::{sync::IrqState, time::timer};
        const CHAINS: u32 = 16;
        const LINKS: u32 = 40;
        static CAME: AtomicU32 = AtomicU32::new(0);
        struct Link(u32);
        impl Wake for Link {
            fn wake(self: Arc<Self>) {
                CAME.fetch_add(1, SeqCst);
                if self.0 < LINKS {
                    let next = |us| pv_ops::monotonic_ns() + u64::from(us * self.0 % 97) * 1000;
                    let waker = || Waker::from(Arc::new(Link(self.0 + 1)));
                    drop(timer::register(next(7), Waker::from(Arc::new(Link(LINKS)))));
                    // Never given up.
                    core::mem::forget(timer::register(next(13), waker()));
                }
            }
        }
        if !time::has_timer() {
            crate::skip!("this machine has no timer");
        }
        let cpus = cpu::percpu::up().len();
        cpu::call_on(cpu::percpu::up(), &|| for _ in 0..CHAINS {
            let irq = IrqState::disable();
            let first = Waker::from(Arc::new(Link(1)));
            core::mem::forget(timer::register(pv_ops::monotonic_ns() + 10_000, first));
            drop(irq);
        });
        let start = time::now();
        while CAME.load(SeqCst) < cpus * CHAINS * LINKS {
            assert!(start.elapsed() < Duration::from_secs(60), "{CAME:?} of {} came", cpus * CHAINS * LINKS);
            thread::yield_now();
        }
        thread::sleep(Duration::from_millis(1));
        assert_eq!(CAME.load(SeqCst), cpus * CHAINS * LINKS, "one that was given up came");
    }
}
