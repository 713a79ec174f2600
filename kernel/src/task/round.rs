//! What a CPU does for devices when it has come to the end of what is ready: it tells them what they were asked meanwhile, by
//! one notification for many requests.
//!
//! A task asks a device and waits; the next one does; the device learns of both when the worker has been through all tasks
//! that were ready, or when a thread waits or gives way. Neighbours: `worker`, `scheduler` (who call [`end`]),
//! `devices::block` (who is called).
#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicBool, Ordering};

use spin::Once;

use crate::cpu;

/// This CPU has asked something of a device that was not told yet.
static ASKED: [AtomicBool; pv_ops::MAX_CPUS] = [const { AtomicBool::new(false) }; pv_ops::MAX_CPUS];
/// Who tells the devices.
static TELL: Once<fn()> = Once::new();

fn asked(cpu: u32) -> &'static AtomicBool {
    &ASKED[cpu as usize % ASKED.len()]
}

/// Has `tell` called when a round ends in which [`later`] was. The first to ask has it.
pub(crate) fn at_end(tell: fn()) {
    TELL.call_once(|| tell);
}

/// Something was asked of a device: it is to be told when this round ends. Interrupts are disabled, so that it is this CPU's.
pub(crate) fn later() {
    asked(cpu::current().id()).store(true, Ordering::Relaxed);
}

/// Whether devices are to be told of something at the end of this round on `cpu`.
pub(super) fn is_awaited(cpu: u32) -> bool {
    asked(cpu).load(Ordering::Relaxed)
}

/// A round has ended on `cpu`, which runs this.
pub(super) fn end(cpu: u32) {
    if asked(cpu).load(Ordering::Relaxed) {
        asked(cpu).store(false, Ordering::Relaxed);
        TELL.get().into_iter().for_each(|tell| tell());
    }
}
