//! Tests of several CPUs at once; with one CPU most of them are trivially kept. Neighbours: `ipi`, `tlb`, `smp`.
//! A call on all CPUs makes them run at the same time: those that let interrupts in can be interrupted meanwhile.
#![cfg(all(feature = "self-test", target_os = "none"))]

use super::{call_on, percpu, probe, smp, this_cpu, tlb};
use crate::{
    mm::{
        frame, heap,
        layout::{HUGE, HUGE_LEN_BYTES, PAGE_SIZE},
        map::{self, Caching, Protection},
    },
    sync::IrqMutex,
    time,
};
use alloc::{sync::Arc, task::Wake, vec::Vec};
use core::{
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst},
    task::Waker,
};

/// The last page of a window that no allocation reaches.
const PAGE: u64 = HUGE + HUGE_LEN_BYTES - PAGE_SIZE;
const NS_PER_MS: u64 = 1_000_000;

/// Lets [`PAGE`] be this memory.
fn show(phys: u64) {
    // SAFETY: the window's last page, which nobody else uses; it is only read, by who can take a fault.
    unsafe { map::map(PAGE, phys, PAGE_SIZE, Protection::ReadOnly, Caching::WriteBack) }.unwrap();
}

fn hide() {
    // SAFETY: as in `show`.
    unsafe { map::unmap(PAGE, PAGE_SIZE) }.unwrap();
}

crate::kernel_test! {
    /// Two frames take turns behind one page while all other CPUs read it, half of them with interrupts disabled:
    /// whoever reads between two changes reads the frame that is there.
    fn no_cpu_reads_through_a_stale_translation() {
        const ROUNDS: u64 = 40;
        let mut frames = [frame::alloc(0).unwrap(), frame::alloc(0).unwrap()];
        for (value, frame) in frames.iter_mut().enumerate() {
            frame.bytes().fill(value as u8);
        }
        let phys = [frames[0].address(), frames[1].address()];
        // Twice the number of changes, odd while one is made.
        let (stage, done, reads) = (AtomicU64::new(0), AtomicBool::new(false), AtomicU64::new(0));
        show(phys[0]);
        let write = || {
            for change in 1..=ROUNDS {
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
        if percpu::up().len() > 1 {
            assert!(reads.load(SeqCst) > 0);
        }
    }
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

crate::kernel_test! {
    /// Every CPU takes, fills, hands to others and frees memory of all sizes: nothing is given out twice, all comes back.
    fn memory_is_nobody_elses_while_all_cpus_allocate() {
        const SHARED: usize = 16;
        static SHELF: IrqMutex<[Vec<u64>; SHARED]> = IrqMutex::new([const { Vec::new() }; SHARED]);
        // More CPUs than the host has wait for each other's turns most of the time.
        let rounds = if percpu::up().len() <= 8 { 400 } else { 4 };
        heap::trim();
        let before = frame::statistics().free;
        let arena = heap::statistics().arena_bytes;
        call_on(percpu::up(), &|| {
            let mut random = u64::from(this_cpu()) * 0x9e37_79b9_7f4a_7c15 + 1;
            for _ in 0..rounds {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                // Small, mostly; now and then a page, a piece of the arena, or pages of its own.
                let len = match random % 64 {
                    0 => 40_000,
                    1..=3 => 600 + random as usize / 64 % 4000,
                    _ => 1 + random as usize / 64 % 256,
                };
                let mut mine = Vec::new();
                if mine.try_reserve_exact(len).is_err() {
                    continue;
                }
                mine.resize(len, random);
                tlb::poll();
                assert!(mine.iter().all(|&word| word == random), "CPU {}", this_cpu());
                let place = (random >> 32) as usize % SHARED;
                let other = core::mem::replace(&mut SHELF.lock()[place], mine);
                assert!(other.iter().all(|&word| word == other[0]), "CPU {}", this_cpu());
            }
        });
        for place in 0..SHARED {
            let left = core::mem::take(&mut SHELF.lock()[place]);
            drop(left);
        }
        heap::trim();
        // The arena does not shrink; its tables are few.
        let grown = (heap::statistics().arena_bytes - arena) / PAGE_SIZE;
        let missing = before.saturating_sub(frame::statistics().free);
        assert!(missing <= grown + 8, "{missing} frames are missing, the arena has taken {grown}");
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
