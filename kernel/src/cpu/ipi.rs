//! What CPUs ask of each other by one interrupt: to look up ([`kick`]), to run a function ([`call_on`]), to flush (`tlb`).
//!
//! One vector serves all: what is wanted stands in memory, so that several wishes cost one interrupt, and a hypervisor
//! needs one event a CPU. Neighbours: `pv_ops::send_ipi_many` (how it is sent), `irq::dispatch` (where it arrives).

use super::{percpu, tlb};
use crate::{irq::vectors, mm::heap, sync::IrqState};
use core::{
    cell::UnsafeCell,
    sync::atomic::{AtomicBool, Ordering},
};
use pv_ops::{AtomicCpuSet, CpuSet};

/// Looks at what another CPU is to do before the first that gives way: it takes a microsecond or two if that CPU runs, and
/// giving way may take longer.
const BRIEF_LOOKS: u32 = 1 << 10;

/// What is done between two looks at what another CPU is to do, `looks` so far.
#[inline]
pub(super) fn give_way(looks: &mut u32) {
    *looks = looks.wrapping_add(1);
    if *looks >= BRIEF_LOOKS {
        pv_ops::sched_yield();
    }
}

/// Interrupts these CPUs.
pub(super) fn send(cpus: &CpuSet) {
    if !cpus.is_empty() {
        // SAFETY: the vector is `dispatch`'s own, which serves it.
        unsafe { pv_ops::send_ipi_many(cpus, vectors::CPU_REQUEST) };
    }
}

/// Wakes a CPU that sleeps, and makes one that runs look at what is ready.
pub fn kick(cpu: u32) {
    send(&CpuSet::one(cpu));
}

type Function<'a> = &'a (dyn Fn() + Sync);

/// The one call that is under way.
struct Call {
    /// Somebody has it.
    taken: AtomicBool,
    function: UnsafeCell<Option<Function<'static>>>,
    /// Who has not begun, and who has not ended.
    wanted: AtomicCpuSet,
    unfinished: AtomicCpuSet,
}

// SAFETY: `function` is written by who has `taken` it, while nobody is `wanted`, and read by who was.
unsafe impl Sync for Call {}

static CALL: Call = Call {
    taken: AtomicBool::new(false),
    function: UnsafeCell::new(None),
    wanted: AtomicCpuSet::new(),
    unfinished: AtomicCpuSet::new(),
};

/// Runs `function` on each of `cpus` that is up, this one among them if it is in the set, with interrupts disabled
/// there; returns when all are through. One call is under way at a time; no memory is taken.
///
/// # Panics
/// With interrupts disabled: two CPUs would wait for each other.
#[track_caller]
pub fn call_on(cpus: CpuSet, function: &(dyn Fn() + Sync)) {
    assert!(pv_ops::irq_flags() & super::RFLAGS_IF != 0, "a call on other CPUs with interrupts disabled");
    while CALL.taken.swap(true, Ordering::Acquire) {
        pv_ops::sched_yield();
    }
    let _stay = super::stay();
    // This thread stays on this CPU until its own part is done.
    let here = IrqState::disable();
    let this = percpu::this_cpu();
    let up = percpu::up();
    let others: CpuSet = cpus.iter().filter(|&cpu| cpu != this && up.contains(cpu)).collect();
    // SAFETY: a lifetime is all that is changed: every CPU is through, or was taken out, before this function ends.
    let unbound = unsafe { core::mem::transmute::<Function<'_>, Function<'static>>(function) };
    // SAFETY: the call is ours, and nobody is wanted.
    unsafe { *CALL.function.get() = Some(unbound) };
    for cpu in others.iter() {
        CALL.unfinished.insert(cpu);
        CALL.wanted.insert(cpu);
    }
    send(&others);
    if cpus.contains(this) {
        function();
    }
    drop(here);
    let mut looks = 0;
    for cpu in others.iter() {
        while CALL.unfinished.contains(cpu) {
            if !percpu::is_up(cpu) && CALL.wanted.remove(cpu) {
                CALL.unfinished.remove(cpu);
            }
            give_way(&mut looks);
        }
    }
    CALL.taken.store(false, Ordering::Release);
}

/// The handler of the interrupt, with interrupts disabled.
pub(crate) fn serve() {
    tlb::poll();
    heap::serve();
    let this = percpu::this_cpu();
    if !CALL.wanted.contains(this) || !CALL.wanted.remove(this) {
        return;
    }
    // SAFETY: this CPU was wanted: the function is there, and stays until this CPU is no longer unfinished.
    if let Some(function) = unsafe { *CALL.function.get() } {
        function();
    }
    CALL.unfinished.remove(this);
}

crate::kernel_test! {
    fn every_cpu_runs_a_function_once_a_call() {
        use core::sync::atomic::AtomicU32;
        let ran = [const { AtomicU32::new(0) }; pv_ops::MAX_CPUS];
        for _ in 0..20 {
            call_on(percpu::up(), &|| _ = ran[percpu::this_cpu() as usize].fetch_add(1, Ordering::Relaxed));
        }
        for (cpu, ran) in ran.iter().enumerate() {
            let expected = if percpu::is_up(cpu as u32) { 20 } else { 0 };
            assert_eq!(ran.load(Ordering::Relaxed), expected, "CPU {cpu}");
        }
    }
}

crate::kernel_test! {
    fn every_cpu_has_data_of_its_own() {
        use core::sync::atomic::AtomicU64;
        let places = [const { AtomicU64::new(0) }; pv_ops::MAX_CPUS];
        call_on(percpu::up(), &|| {
            let cpu = super::current();
            places[cpu.id() as usize].store(core::ptr::from_ref(cpu).addr() as u64, Ordering::Relaxed);
        });
        for (cpu, place) in places.iter().enumerate().filter(|(cpu, _)| percpu::is_up(*cpu as u32)) {
            let data = percpu::by_id(cpu as u32).unwrap();
            assert_eq!(place.load(Ordering::Relaxed), core::ptr::from_ref(data).addr() as u64, "CPU {cpu}");
            assert_eq!(data.id(), cpu as u32);
        }
    }
}
