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

use super::{CONSOLE, STORE};
use crate::{
    console, irq,
    mm::shared,
    sync::{IrqState, OnceCell},
};

/// What becomes of the grant table, where there is one.
pub(super) struct Grants {
    pub(super) leave: fn() -> Result<(), Errno>,
    pub(super) come_back: fn() -> Result<(), Errno>,
}

/// Set by who has set the grant table up: an app without one does not carry it.
pub(super) static GRANTS: OnceCell<Grants> = OnceCell::uninit();

/// Lets the domain be saved; goes on in the next life, or in the same one if it was not to be. What was asked of
/// xenstore in the last life fails as interrupted, and watches are set again.
pub(super) fn run(store: &Xenstore) {
    log::info!("suspend");
    console::flush();
    let disabled = IrqState::disable();
    let grants = GRANTS.try_get().ok();
    let result = grants.map_or(Ok(()), |grants| (grants.leave)()).and_then(|()| suspend::suspend());
    let again = grants.map_or(Ok(()), |grants| (grants.come_back)());
    let rebound = if result == Ok(Life::Next) { rebind() } else { Ok(()) };
    drop(disabled);
    for error in [again.err(), rebound.err()].into_iter().flatten() {
        log::error!("resume: {error}");
    }
    match result {
        Ok(Life::Same) => log::info!("resumed: the domain was not saved, or goes on beside its copy"),
        Ok(Life::Next) => {
            if let Some(Ok(page)) = rings::xenstore().map(shared::ring) {
                store.restart(page);
            }
            log::info!("resumed in another domain");
        }
        Err(error) => log::error!("suspend: {error}"),
    }
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
