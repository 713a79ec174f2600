//! How many CPUs the toolstack wants this domain to use: `cpu/N/availability` in xenstore, `online` or `offline`
//! (docs/misc/xenstore-paths.pandoc; `xl vcpu-set`).
//! Neighbours: `cpu::smp` (brings them up and down), `suspend` (takes all but one down for a while).
#![forbid(unsafe_code)]

use alloc::{format, sync::Arc};

use drivers::xen::xenstore::{Transaction, Xenstore};

use crate::{
    cpu::{percpu, smp},
    thread,
};

/// Follows the toolstack's wishes, where there is more than one CPU.
pub(super) async fn serve(store: Arc<Xenstore>) {
    let count = smp::topology().map_or(1, |topology| topology.count());
    if count == 1 {
        return;
    }
    let Ok(mut watch) = store.watch("cpu").await else { return };
    while watch.next().await.is_ok() {
        for cpu in 1..count {
            let wanted =
                match store.read(Transaction::NONE, &format!("cpu/{cpu}/availability")).await.as_deref() {
                    Ok("online") => true,
                    Ok("offline") => false,
                    Ok(other) => {
                        let other = other.as_bytes().escape_ascii();
                        log::warn!("cpu/{cpu}/availability: \"{other}\", expected online or offline");
                        continue;
                    }
                    // The toolstack says nothing of it.
                    Err(_) => continue,
                };
            if wanted == percpu::is_up(cpu) {
                continue;
            }
            // Not here: a task cannot leave the CPU that polls it.
            let change = thread::spawn(move || if wanted { smp::up(cpu) } else { smp::down(cpu) });
            match change.await {
                Ok(()) => {
                    log::info!("CPU {cpu} is {}, as the toolstack wants", if wanted { "up" } else { "down" })
                }
                Err(error) => log::warn!("CPU {cpu}: {error}"),
            }
        }
    }
}
