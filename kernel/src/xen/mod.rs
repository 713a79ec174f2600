//! What a domain of Xen has instead of a PC's devices: the console ring, xenstore, and the bus of devices that other
//! domains serve. Where there is no Xen [`probe`] finds nothing, as with every other device.
//!
//! Files: `console` (dom0's), `bus` (devices and their drivers), `block` (disks), `hypervisor` (what drivers ask for,
//! answered by hypercalls), `bell` (from an event to a task), `control` (the toolstack's wishes: power off, reboot,
//! suspend), `suspend` (the next life), `balloon` (how much memory), `cpus` (how many CPUs). The drivers themselves are
//! in `drivers::xen`.
#![forbid(unsafe_code)]

mod balloon;
mod bell;
mod block;
pub(crate) mod bus;
mod console;
mod control;
mod cpus;
mod hypervisor;
mod suspend;
mod tests;

use alloc::{boxed::Box, sync::Arc};
use core::fmt::Display;

use drivers::xen::{Hypervisor, SharedPage, console::HvcConsole, xenstore::Xenstore};
use pv_ops::xen::{hypercall::Errno, rings};
use thiserror::Error;

use crate::{
    app,
    console::{self as consoles, Kind},
    irq,
    mm::{MapError, shared},
    sync::OnceCell,
    task,
};
use bell::{Bell, Line};

static XENSTORE: OnceCell<Arc<Xenstore>> = OnceCell::uninit();

/// The rings' channels, and who waits for xenstore's.
static CONSOLE: Line = Line::new("hvc", consoles::on_receive);
static STORE: Line = Line::new("xenstore", || STORE_BELL.ring());
static STORE_BELL: Bell = Bell::new();
static STORE_PAGE: OnceCell<&SharedPage> = OnceCell::uninit();

/// Pages and channels for drivers of devices that another domain serves; `None` where there is no Xen. The first call
/// sets the grant table up: who shares no page has none.
pub fn hypervisor() -> Option<Arc<dyn Hypervisor>> {
    static HYPERVISOR: OnceCell<Option<Arc<dyn Hypervisor>>> = OnceCell::uninit();
    if !irq::event_channel::is_up() {
        return None;
    }
    let set_up = || {
        hypervisor::init(app::cmdline().get("xen.grants"))
            .inspect_err(|error| log::warn!("xen grant table: {error}"))
            .ok()
    };
    HYPERVISOR.try_get_or_init(set_up).ok()?.clone()
}

/// The toolstack's tree; `None` in dom0 and where there is no Xen.
pub fn xenstore() -> Option<Arc<Xenstore>> {
    XENSTORE.try_get().ok().cloned()
}

/// Why something that Xen gives is not used.
#[derive(Debug, Error)]
enum Failure {
    #[error("{0}")]
    Map(#[from] MapError),
    #[error("{0}")]
    Refused(#[from] Errno),
}

/// Finds what Xen gives this domain besides devices, and puts it to use.
pub fn probe() {
    if !irq::event_channel::is_up() {
        return;
    }
    if consoles::is_chosen(Kind::Serial) {
        let result = if pv_ops::xen::is_dom0() { console::init().map_err(Failure::from) } else { hvc() };
        report("console", result);
    }
    report("xenstore", store());
}

fn report(what: &str, result: Result<(), impl Display>) {
    if let Err(error) = result {
        log::warn!("xen {what}: {error}");
    }
}

/// The console ring, if the toolstack gave one.
fn hvc() -> Result<(), Failure> {
    let Some(ring) = rings::console() else { return Ok(()) };
    let page = shared::ring(ring)?;
    let hvc = HvcConsole::new(page, Box::new(|| CONSOLE.ring()), Box::new(pv_ops::sched_yield));
    consoles::register(Box::new(hvc), Kind::Serial);
    CONSOLE.bind(ring)?;
    log::info!("hvc: Xen console ring, in and out");
    Ok(())
}

/// The client of xenstore, and the tasks that live on it.
fn store() -> Result<(), Failure> {
    let Some(ring) = rings::xenstore() else { return Ok(()) };
    let page = shared::ring(ring)?;
    let store = Xenstore::new(page, Box::new(|| STORE.ring()));
    let _ = STORE_PAGE.try_init_once(|| page);
    STORE.bind(ring)?;
    let served = store.clone();
    drop(task::spawn(async move {
        loop {
            served.process();
            STORE_BELL.wait().await;
        }
    }));
    XENSTORE.init_once(|| store.clone());
    control::start(&store);
    drop(task::spawn(balloon::serve(store.clone())));
    drop(task::spawn(cpus::serve(store)));
    log::info!("xenstore: ring at {:#x}", ring.address());
    Ok(())
}
