//! The end of a life and the beginning of the next: the domain is saved, restored, perhaps elsewhere. Tasks, memory and
//! clock go on; the hypervisor's part is made anew.
//! Neighbours: `control` (who asks), `pv_ops::xen::suspend` (the hypercall, page tables, grants).
#![forbid(unsafe_code)]

use drivers::xen::xenstore::Xenstore;
use pv_ops::xen::{
    hypercall::Errno,
    rings,
    suspend::{self, Life},
};

use super::{CONSOLE, STORE, STORE_PAGE};
use crate::{
    console,
    cpu::{CpuSet, percpu, smp},
    irq,
    sync::{IrqState, OnceCell},
};

/// The CPU that saves the domain; the others are down meanwhile.
const BOOT_CPU: u32 = 0;

/// What becomes of the grant table, where there is one.
pub(super) struct Grants {
    pub(super) leave: fn() -> Result<(), Errno>,
    pub(super) come_back: fn() -> Result<(), Errno>,
}

/// Set by who has set the grant table up: an app without one does not carry it.
pub(super) static GRANTS: OnceCell<Grants> = OnceCell::uninit();

/// Lets the domain be saved; goes on in the next life, or in the same one if it was not to be. What was asked of
/// xenstore in the last life fails as interrupted, and watches are set again. To be called by a thread: a task would keep
/// its CPU up.
pub(super) fn run(store: &Xenstore) {
    log::info!("suspend");
    let others: CpuSet = percpu::up().iter().filter(|&cpu| cpu != BOOT_CPU).collect();
    for cpu in others.iter() {
        if let Err(error) = smp::down(cpu) {
            log::warn!("suspend: CPU {cpu}: {error}");
        }
    }
    console::flush();
    let mut result = Ok(Life::Same);
    store.restart(&mut || {
        result = suspend();
        // The ring is in the same place, and empty.
        STORE_PAGE.try_get().ok().copied().filter(|_| result == Ok(Life::Next))
    });
    for cpu in others.iter() {
        if let Err(error) = smp::up(cpu) {
            log::warn!("resume: CPU {cpu}: {error}");
        }
    }
    match result {
        Ok(Life::Same) => log::info!("resumed: the domain was not saved, or goes on beside its copy"),
        Ok(Life::Next) => log::info!("resumed in another domain"),
        Err(error) => log::error!("suspend: {error}"),
    }
}

/// The part in which nothing else runs anywhere: on the boot CPU, with interrupts disabled.
fn suspend() -> Result<Life, Errno> {
    let _disabled = IrqState::disable();
    let grants = GRANTS.try_get().ok();
    let result = grants.map_or(Ok(()), |grants| (grants.leave)()).and_then(|()| suspend::suspend());
    let again = grants.map_or(Ok(()), |grants| (grants.come_back)());
    let rebound = if result == Ok(Life::Next) { rebind() } else { Ok(()) };
    for error in [again.err(), rebound.err()].into_iter().flatten() {
        log::error!("resume: {error}");
    }
    result
}

/// Gives the rings their channels.
fn rebind() -> Result<(), Errno> {
    irq::event_channel::restart()?;
    for (line, ring) in [(&CONSOLE, rings::console()), (&STORE, rings::xenstore())] {
        if let Some(ring) = ring {
            line.bind(ring)?;
        }
    }
    Ok(())
}
