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
use crate::{console, irq, mm::shared, sync::IrqState};

/// Lets the domain be saved; goes on in the next life, or in the same one if it was not to be. What was asked of
/// xenstore in the last life fails as interrupted, and watches are set again.
pub(super) fn run(store: &Xenstore) {
    log::info!("suspend");
    console::flush();
    let disabled = IrqState::disable();
    let result = suspend::suspend().and_then(|life| {
        if life == Life::Next {
            rebind()?;
        }
        Ok(life)
    });
    drop(disabled);
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
