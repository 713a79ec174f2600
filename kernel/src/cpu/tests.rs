//! Tests of several CPUs at once; with one CPU most of them are trivially kept. Neighbours: `ipi`, `tlb`, `smp`, `torture`.
//! A call on all CPUs makes them run at the same time: those that let interrupts in can be interrupted meanwhile.
#![cfg(all(feature = "self-test", target_os = "none"))]

use super::{call_on, percpu, probe, smp, this_cpu};
use crate::{
    mm::{
        frame,
        layout::{HUGE, HUGE_LEN_BYTES, PAGE_SIZE},
        map::{self, Caching, Protection},
    },
    sync::IrqMutex,
    thread, time,
};
use alloc::{sync::Arc, task::Wake, vec::Vec};
use core::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    task::Waker,
    time::Duration,
};

/// The last page of a window that no allocation reaches.
pub(super) const PAGE: u64 = HUGE + HUGE_LEN_BYTES - PAGE_SIZE;
const NS_PER_MS: u64 = 1_000_000;

/// Lets [`PAGE`] be this memory.
pub(super) fn show(phys: u64) {
    // SAFETY: the window's last page, which nobody else uses; it is only read, by who can take a fault.
    unsafe { map::map(PAGE, phys, PAGE_SIZE, Protection::ReadOnly, Caching::WriteBack) }.unwrap();
}

pub(super) fn hide() {
    // SAFETY: as in `show`.
    unsafe { map::unmap(PAGE, PAGE_SIZE) }.unwrap();
}

crate::kernel_test! {
    /// A CPU that slept through a change reads what is there when it wakes.
    fn a_sleeper_wakes_to_the_new_translation() {
        let mut frames = [frame::alloc(0).unwrap(), frame::alloc(0).unwrap()];
        for (value, frame) in frames.iter_mut().enumerate() {
            frame.bytes().fill(value as u8);
        }
        for change in 0..100_u64 {
            show(frames[(change % 2) as usize].address());
            call_on(percpu::up(), &|| {
                let found = probe::read_frame(PAGE).map(|[word, _]| word & 0xff);
                assert_eq!(found, Some(change % 2), "CPU {} at change {change}", this_cpu());
            });
            hide();
        }
    }
}

/// Notes on which CPU it was woken.
struct Alarm(AtomicU32);

const ASLEEP: u32 = u32::MAX;

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.0.store(this_cpu(), SeqCst);
    }
}

crate::kernel_test! {
    fn every_cpu_has_a_timer() {
        if !time::has_timer() {
            crate::skip!("this machine has no timer");
        }
        let alarms: Vec<Arc<Alarm>> = (0..pv_ops::MAX_CPUS).map(|_| Arc::new(Alarm(AtomicU32::new(ASLEEP)))).collect();
        let timers = IrqMutex::new(Vec::new());
        call_on(percpu::up(), &|| {
            let waker = Waker::from(alarms[this_cpu() as usize].clone());
            let timer = time::timer::register(pv_ops::monotonic_ns() + NS_PER_MS, waker).unwrap();
            timers.lock().push(timer);
        });
        let start = time::now();
        for cpu in percpu::up().iter() {
            while alarms[cpu as usize].0.load(SeqCst) == ASLEEP {
                assert!(start.elapsed().as_secs() < 20, "the timer of CPU {cpu} does not come");
                core::hint::spin_loop();
            }
            assert_eq!(alarms[cpu as usize].0.load(SeqCst), cpu);
        }
    }
}

/// All interrupts of a CPU so far.
fn interrupts(cpu: u32) -> u64 {
    let data = percpu::by_id(cpu).unwrap();
    (0..=u8::MAX).map(|vector| data.interrupts(vector)).sum()
}

crate::kernel_test! {
    /// Nobody waits for anything on the other CPUs: nothing interrupts them for 100 ms.
    fn an_idle_cpu_is_left_alone() {
        if percpu::up().len() == 1 {
            crate::skip!("there is one CPU");
        }
        // What the tests before left behind comes first.
        call_on(percpu::up(), &|| ());
        let pause = |ms| {
            let end = pv_ops::monotonic_ns() + ms * NS_PER_MS;
            while pv_ops::monotonic_ns() < end {
                core::hint::spin_loop();
            }
        };
        // A task of the kernel's own may be given to another CPU now and then; what ticks ticks every time.
        let is_quiet = |_| {
            pause(20);
            let before: Vec<(u32, u64)> = percpu::others().iter().map(|cpu| (cpu, interrupts(cpu))).collect();
            pause(100);
            before.into_iter().all(|(cpu, count)| interrupts(cpu) == count)
        };
        assert!((0..10).any(is_quiet), "something interrupts idle CPUs again and again");
    }
}

crate::kernel_test! {
    /// Everybody sleeps, the CPU with the test too: in 200 ms one timer comes, and what ends the sleep.
    fn an_idle_guest_is_woken_by_nothing_but_its_sleeper() {
        const FEW: u64 = 4;
        if !time::has_timer() {
            crate::skip!("this machine has no timer");
        }
        call_on(percpu::up(), &|| ());
        let all = || percpu::all().map(|cpu| interrupts(cpu.id())).sum::<u64>();
        let is_quiet = |_| {
            thread::sleep(Duration::from_millis(20));
            let before = all();
            thread::sleep(Duration::from_millis(200));
            all() - before <= FEW
        };
        // A task of the kernel's own may have something to do now and then; what ticks ticks every time.
        assert!((0..10).any(is_quiet), "something interrupts an idle guest again and again");
    }
}

/// Has all other CPUs run with interrupts enabled while `act` runs here: how many interrupts each of them took meanwhile.
fn interrupts_of_busy_cpus(act: impl Fn() + Sync) -> Vec<u64> {
    let (ready, done) = (AtomicU32::new(0), AtomicBool::new(false));
    let count = percpu::up().len() - 1;
    let counted = IrqMutex::new(Vec::new());
    call_on(percpu::up(), &|| match this_cpu() {
        0 => {
            while ready.load(SeqCst) < count {
                core::hint::spin_loop();
            }
            act();
            done.store(true, SeqCst);
        }
        cpu => {
            pv_ops::irq_enable();
            let before = interrupts(cpu);
            ready.fetch_add(1, SeqCst);
            while !done.load(SeqCst) {
                core::hint::spin_loop();
            }
            let taken = interrupts(cpu) - before;
            pv_ops::irq_disable();
            counted.lock().push(taken);
        }
    });
    core::mem::take(&mut *counted.lock())
}

crate::kernel_test! {
    /// However many pages a call changes: a CPU that runs is interrupted once at most, and not at all where the
    /// hypervisor flushes.
    fn a_flush_of_many_pages_is_one_interrupt_a_cpu() {
        const PAGES: u64 = 24;
        const FLUSHES: u64 = 8;
        if percpu::up().len() == 1 {
            crate::skip!("there is one CPU");
        }
        let frame = frame::alloc(5).unwrap();
        let (start, len) = (PAGE - (PAGES - 1) * PAGE_SIZE, PAGES * PAGE_SIZE);
        let flush = || for _ in 0..FLUSHES {
            // SAFETY: the end of the window, which nobody else uses; nobody reads it.
            unsafe { map::map(start, frame.address(), len, Protection::ReadOnly, Caching::WriteBack) }.unwrap();
            // SAFETY: as above.
            unsafe { map::unmap(start, len) }.unwrap();
        };
        flush();
        // A timer may come in between, not every time.
        let is_one = |_| interrupts_of_busy_cpus(flush).into_iter().all(|taken| taken <= FLUSHES);
        assert!((0..5).any(is_one), "more than one interrupt a flush, again and again");
    }
}

crate::kernel_test! {
    /// CPUs that sleep flush when they wake: nobody wakes them for it.
    fn a_cpu_that_sleeps_is_not_interrupted_for_a_flush() {
        const FLUSHES: u64 = 50;
        if percpu::up().len() == 1 {
            crate::skip!("there is one CPU");
        }
        let frame = frame::alloc(0).unwrap();
        let is_quiet = |_| {
            thread::sleep(Duration::from_millis(20));
            let stay = super::stay();
            let before: Vec<(u32, u64)> = percpu::others().iter().map(|cpu| (cpu, interrupts(cpu))).collect();
            for _ in 0..FLUSHES {
                show(frame.address());
                hide();
            }
            drop(stay);
            before.into_iter().all(|(cpu, count)| interrupts(cpu) - count < FLUSHES / 2)
        };
        assert!((0..10).any(is_quiet), "CPUs that sleep are interrupted again and again");
    }
}

crate::kernel_test! {
    /// Each CPU but the first is taken down and brought up again, thrice.
    fn a_cpu_goes_down_and_comes_up_again() {
        let all = percpu::up();
        if all.len() == 1 {
            crate::skip!("there is one CPU");
        }
        for cpu in all.iter().filter(|&cpu| cpu > 0 && (cpu < 4 || cpu + 2 > all.len())) {
            for _ in 0..3 {
                smp::down(cpu).unwrap();
                assert!(!percpu::is_up(cpu));
                assert_eq!(smp::down(cpu), Err(smp::Error::IsDown));
                let ran = AtomicU32::new(0);
                call_on(all, &|| _ = ran.fetch_add(1, SeqCst));
                assert_eq!(ran.load(SeqCst), all.len() - 1);
                smp::up(cpu).unwrap();
                assert_eq!(smp::up(cpu), Err(smp::Error::IsUp));
                assert_eq!(percpu::up(), all);
                let ran = AtomicU32::new(0);
                call_on(all, &|| _ = ran.fetch_add(1, SeqCst));
                assert_eq!(ran.load(SeqCst), all.len());
            }
        }
        assert_eq!(smp::down(0), Err(smp::Error::BootCpu));
        assert_eq!(smp::up(pv_ops::MAX_CPUS as u32), Err(smp::Error::NoSuchCpu));
    }
}

crate::kernel_test! {
    fn as_many_cpus_are_up_as_the_machine_tells() {
        let told = smp::topology().map_or(1, |topology| topology.count());
        assert_eq!(percpu::up().len(), told);
        assert_eq!(percpu::all().count() as u32, told);
    }
}
