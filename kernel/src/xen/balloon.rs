//! How much memory the toolstack wants this guest to have: `memory/target`, in KiB
//! (docs/misc/xenstore-paths.pandoc).
//! Neighbours: `mm::balloon` (the frames).
#![forbid(unsafe_code)]

use alloc::sync::Arc;
use core::time::Duration;

use drivers::xen::xenstore::{Error, Transaction, Xenstore};
use pv_ops::xen::memory;

use crate::{
    mm::{balloon::Balloon, layout::PAGE_SIZE},
    task,
};

const TARGET: &str = "memory/target";
/// What there was at the start, where a guest's own books do not say.
const AT_START: &str = "memory/static-max";
const KIB_PER_FRAME: u64 = PAGE_SIZE / 1024;
/// Steps without a pause: other tasks wait no longer.
const STEPS: usize = 16;
/// A target that cannot be reached is tried again after this time, then twice as long each time, [`TRIES`] times.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const TRIES: u32 = 7;

/// Follows the toolstack's wishes.
pub(super) async fn serve(store: Arc<Xenstore>) {
    if let Err(error) = follow(&store).await {
        log::warn!("{TARGET}: {error}: no longer followed");
    }
}

async fn follow(store: &Arc<Xenstore>) -> Result<(), Error> {
    let mut watch = store.watch(TARGET).await?;
    let frames_at_start = match memory::frames_at_start() {
        Some(frames) => frames,
        // A toolstack that does not tell has no wishes either.
        None => match number(store, AT_START).await? {
            Some(kib) => kib / KIB_PER_FRAME,
            None => return Ok(()),
        },
    };
    let mut balloon = Balloon::default();
    let (mut wanted, mut tries) = (0, 0);
    loop {
        let pause = FIRST_PAUSE * (1 << (TRIES - tries));
        let change = match balloon.frames() != wanted && tries > 0 {
            true => task::timeout(pause, watch.next()).await,
            false => Ok(watch.next().await),
        };
        match change {
            Ok(change) => {
                change?;
                let Some(kib) = number(store, TARGET).await? else { continue };
                wanted = frames_at_start.saturating_sub(kib / KIB_PER_FRAME);
                tries = TRIES;
            }
            Err(task::Elapsed) => tries -= 1,
        }
        let before = balloon.frames();
        while (0..STEPS).all(|_| balloon.step(wanted)) {
            task::yield_now().await;
        }
        if balloon.frames() == wanted && wanted != before {
            log::info!("{TARGET}: {} KiB are the hypervisor's now", wanted * KIB_PER_FRAME);
        } else if balloon.frames() != wanted && tries == TRIES {
            let (found, wanted) = (balloon.frames() * KIB_PER_FRAME, wanted * KIB_PER_FRAME);
            log::warn!(
                "{TARGET}: the hypervisor is to have {wanted} KiB and has {found}: {TRIES} more tries"
            );
        }
    }
}

/// The number of the node at `path`; `None` if there is none, or after a restore, when the watch comes again.
async fn number(store: &Xenstore, path: &str) -> Result<Option<u64>, Error> {
    match store.read(Transaction::NONE, path).await {
        Ok(text) => {
            let number = text.parse().ok();
            if number.is_none() {
                let text = text.as_bytes().escape_ascii();
                log::warn!("{path}: \"{text}\": expected a number of KiB");
            }
            Ok(number)
        }
        Err(Error::Refused(_) | Error::Nonsense | Error::Interrupted) => Ok(None),
        Err(error) => Err(error),
    }
}
