//! What the toolstack wants of the guest: power off, reboot, and the like, as values of nodes below `control/`
//! (docs/misc/xenstore-paths.pandoc).
#![forbid(unsafe_code)]

use alloc::{format, string::String, sync::Arc};

use drivers::xen::xenstore::{Error, Refusal, Transaction, Xenstore};

use super::suspend;
use crate::{power, task, thread};

const SHUTDOWN: &str = "control/shutdown";
const SYSRQ: &str = "control/sysrq";

/// What the guest can do, told to the toolstack.
const FEATURES: [&str; 3] = ["feature-poweroff", "feature-reboot", "feature-suspend"];

/// Follows the toolstack's wishes.
pub(super) fn start(store: &Arc<Xenstore>) {
    drop(task::spawn(advertise(store.clone())));
    drop(task::spawn(follow(store.clone(), SYSRQ, |_, command| {
        let command = command.as_bytes().escape_ascii();
        log::info!("{SYSRQ}: \"{command}\": there are no such keys here");
    })));
    drop(task::spawn(follow(store.clone(), SHUTDOWN, |store, command| match command {
        "poweroff" | "halt" => power::off(),
        "reboot" => power::reboot(),
        "suspend" => {
            // A thread leaves a CPU that goes down; a task would keep it up.
            let store = store.clone();
            let begun = thread::Builder::new().name("suspend").spawn(move || {
                suspend::run(&store);
                drop(task::spawn(advertise(store)));
            });
            if let Err(error) = begun {
                log::error!("{SHUTDOWN}: {error}");
            }
        }
        other => {
            let other = other.as_bytes().escape_ascii();
            log::warn!(
                "{SHUTDOWN}: \"{other}\" is not understood, expected poweroff, halt, reboot or suspend"
            );
        }
    })));
}

/// Tells the toolstack what it can ask for.
async fn advertise(store: Arc<Xenstore>) {
    for feature in FEATURES {
        // A toolstack that does not let it be written does not ask either.
        let _ = store.write(Transaction::NONE, &format!("control/{feature}"), "1").await;
    }
}

/// Calls `act` with each value that the node at `path` takes, once; the node is emptied first, as the answer.
async fn follow(store: Arc<Xenstore>, path: &'static str, act: fn(&Arc<Xenstore>, &str)) {
    let result: Result<(), Error> = async {
        let mut watch = store.watch(path).await?;
        loop {
            watch.next().await?;
            match take(&store, path).await {
                Ok(command) if command.is_empty() => {}
                Ok(command) => act(&store, &command),
                // Something that is no text, or a node that cannot be emptied: told, and the watch goes on.
                Err(error @ (Error::Refused(_) | Error::Nonsense | Error::Conflict(_))) => {
                    log::warn!("{path}: {error}");
                }
                // The watch is set again, and comes again.
                Err(Error::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
    }
    .await;
    if let Err(error) = result {
        log::warn!("{path}: {error}: no longer followed");
    }
}

/// The node's value, which is empty afterwards; empty if there is no such node.
async fn take(store: &Xenstore, path: &str) -> Result<String, Error> {
    store
        .transaction(|transaction| async move {
            match store.read(transaction, path).await {
                Ok(command) if command.is_empty() => Ok(command),
                Ok(command) => store.write(transaction, path, "").await.map(|()| command),
                Err(Error::Refused(Refusal::ENOENT)) => Ok(String::new()),
                Err(error) => Err(error),
            }
        })
        .await
}
