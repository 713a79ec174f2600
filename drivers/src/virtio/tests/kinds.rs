//! Requests of all kinds, one behind the other in the same places of a ring.
#![forbid(unsafe_code)]

use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll},
    vec,
    vec::Vec,
};

use proptest::{collection::vec, prelude::*};

use super::{
    bell,
    block::{Rig, SECTORS, rig_of_segments},
    ring_features,
};
use crate::class::{BlockDevice, BlockRequest, SECTOR_BYTES};

/// What is asked, and what the buffer holds when it comes back.
fn request(
    rig: &Rig,
    content: &mut [u8],
    (kind, sector, count): (u8, u64, usize),
    fill: u8,
) -> (BlockRequest, Option<Vec<u8>>) {
    let mut buffer = rig.buffer(count);
    let bytes = sector as usize * SECTOR_BYTES..(sector as usize + count) * SECTOR_BYTES;
    match kind {
        0 => (BlockRequest::Read { sector, buffer }, Some(content[bytes].to_vec())),
        1 => {
            buffer.bytes_mut().fill(fill);
            content[bytes].fill(fill);
            (BlockRequest::Write { sector, buffer }, Some(vec![fill; count * SECTOR_BYTES]))
        }
        2 => {
            content[bytes].fill(0);
            (BlockRequest::Discard { sector, count: count as u32 }, None)
        }
        3 => {
            let mut name = vec![0; count * SECTOR_BYTES];
            name[..6].copy_from_slice(b"a disk");
            (BlockRequest::GetId { buffer }, Some(name))
        }
        _ => (BlockRequest::Flush, None),
    }
}

proptest! {
    /// What a request has left in its place does not become part of the next one there.
    #[test]
    fn each_request_is_its_own_whatever_was_there_before(
        features in ring_features(),
        size in 1..5u32,
        segments in 1..6u32,
        wishes in vec((0..5u8, 0..SECTORS - 3, 1..4usize), 1..60),
    ) {
        let mut rig = rig_of_segments(features, 4 * size, segments);
        let disk = rig.disk.clone();
        let disk: &dyn BlockDevice = &*disk;
        let mut flights = disk.in_flight(wishes.len());
        let mut content: Vec<u8> =
            (0..SECTORS as usize * SECTOR_BYTES).map(|at| (at / SECTOR_BYTES) as u8).collect();
        let mut expected = Vec::new();
        for (tag, wish) in (0..).zip(wishes) {
            let (request, bytes) = request(&rig, &mut content, wish, !tag as u8);
            flights.push(tag, request);
            expected.push(bytes);
        }
        while !flights.is_empty() {
            match pin!(flights.next()).poll(&mut Context::from_waker(&bell().1)) {
                Poll::Ready(answer) => {
                    let (tag, outcome) = answer.unwrap();
                    prop_assert!(outcome.result.is_ok(), "{:?}", outcome.result);
                    let found = outcome.buffer.map(|buffer| buffer.bytes().to_vec());
                    prop_assert_eq!(&found, &expected[tag as usize]);
                }
                Poll::Pending => prop_assert!(rig.serve() > 0),
            }
        }
    }
}
