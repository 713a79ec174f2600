//! What a guest of KVM shares with its host, seen at work. Neighbour: `pv_ops::kvm` (does it).
#![forbid(unsafe_code)]

crate::kernel_test! {
    /// The host's clock is a clock: it goes on, and what it tells of the date can be.
    fn the_host_s_clock_runs() {
        /// 2020-01-01.
        const LONG_AGO_S: u64 = 1_577_836_800;
        if !pv_ops::kvm::features::CLOCK.is_used() {
            crate::skip!("KVM's clock is not in use");
        }
        let before = pv_ops::monotonic_ns();
        while pv_ops::monotonic_ns() == before {
            core::hint::spin_loop();
        }
        assert!(crate::time::wall().is_some_and(|wall| wall.as_secs() > LONG_AGO_S));
    }
}

crate::kernel_test! {
    /// Interrupts that this CPU sends itself: the host marks them as needing no end, and the mark is gone afterwards.
    fn interrupts_end_without_an_exit() {
        use core::sync::atomic::{AtomicU32, Ordering};
        use pv_ops::kvm::{features::PV_EOI, irq::needs_no_end};
        static CAME: AtomicU32 = AtomicU32::new(0);
        static MARKED: AtomicU32 = AtomicU32::new(0);
        const INTERRUPTS: u32 = 20;
        if !PV_EOI.is_used() {
            crate::skip!("KVM's end of interrupts is not in use");
        }
        let cpu = crate::cpu::current();
        let vector = crate::irq::allocate("end without exit", move || {
            MARKED.fetch_add(u32::from(needs_no_end(cpu.id())), Ordering::Relaxed);
            CAME.fetch_add(1, Ordering::Relaxed);
        });
        let vector = vector.unwrap();
        for sent in 0..INTERRUPTS {
            crate::irq::send(cpu, vector);
            while CAME.load(Ordering::Relaxed) == sent {
                core::hint::spin_loop();
            }
            assert!(!needs_no_end(cpu.id()), "the mark is left over");
        }
        assert!(MARKED.load(Ordering::Relaxed) > 0, "of {INTERRUPTS} interrupts none was marked");
    }
}

crate::kernel_test! {
    /// What is stolen from a CPU only grows.
    fn stolen_time_only_grows() {
        if !pv_ops::kvm::features::STEAL_TIME.is_used() {
            crate::skip!("KVM's steal time is not in use");
        }
        let (before, start) = (pv_ops::steal_ns(0), pv_ops::monotonic_ns());
        while pv_ops::monotonic_ns() < start + 1_000_000 {
            core::hint::spin_loop();
        }
        assert!(pv_ops::steal_ns(0) >= before);
    }
}

crate::kernel_test! {
    /// What is sent to all other CPUs arrives at each, and took one call for all of them.
    fn interrupts_to_many_are_one_call() {
        use core::sync::atomic::{AtomicU32, Ordering};
        use pv_ops::kvm::{features::PV_IPI, hypercall};
        let others = crate::cpu::percpu::others();
        if !PV_IPI.is_used() || others.is_empty() {
            crate::skip!("KVM's calls for interrupts are not in use, or there is one CPU");
        }
        // CPUs may call for reasons of their own meanwhile, but not every time.
        const TRIES: usize = 20;
        let calls = (0..TRIES).map(|_| {
            let came = AtomicU32::new(0);
            let before = hypercall::answered(hypercall::SEND_IPI);
            crate::cpu::ipi::call_on(others, &|| _ = came.fetch_add(1, Ordering::Relaxed));
            assert_eq!(came.load(Ordering::Relaxed), others.len());
            hypercall::answered(hypercall::SEND_IPI) - before
        });
        assert_eq!(calls.filter(|&calls| calls > 0).min(), Some(1), "calls for {} CPUs", others.len());
    }
}

crate::kernel_test! {
    /// A CPU that waits for a lock, with interrupts disabled, sleeps until the kick.
    fn a_kick_wakes_who_waits_with_interrupts_disabled() {
        use core::sync::atomic::{AtomicU8, Ordering};
        use pv_ops::kvm::{features::PV_UNHALT, hypercall};
        const TAKEN: u8 = 1;
        let Some(other) = crate::cpu::percpu::others().iter().next() else {
            crate::skip!("there is one CPU");
        };
        if !PV_UNHALT.is_used() {
            crate::skip!("KVM's kick is not in use");
        }
        static LOCK: AtomicU8 = AtomicU8::new(TAKEN);
        let before = hypercall::answered(hypercall::KICK_CPU);
        let this = crate::cpu::current().id();
        crate::cpu::ipi::call_on([this, other].into_iter().collect(), &|| {
            if crate::cpu::current().id() == other {
                while LOCK.load(Ordering::Acquire) == TAKEN {
                    pv_ops::lock_wait(&LOCK, TAKEN);
                }
            } else {
                let start = pv_ops::monotonic_ns();
                while pv_ops::monotonic_ns() < start + 2_000_000 {
                    core::hint::spin_loop();
                }
                LOCK.store(0, Ordering::Release);
                pv_ops::lock_kick(other);
            }
        });
        assert!(hypercall::answered(hypercall::KICK_CPU) > before);
    }
}

crate::kernel_test! {
    /// A CPU that its host has put aside is not interrupted for a flush, but marked.
    fn who_does_not_run_is_not_interrupted_for_a_flush() {
        use core::sync::atomic::{AtomicBool, Ordering};
        use pv_ops::{
            CpuSet,
            kvm::{features::PV_TLB_FLUSH, mmu},
        };
        const PATIENCE_NS: u64 = 2_000_000_000;
        let Some(other) = crate::cpu::percpu::others().iter().next() else {
            crate::skip!("there is one CPU");
        };
        if !PV_TLB_FLUSH.is_used() {
            crate::skip!("KVM's flush is not in use");
        }
        let (before, start) = (mmu::marked(), pv_ops::monotonic_ns());
        let done = AtomicBool::new(false);
        let this = crate::cpu::current().id();
        // The other spins, so that its host has a reason to put it aside.
        crate::cpu::ipi::call_on([this, other].into_iter().collect(), &|| {
            if crate::cpu::current().id() == other {
                while !done.load(Ordering::Acquire) {
                    crate::cpu::tlb::poll();
                }
                return;
            }
            while mmu::marked() == before && pv_ops::monotonic_ns() < start + PATIENCE_NS {
                if mmu::is_put_aside(other) {
                    pv_ops::flush_tlb_others(&CpuSet::one(other), 0, 4096);
                }
            }
            done.store(true, Ordering::Release);
        });
        if mmu::marked() == before {
            crate::skip!("the host has put no CPU aside meanwhile");
        }
    }
}

crate::kernel_test! {
    /// What one CPU has read, another that reads later does not undercut.
    fn time_goes_on_from_cpu_to_cpu() {
        use core::sync::atomic::{AtomicU64, Ordering};
        const READINGS: usize = 2_000;
        if !pv_ops::kvm::features::CLOCK.is_used() {
            crate::skip!("KVM's clock is not in use");
        }
        let Some(other) = crate::cpu::percpu::others().iter().next() else {
            crate::skip!("there is one CPU");
        };
        let (latest, worst) = (AtomicU64::new(0), AtomicU64::new(0));
        let this = crate::cpu::current().id();
        crate::cpu::ipi::call_on([this, other].into_iter().collect(), &|| {
            for _ in 0..READINGS {
                let seen = latest.load(Ordering::SeqCst);
                let now = pv_ops::monotonic_ns();
                worst.fetch_max(seen.saturating_sub(now), Ordering::Relaxed);
                latest.fetch_max(now, Ordering::SeqCst);
                crate::cpu::tlb::poll();
            }
        });
        assert_eq!(worst.load(Ordering::Relaxed), 0, "ns that time went back");
    }
}
