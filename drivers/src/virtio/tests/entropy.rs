//! The entropy device (VirtIO 1.3 §5.4).
#![forbid(unsafe_code)]

use std::{task::Waker, vec::Vec};

use proptest::{collection::vec, prelude::*};

use super::{hostile, ring_features};
use crate::{
    class::{Exclusive, Submitted},
    error::Error,
    hal::Hal,
    virtio::{
        DeviceId, Features,
        entropy::Entropy,
        fake::{FakeDevice, FakeHal},
    },
};

fn rig(ring: Features) -> (FakeHal, FakeDevice, Entropy) {
    let hal = FakeHal::default();
    let device = FakeDevice::new(DeviceId::ENTROPY, ring, 8, Vec::new());
    let entropy = Entropy::probe(device.transport(), &hal).unwrap();
    (hal, device, entropy)
}

/// §5.4.6.1: what lies beyond the bytes that the device wrote is not random.
#[test]
fn only_what_was_written_counts() {
    let (hal, device, mut entropy) = rig(Features::empty());
    let hal_dyn: &dyn Hal = &hal;
    for (written, expected) in [(5, Ok(5)), (0, Err(Error::Failed("that it wrote nothing")))] {
        let buffer = hal_dyn.buffer(16).unwrap();
        let Submitted::Sent(token) = entropy.submit(buffer, Waker::noop()) else { panic!("no room") };
        let mut player = device.player(&hal);
        // The player starts anew each time: the ring is as it left it.
        let mut chain = player.take().unwrap();
        if written == 0 {
            player.finish(&chain, 5);
            chain = player.take().unwrap();
        }
        player.finish(&chain, written);
        entropy.interrupt();
        assert_eq!(entropy.poll(token, Waker::noop()).unwrap().result, expected);
    }
}

proptest! {
    #[test]
    fn a_hostile_device_costs_its_requests_and_nothing_else(
        ring in ring_features(),
        steps in vec((0..4u8, any::<u32>()), 0..100),
    ) {
        let (hal, device, mut entropy) = rig(ring);
        let mut player = device.player(&hal);
        let mut tokens = Vec::new();
        for (step, value) in steps {
            match step {
                0 => {
                    let hal: &dyn Hal = &hal;
                    if let Submitted::Sent(token) = entropy.submit(hal.buffer(32).unwrap(), Waker::noop()) {
                        tokens.push(token);
                    }
                }
                1 => hostile::scribble(&player, value),
                2 => player.put(value >> 16 & 15, value & 63, 1, 1),
                _ => entropy.interrupt(),
            }
        }
        entropy.interrupt();
        for token in tokens {
            match entropy.poll(token, Waker::noop()) {
                Ok(outcome) => prop_assert!(outcome.result.is_err() || outcome.result.unwrap() <= 32),
                Err(token) => entropy.forget(token),
            }
        }
        drop(entropy);
        prop_assert_eq!(hal.pieces(), 0);
    }
}
