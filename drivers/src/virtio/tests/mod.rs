//! Promises about every ring, every handshake and every device, tried against devices that keep to the standard and
//! devices that do not.
#![forbid(unsafe_code)]

mod balloon;
mod block;
mod block_hostile;
mod console;
mod entropy;
mod gather;
mod hostile;
mod in_flight;
mod init;
mod kinds;
mod net;
mod net_queues;
mod queue;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Wake, Waker},
};

use proptest::prelude::*;

use super::Features;

/// The features that change a ring, in every combination.
fn ring_features() -> impl Strategy<Value = Features> {
    (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(packed, indirect, event, order)| {
            let mut features = Features::VERSION_1;
            features.set(Features::RING_PACKED, packed);
            features.set(Features::INDIRECT_DESC, indirect);
            features.set(Features::EVENT_IDX, event);
            features.set(Features::IN_ORDER, order);
            features
        },
    )
}

/// A waker that counts.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

fn bell() -> (Arc<Bell>, Waker) {
    let bell = Arc::<Bell>::default();
    (bell.clone(), bell.into())
}

proptest! {
    /// What the fuzz target tries by evolution is tried here by chance: `script` says what is promised.
    #[test]
    fn any_script_of_a_device_is_survived(script in proptest::collection::vec(any::<u8>(), 0..600)) {
        super::script::run(&script);
    }
}
