//! What a block device that does not keep to the standard costs: its requests, and nothing else.
#![forbid(unsafe_code)]

use std::{sync::atomic::Ordering::SeqCst, vec::Vec};

use proptest::{collection::vec, prelude::*};

use super::{
    bell,
    block::{Disk, Rig, SECTORS, rig},
    ring_features,
};
use crate::{
    class::{BlockDevice, BlockRequest, Requests, Submitted},
    error::Error,
    virtio::{
        DeviceId, Fault, Features, Status,
        fake::{FakeDevice, FakeHal},
        transport::Interrupt,
    },
};

#[test]
fn a_device_that_lies_is_reset_and_all_its_requests_fail() {
    for features in [Features::empty(), Features::RING_PACKED] {
        let mut rig = rig(features, 8);
        let (bell, waker) = bell();
        let sent = |request| match rig.disk.submit(request, &waker) {
            Submitted::Sent(token) => token,
            other => panic!("{other:?}"),
        };
        let tokens =
            [sent(BlockRequest::Flush), sent(BlockRequest::Read { sector: 0, buffer: rig.buffer(1) })];
        rig.player.put(7, 0, 1, 1);
        rig.interrupt();
        assert_eq!(bell.0.load(SeqCst), 2);
        assert_eq!(rig.device.registers().status, Status::empty());
        let fault = Error::Fault(Fault::UsedId { id: 7 });
        for token in tokens {
            assert_eq!(rig.disk.poll(token, &waker).unwrap().result, Err(fault));
        }
        match rig.disk.submit(BlockRequest::Flush, &waker) {
            Submitted::Refused(outcome) => assert_eq!(outcome.result, Err(fault)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_buffers_of_a_device_that_cannot_be_reset_are_never_freed() {
    let mut rig = rig(Features::empty(), 8);
    let token = rig.submit(BlockRequest::Read { sector: 0, buffer: rig.buffer(1) });
    rig.device.registers().is_stuck = true;
    rig.player.put(7, 0, 1, 1);
    rig.interrupt();
    let outcome = rig.disk.poll(token, &bell().1).unwrap();
    assert!(outcome.result.is_err() && outcome.buffer.is_none());
    let Rig { hal, disk, .. } = rig;
    drop(disk);
    assert_eq!(hal.pieces(), 3, "ring, headers, buffer");
}

#[test]
fn a_device_that_asks_for_a_reset_gets_it() {
    let rig = rig(Features::empty(), 8);
    let token = rig.submit(BlockRequest::Flush);
    rig.device.registers().interrupt = Interrupt::CONFIG;
    rig.device.registers().status |= Status::DEVICE_NEEDS_RESET;
    rig.interrupt();
    assert_eq!(rig.disk.poll(token, &bell().1).unwrap().result, Err(Error::Fault(Fault::NeedsReset)));
}

proptest! {
    /// Any configuration, of any length: refused or taken, never believed to be what no disk is.
    #[test]
    fn any_configuration_is_survived(config in vec(any::<u8>(), 0..70), features: u64) {
        let hal = FakeHal::default();
        let features = Features::from_bits_retain(features);
        let device = FakeDevice::new(DeviceId::BLOCK, features, 8, config);
        if let Ok(block) = Disk::probe(device.transport(), &hal, 1) {
            let info = block.info();
            prop_assert!(info.block_bytes.is_power_of_two() && info.max_bytes >= 512);
        }
        prop_assert_eq!(hal.pieces(), 0);
    }

    /// A device that scribbles over the ring, answers what it likes and interrupts when it likes: every request is
    /// answered at most once, all are when the device was given up, and no memory is left in the end.
    #[test]
    fn a_hostile_device_costs_its_requests_and_nothing_else(
        features in ring_features(),
        steps in vec((0..6u8, any::<u16>(), any::<u32>()), 0..120),
    ) {
        let mut rig = rig(features, 8);
        let (bell, waker) = bell();
        let at = rig.player.at;
        let ring_bytes = if features.contains(Features::RING_PACKED) { 8 * 16 + 8 } else { 8 * 16 + 22 + 70 };
        let mut tokens = Vec::new();
        for (step, which, value) in steps {
            match step {
                0 | 1 => {
                    let buffer = rig.buffer(1);
                    let request = BlockRequest::Read { sector: u64::from(value) % SECTORS, buffer };
                    if let Submitted::Sent(token) = rig.disk.submit(request, &waker) {
                        tokens.push(token);
                    }
                }
                2 => rig.hal.set_u16(at.descriptors + u64::from(which) % (ring_bytes / 2) * 2, value as u16),
                3 => rig.player.put(u32::from(which % 10), value % 700, 1, 1),
                4 => rig.interrupt(),
                _ if !tokens.is_empty() => {
                    let token = tokens.remove(usize::from(which) % tokens.len());
                    if value % 3 == 0 {
                        rig.disk.forget(token);
                    } else if let Err(token) = rig.disk.poll(token, &waker) {
                        tokens.push(token);
                    }
                }
                _ => {}
            }
        }
        rig.interrupt();
        if rig.disk.fault().is_some() {
            for token in tokens.drain(..) {
                prop_assert!(rig.disk.poll(token, &waker).is_ok(), "a request of a dead device is answered");
            }
        }
        drop((tokens, bell));
        let Rig { hal, disk, .. } = rig;
        drop(disk);
        prop_assert_eq!(hal.pieces(), 0);
    }
}
