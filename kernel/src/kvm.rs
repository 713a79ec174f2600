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
