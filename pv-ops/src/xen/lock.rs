//! Spin locks that sleep: who waits polls an event channel of its own (`SCHEDOP_poll`), and who releases rings there.
//!
//! The channel is never let through, so no handler is called: all that counts is whether an event is pending. It is
//! taken back before the lock is looked at, so a kick that comes after the look ends the poll at once.
//! Neighbours: `event_channel` (the channels), `percpu` (where a CPU finds its own), `hvm`, `pv` (the ops).

use super::{
    abi::sched,
    event_channel::{self, EventPage, Port},
    hypercall::{self, Errno, Number},
    time,
};
use crate::{cpu_set::MAX_CPUS, percpu};
use core::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// The host word in which a CPU finds its channel, behind those of `steal`; 0 is "none".
const PORT_WORD: usize = 31;
/// Sleeps no longer: who releases may not know that somebody waits.
const LONGEST_NS: u64 = 1_000_000;

/// Each CPU's channel; 0 is "none".
static PORTS: [AtomicU32; MAX_CPUS] = [const { AtomicU32::new(0) }; MAX_CPUS];

/// Gives virtual CPU `cpu`, which runs this, a channel to be kicked on. `page` as for [`event_channel::prepare`].
/// Without one, waiting is spinning.
///
/// # Errors
/// What Xen says.
///
/// # Safety
/// GS points to the CPU's area.
pub unsafe fn cpu_up(cpu: u32, page: impl FnMut() -> Option<EventPage>) -> Result<(), Errno> {
    let place = PORTS.get(cpu as usize).ok_or(Errno::INVALID)?;
    let port = event_channel::bind_ipi(cpu)?;
    event_channel::prepare(port, cpu, page)?;
    // SAFETY: the caller's promise.
    unsafe { percpu::current() }.host()[PORT_WORD].store(port.0.into(), Ordering::Relaxed);
    place.store(port.0, Ordering::Release);
    Ok(())
}

pub(super) extern "sysv64" fn lock_kick(cpu: u32) {
    let port = PORTS.get(cpu as usize).map_or(0, |port| port.load(Ordering::Acquire));
    if port != 0 {
        // It ends by itself soon, if this does not end it.
        let _ = event_channel::send(Port(port));
    }
}

/// # Safety
/// GS points to the CPU's area, and `lock` to a byte that stays.
pub(super) unsafe extern "sysv64" fn lock_wait(lock: *const AtomicU8, seen: u8) {
    // SAFETY: the caller's promise.
    let own = unsafe { percpu::current() }.host()[PORT_WORD].load(Ordering::Relaxed);
    // SAFETY: the caller's promise.
    let lock = unsafe { &*lock };
    if own == 0 {
        return core::hint::spin_loop();
    }
    let port = own as u32;
    event_channel::take_back(Port(port));
    if lock.load(Ordering::SeqCst) != seen {
        return;
    }
    let mut argument = sched::Poll {
        ports: (&raw const port).expose_provenance() as u64,
        nr_ports: 1,
        _pad: 0,
        timeout: time::system_ns().saturating_add(LONGEST_NS),
    };
    // SAFETY: the struct is this command's; it sleeps.
    let _ = unsafe { hypercall::command(Number::SchedOp, sched::POLL, &mut argument) };
}
