//! Devices that other domains serve: each is given to the driver of its kind, those that come while the guest runs too.
//! Neighbours: `drivers::xen::xenbus` (what is there), `block` (a driver).
#![forbid(unsafe_code)]

use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::{
    future::Future,
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use drivers::xen::{
    Hypervisor,
    xenbus::{Bus, Change, Device, End, Frontend, Id, serve},
    xenstore::{Error, Xenstore},
};

use super::{bell::Bell, block, hypervisor, xenstore};
use crate::task;

/// For the devices that are there at the first look to come up; a backend that takes longer is not waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a driver does with a device, from its beginning to its end. The bell is rung when the device is up.
type Drive = fn(Arc<Xenstore>, Id, Arc<dyn Hypervisor>, Arc<Bell>) -> Life;
type Life = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// The drivers, by kind.
const DRIVERS: [(&str, Drive); 1] = [("vbd", |store, id, hypervisor, up| {
    Box::pin(async move { live(&store, &id, &mut block::Front::new(hypervisor, up)).await })
})];

/// Looks for devices, and returns when those that are there are up; goes on for as long as the guest runs. Who asks
/// again meanwhile does not wait.
pub(crate) fn probe() {
    static STARTED: AtomicBool = AtomicBool::new(false);
    let Some(store) = xenstore() else { return };
    if STARTED.swap(true, Ordering::Relaxed) {
        return;
    }
    match task::block_on(task::timeout(PATIENCE, begin(store))) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => log::warn!("xenbus: {error}: no device is driven"),
        Err(_) => log::warn!("xenbus: devices are not up after {PATIENCE:?}"),
    }
}

async fn begin(store: Arc<Xenstore>) -> Result<(), Error> {
    let mut bus = Bus::new(&store).await?;
    let mut coming = Vec::new();
    while let Some(change) = bus.pop() {
        coming.extend(meet(&store, change));
    }
    drop(task::spawn(follow(store, bus)));
    for up in coming {
        up.wait().await;
    }
    Ok(())
}

async fn follow(store: Arc<Xenstore>, mut bus: Bus) {
    loop {
        match bus.next().await {
            Ok(change) => drop(meet(&store, change)),
            // The watch is set again.
            Err(Error::Interrupted) => {}
            Err(error) => {
                log::warn!("xenbus: {error}: no device comes or goes from here on");
                return;
            }
        }
    }
}

/// Has a new device driven; what rings when it is up.
fn meet(store: &Arc<Xenstore>, change: Change) -> Option<Arc<Bell>> {
    let id = match change {
        Change::Added(id) => id,
        Change::Removed(id) => {
            log::info!("xenbus: {id} is gone");
            return None;
        }
    };
    let Some((_, drive)) = DRIVERS.iter().find(|(kind, _)| *kind == id.kind) else {
        log::info!("xenbus: {}: no driver for kind {}", id.path(), id.kind);
        return None;
    };
    // Why there is none was told.
    let hypervisor = hypervisor()?;
    let up = Arc::new(Bell::new());
    let ringer = up.clone();
    let store = store.clone();
    drop(task::spawn(async move {
        if let Err(error) = drive(store, id.clone(), hypervisor, ringer.clone()).await {
            log::warn!("xenbus: {}: {error}: not driven", id.path());
        }
        ringer.ring();
    }));
    Some(up)
}

/// A device's lives: it begins anew when the domain was restored.
async fn live(store: &Arc<Xenstore>, id: &Id, frontend: &mut impl Frontend) -> Result<(), Error> {
    loop {
        let end = match Device::open(store, id.clone()).await {
            Ok(mut device) => serve(&mut device, frontend).await,
            Err(error) => Err(error),
        };
        match end {
            Ok(End::Restored) | Err(Error::Interrupted) => {}
            Ok(End::Closed) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
