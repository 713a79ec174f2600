//! What a CPU does for devices when it has come to the end of what is ready: it tells them what they were asked meanwhile, by
//! one notification for many requests, and may look for their answers before it halts.
//!
//! A task asks a device and waits; the next one does; the device learns of both when the worker has been through all tasks
//! that were ready, or when a thread waits or gives way. Neighbours: `worker`, `scheduler` (who call [`end`]), `idle` (who
//! calls [`wait`]), `devices::block` (who is called).
#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicU32, Ordering};

use spin::Once;

use crate::cpu;

/// Devices that are asked by tasks.
pub(crate) trait Devices: Sync {
    /// Tells them what they were asked.
    fn tell(&self);

    /// Looks for answers on behalf of `cpu`, for a bounded time, until `is_ready`. Interrupts are disabled before and after,
    /// and let in meanwhile. `asked` counts what this CPU has asked so far.
    fn wait(&self, cpu: u32, asked: u32, is_ready: &dyn Fn() -> bool);
}

/// What a CPU has asked so far, and how much of it the devices were told. Only that CPU writes.
struct Asked {
    all: AtomicU32,
    told: AtomicU32,
}

static ASKED: [Asked; pv_ops::MAX_CPUS] =
    [const { Asked { all: AtomicU32::new(0), told: AtomicU32::new(0) } }; pv_ops::MAX_CPUS];
static DEVICES: Once<&'static dyn Devices> = Once::new();

fn asked(cpu: u32) -> &'static Asked {
    &ASKED[cpu as usize % ASKED.len()]
}

/// Has `devices` called when a round ends in which [`later`] was. The first to ask has it.
pub(crate) fn serve(devices: &'static dyn Devices) {
    DEVICES.call_once(|| devices);
}

/// So many things more were asked of devices: they are to be told when this round ends. Interrupts are disabled, so that it is
/// this CPU's.
pub(crate) fn later(count: u32) {
    let all = &asked(cpu::current().id()).all;
    all.store(all.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
}

/// Whether devices are to be told of something at the end of this round on `cpu`.
pub(super) fn is_awaited(cpu: u32) -> bool {
    let Asked { all, told } = asked(cpu);
    all.load(Ordering::Relaxed) != told.load(Ordering::Relaxed)
}

/// What `cpu` has asked so far.
pub(crate) fn asked_by(cpu: u32) -> u32 {
    asked(cpu).all.load(Ordering::Relaxed)
}

/// A round has ended on `cpu`, which runs this.
pub(super) fn end(cpu: u32) {
    if is_awaited(cpu) {
        let Asked { all, told } = asked(cpu);
        told.store(all.load(Ordering::Relaxed), Ordering::Relaxed);
        DEVICES.get().into_iter().for_each(|devices| devices.tell());
    }
}

/// `cpu`, which runs this with interrupts disabled, is about to halt.
pub(super) fn wait(cpu: u32, is_ready: &dyn Fn() -> bool) {
    if let Some(devices) = DEVICES.get() {
        devices.wait(cpu, asked_by(cpu), is_ready);
    }
}
