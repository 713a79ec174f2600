//! What CPUs ask of each other while all of them run something: to execute a function, to forget a translation.

use alloc::{sync::Arc, vec::Vec};
use core::{
    hint::spin_loop,
    sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
};

use kernel::{
    cpu::{self, percpu},
    mm::{Caching, map},
    thread,
};

use super::row::row;

/// The HPET's registers on every PC: a page that is no memory.
const A_PAGE: u64 = 0xfed0_0000;

pub(super) fn measure() {
    let others = percpu::others();
    if others.is_empty() {
        return;
    }
    let (stop, running) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let threads: Vec<_> = others
        .iter()
        .map(|_| {
            let (stop, running) = (stop.clone(), running.clone());
            thread::spawn(move || {
                running.fetch_add(1, SeqCst);
                while !stop.load(SeqCst) {
                    spin_loop();
                }
            })
        })
        .collect();
    while running.load(SeqCst) != others.len() as u32 {
        spin_loop();
    }
    // This thread may have changed its CPU.
    let _stay = cpu::stay();
    let others = percpu::others();
    row("call the other CPUs", 100, || (0..100).for_each(|_| cpu::call_on(others, &|| ())));
    row("unmap a page of the other CPUs", 100, || {
        (0..100).for_each(|_| drop(map::mapping(A_PAGE, 4096, Caching::Uncached)));
    });
    stop.store(true, SeqCst);
    drop(_stay);
    threads.into_iter().for_each(thread::JoinHandle::join);
}
