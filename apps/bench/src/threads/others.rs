//! What CPUs ask of each other while two of them run something: to execute a function, to forget a translation.

use alloc::sync::Arc;
use core::{
    hint::black_box,
    sync::atomic::{
        AtomicBool, AtomicU32,
        Ordering::{Relaxed, SeqCst},
    },
};

use kernel::{
    cpu::{self, CpuSet, percpu},
    mm::{Caching, map},
    thread,
};

use super::row::row;

/// The HPET's registers on every PC: a page that is no memory.
const A_PAGE: u64 = 0xfed0_0000;
/// No CPU has this number.
const NOBODY: u32 = u32::MAX;

pub(super) fn measure() {
    if percpu::others().is_empty() {
        return;
    }
    let (stop, place) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(NOBODY)));
    let (stopped, its_place) = (stop.clone(), place.clone());
    let other = thread::spawn(move || {
        let _stay = cpu::stay();
        its_place.store(cpu::this_cpu(), SeqCst);
        // It computes, as those do that are interrupted.
        let mut sum = 0_u64;
        while !stopped.load(Relaxed) {
            sum = black_box(sum + 1);
        }
    });
    while place.load(SeqCst) == NOBODY {
        thread::yield_now();
    }
    let there = CpuSet::one(place.load(SeqCst));
    row("call another CPU", 100, || (0..100).for_each(|_| cpu::call_on(there, &|| ())));
    row("unmap a page of another CPU", 100, || {
        (0..100).for_each(|_| drop(map::mapping(A_PAGE, 4096, Caching::Uncached)));
    });
    stop.store(true, SeqCst);
    other.join();
}
