//! The end of the guest begins: one CPU reports it, the others stop where they are.
//! Neighbours: `nmi` (how), `panic`, `irq::exceptions` (who report), `power` (what comes then).

use super::{nmi, percpu};
use crate::hypervisor;
use core::sync::atomic::{AtomicU32, Ordering};
use pv_ops::AtomicCpuSet;

/// The number of the CPU that reports, plus one.
static REPORTER: AtomicU32 = AtomicU32::new(0);
static STOPPED: AtomicCpuSet = AtomicCpuSet::new();
/// Times that is looked whether the others have stopped.
const LOOKS: u32 = 1_000_000;

/// Stops all other CPUs, wherever they are and whatever locks they hold. If another CPU has done so before, this one
/// stops and does not come back.
pub fn others() {
    let this = percpu::this_cpu();
    match REPORTER.compare_exchange(0, this + 1, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {}
        Err(reporter) if reporter == this + 1 => return,
        Err(_) => stop(),
    }
    let others = percpu::others();
    for cpu in others.iter() {
        match hypervisor::services().stop_cpu {
            Some(stop) => stop(cpu),
            // SAFETY: the handler of the interrupt stops the CPU, as is wanted.
            None => _ = unsafe { nmi::send(cpu) },
        }
    }
    let all_stopped = || others.iter().all(|cpu| STOPPED.contains(cpu));
    if hypervisor::services().stop_cpu.is_none() {
        let _ = (0..LOOKS).find(|_| all_stopped());
    }
}

/// Called by the handler of a non-maskable interrupt: stops this CPU if that is what it was sent for.
pub(super) fn on_nmi() {
    let reporter = REPORTER.load(Ordering::Acquire);
    if reporter != 0 && reporter != percpu::this_cpu() + 1 {
        stop();
    }
}

fn stop() -> ! {
    pv_ops::irq_disable();
    STOPPED.insert(percpu::this_cpu());
    loop {
        pv_ops::halt();
    }
}
