//! A disk and its backend: one that does its part, and one that writes anything at any time.
#![forbid(unsafe_code)]

use super::*;
use crate::{
    class::Requests,
    hal::Hal,
    virtio::fake::{FakeHal, StdLock},
    xen::{
        fake::{FakeHypervisor, FakeStore, run_with},
        xenbus::{Device, End, Id, State, serve},
    },
};
use core::{
    future::Future,
    pin::pin,
    sync::atomic::Ordering,
    task::{Context, Poll},
};
use proptest::{collection::vec, prelude::*};
use std::{collections::BTreeSet, sync::Mutex};

const SECTORS: usize = 64;

type Disk = Arc<Shared<StdLock<Block>>>;

/// A disk that is connected to a link of the test's own.
struct Rig {
    xen: Arc<FakeHypervisor>,
    hal: FakeHal,
    disk: Disk,
    ring: &'static crate::xen::SharedPage,
    content: Vec<u8>,
    /// Requests that the backend has taken.
    taken: u32,
}

impl Rig {
    fn new() -> Self {
        let mut block = Block::new();
        block.info =
            BlockInfo { sectors: SECTORS as u64, read_only: false, needs_flush: true, ..frontend::NOTHING };
        block.name = "xvda".into();
        let mut rig = Self {
            xen: Arc::new(FakeHypervisor::default()),
            hal: FakeHal::default(),
            disk: Arc::new(Shared(StdLock(Mutex::new(block)))),
            ring: Box::leak(Box::new(crate::xen::SharedPage::new())),
            content: (0..SECTORS * SECTOR_BYTES).map(|at| (at / 7) as u8).collect(),
            taken: 0,
        };
        rig.connect();
        rig
    }

    /// Gives the disk a backend.
    fn connect(&mut self) {
        let hypervisor: Arc<dyn Hypervisor> = self.xen.clone();
        let domain = DomainId(0);
        let page = SharedPages::new(&hypervisor, domain, Access::ReadWrite).unwrap();
        self.ring = self.xen.page(page.grant());
        self.taken = 0;
        let channel = Channel::new(&hypervisor, domain, Box::new(|| ())).unwrap();
        let ring = FrontRing::new(&page, SLOT_BYTES);
        self.disk.0.with(|block| {
            block.link = Some(Link {
                hypervisor,
                domain,
                handle: 51712,
                page,
                ring,
                channel,
                pool: Vec::new(),
                pages: 0,
            });
            block.begin();
        });
    }

    fn buffer(&self, len: usize) -> DmaBuffer {
        let hal: &dyn Hal = &self.hal;
        hal.buffer(len).unwrap()
    }

    /// Takes one request, carries it out and answers it.
    fn serve_one(&mut self) -> bool {
        if self.ring.word(0).load(Ordering::Acquire) == self.taken {
            return false;
        }
        let slot = 64 + (self.taken % 32) as usize * SLOT_BYTES;
        let mut request = [0; SLOT_BYTES];
        self.ring.read(slot, &mut request);
        let mut at = u64::from_le_bytes(request[16..24].try_into().unwrap()) as usize * SECTOR_BYTES;
        for segment in request[24..].chunks(8).take(request[1].into()) {
            let grant = GrantRef(u32::from_le_bytes(segment[..4].try_into().unwrap()));
            let len = (usize::from(segment[5]) + 1) * SECTOR_BYTES;
            let (page, content) = (self.xen.page(grant), &mut self.content[at..at + len]);
            match request[0] {
                0 => page.write(0, content),
                1 => page.read(0, content),
                other => panic!("operation {other} with data"),
            }
            at += len;
        }
        let mut response = [0; RESPONSE_BYTES];
        response[..8].copy_from_slice(&request[8..16]);
        self.ring.write(slot, &response);
        self.taken += 1;
        self.ring.word(8).store(self.taken, Ordering::Release);
        true
    }

    fn serve(&mut self) {
        while self.serve_one() {}
        self.disk.0.with(Block::interrupt);
    }

    fn send(&self, request: BlockRequest) -> Token {
        match self.disk.submit(request, Waker::noop()) {
            Submitted::Sent(token) => token,
            other => panic!("{other:?}"),
        }
    }

    fn refused(&self, request: BlockRequest) -> Outcome {
        match self.disk.submit(request, Waker::noop()) {
            Submitted::Refused(outcome) => outcome,
            other => panic!("{other:?}"),
        }
    }
}

fn done(disk: &Disk, token: Token) -> Outcome {
    disk.poll(token, Waker::noop()).unwrap_or_else(|token| panic!("{token:?} has no answer"))
}

#[test]
fn what_is_written_is_on_the_disk_and_comes_back() {
    let mut rig = Rig::new();
    let mut buffer = rig.buffer(5 * SECTOR_BYTES + 2 * PAGE_BYTES);
    buffer.bytes_mut().iter_mut().enumerate().for_each(|(at, byte)| *byte = (at % 251) as u8);
    let wanted = buffer.bytes().to_vec();
    let token = rig.send(BlockRequest::Write { sector: 3, buffer });
    let flush = rig.send(BlockRequest::Flush);
    rig.serve();
    let outcome = done(&rig.disk, token);
    assert_eq!(outcome.result, Ok(0));
    assert_eq!(done(&rig.disk, flush).result, Ok(0));
    assert_eq!(rig.content[3 * SECTOR_BYTES..][..wanted.len()], wanted);
    let mut buffer = outcome.buffer.unwrap();
    buffer.bytes_mut().fill(0);
    let token = rig.send(BlockRequest::Read { sector: 3, buffer });
    rig.serve();
    let outcome = done(&rig.disk, token);
    assert_eq!((outcome.result, outcome.buffer.unwrap().bytes()), (Ok(wanted.len()), &wanted[..]));
}

#[test]
fn what_cannot_be_never_reaches_the_backend() {
    let rig = Rig::new();
    let end = SECTORS as u64;
    for (sector, len) in [(0, 0), (0, 511), (end, 512), (end - 1, 1024), (u64::MAX, 512), (0, 12 * 4096)] {
        let mut buffer = rig.buffer(len.max(1));
        buffer.set_len(len);
        let outcome = rig.refused(BlockRequest::Read { sector, buffer });
        assert!(matches!(outcome.result, Err(Error::Request(_))), "{sector} {len}");
        assert!(outcome.buffer.is_some());
    }
    assert!(rig.refused(BlockRequest::Discard { sector: 0, count: 1 }).result.is_err());
    rig.disk.0.with(|block| block.info.read_only = true);
    let buffer = rig.buffer(512);
    assert!(rig.refused(BlockRequest::Write { sector: 0, buffer }).result.is_err());
    assert_eq!(rig.ring.word(0).load(Ordering::Relaxed), 0);
}

#[test]
fn the_name_is_the_toolstacks() {
    let rig = Rig::new();
    let outcome = rig.refused(BlockRequest::GetId { buffer: rig.buffer(512) });
    assert_eq!(outcome.result, Ok(20));
    assert_eq!(outcome.buffer.unwrap().bytes(), b"xvda\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    assert!(rig.refused(BlockRequest::GetId { buffer: rig.buffer(19) }).result.is_err());
}

#[test]
fn a_full_ring_waits_and_goes_on() {
    let mut rig = Rig::new();
    let read = || rig.disk.submit(BlockRequest::Read { sector: 0, buffer: rig.buffer(512) }, Waker::noop());
    let tokens: Vec<Token> = (0..32)
        .map(|_| match read() {
            Submitted::Sent(token) => token,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(matches!(read(), Submitted::Full(_)));
    rig.serve();
    tokens.into_iter().for_each(|token| assert_eq!(done(&rig.disk, token).result, Ok(512)));
    let forgotten = rig.send(BlockRequest::Read { sector: 1, buffer: rig.buffer(512) });
    rig.disk.forget(forgotten);
    rig.serve();
    rig.disk.0.with(|block| assert_eq!(block.free.len(), block.entries.len()));
}

#[test]
fn many_requests_of_one_task_are_sent_as_there_is_room() {
    let mut rig = Rig::new();
    let disk = rig.disk.clone();
    let disk: &dyn BlockDevice = &*disk;
    let mut in_flight = disk.in_flight(40);
    for tag in 0..40 {
        in_flight.push(tag, BlockRequest::Read { sector: tag, buffer: rig.buffer(512) });
    }
    let mut cx = Context::from_waker(Waker::noop());
    let mut tags = BTreeSet::new();
    while tags.len() < 40 {
        let Poll::Ready(answer) = pin!(in_flight.next()).poll(&mut cx) else {
            rig.serve();
            continue;
        };
        let (tag, outcome) = answer.unwrap();
        assert_eq!(outcome.buffer.unwrap().bytes(), &rig.content[tag as usize * 512..][..512]);
        assert!(tags.insert(tag));
    }
    assert!(in_flight.is_empty());
}

#[test]
fn when_the_backend_goes_everything_fails_and_goes_back() {
    let rig = Rig::new();
    let token = rig.send(BlockRequest::Read { sector: 0, buffer: rig.buffer(8192) });
    assert!(rig.xen.open_grants() > 1 && rig.xen.open_channels() == 1);
    rig.disk.0.with(Block::end);
    assert_eq!((rig.xen.open_grants(), rig.xen.open_channels()), (0, 0));
    let outcome = done(&rig.disk, token);
    assert_eq!(outcome.result, Err(GONE));
    assert_eq!(
        rig.refused(BlockRequest::Read { sector: 0, buffer: outcome.buffer.unwrap() }).result,
        Err(GONE)
    );
}

/// As when the domain is restored: the next backend is asked what the last one had not answered.
#[test]
fn with_another_backend_requests_go_on() {
    let mut rig = Rig::new();
    let read = rig.send(BlockRequest::Read { sector: 8, buffer: rig.buffer(512) });
    rig.serve();
    let mut buffer = rig.buffer(512);
    buffer.bytes_mut().fill(0x5a);
    let write = rig.send(BlockRequest::Write { sector: 9, buffer });
    let forgotten = rig.send(BlockRequest::Read { sector: 1, buffer: rig.buffer(512) });
    rig.disk.forget(forgotten);
    rig.disk.0.with(Block::close);
    assert_eq!((rig.xen.open_grants(), rig.xen.open_channels()), (0, 0));
    let buffer = rig.buffer(512);
    assert!(matches!(
        rig.disk.submit(BlockRequest::Read { sector: 0, buffer }, Waker::noop()),
        Submitted::Full(_)
    ));
    rig.connect();
    rig.serve();
    let outcome = done(&rig.disk, read);
    assert_eq!(outcome.result, Ok(512));
    assert_eq!(outcome.buffer.unwrap().bytes(), &rig.content[8 * 512..9 * 512]);
    assert_eq!(done(&rig.disk, write).result, Ok(0));
    assert_eq!(rig.content[9 * 512..10 * 512], [0x5a; 512]);
    rig.disk.0.with(|block| assert_eq!(block.free.len(), block.entries.len()));
}

/// The whole way by xenstore.
#[test]
fn a_disk_is_negotiated_and_a_lying_backend_is_given_up() {
    const FRONT: &str = "device/vbd/51712";
    const BACK: &str = "/local/domain/0/backend/vbd/7/51712";
    let (mut server, store) = FakeStore::new();
    for (key, value) in [("backend", BACK), ("backend-id", "0"), ("state", "1")] {
        server.set(&std::format!("{FRONT}/{key}"), value);
    }
    for (key, value) in
        [("state", "2"), ("sectors", "64"), ("sector-size", "512"), ("info", "4"), ("dev", "xvdb")]
    {
        server.set(&std::format!("{BACK}/{key}"), value);
    }
    let xen = Arc::new(FakeHypervisor::default());
    let mut front = BlockFront::new(xen.clone(), |block| StdLock(Mutex::new(block)));
    let disk = front.disk().clone();
    let id = Id { kind: "vbd".into(), number: "51712".into() };
    let end = run_with(
        &mut server,
        &store,
        async { serve(&mut Device::open(&store, id).await.unwrap(), &mut front).await },
        |turn, server| match turn {
            100 => {
                assert_eq!(server.get("device/vbd/51712/protocol"), Some("x86_64-abi"));
                server.set(&std::format!("{BACK}/state"), "4");
            }
            200 => {
                assert_eq!(server.get("device/vbd/51712/state"), Some("4"));
                assert_eq!(disk.info().sectors, 64);
                assert!(disk.info().read_only);
                let grant = server.get("device/vbd/51712/ring-ref").unwrap().parse().unwrap();
                xen.page(GrantRef(grant)).word(8).store(77, Ordering::Relaxed);
                let port = server.get("device/vbd/51712/event-channel").unwrap().parse().unwrap();
                xen.raise(crate::xen::Port { number: port, life: 0 });
            }
            _ => {}
        },
    );
    assert_eq!(end, Ok(End::Closed));
    let error = server.get("error/device/vbd/51712/error").unwrap();
    assert!(error.contains("index is ahead"), "{error}");
    assert_eq!(State::parse(server.get("device/vbd/51712/state").unwrap()), State::Closed);
    assert_eq!((xen.open_grants(), xen.open_channels()), (0, 0));
}

proptest! {
    /// Any words in the ring, at any time: no panic; each request has one answer at most, and has one in the end.
    #[test]
    fn a_backend_that_writes_anything_is_survived(
        steps in vec((0..6_u8, 0..1024_usize, any::<u32>()), 1..60),
    ) {
        let rig = Rig::new();
        let mut tokens = Vec::new();
        for (step, place, value) in steps {
            match step {
                0 | 1 => {
                    let buffer = rig.buffer(512 << (value % 4));
                    let sector = u64::from(value % 60);
                    let request = if step == 0 {
                        BlockRequest::Read { sector, buffer }
                    } else {
                        BlockRequest::Write { sector, buffer }
                    };
                    if let Submitted::Sent(token) = rig.disk.submit(request, Waker::noop()) {
                        tokens.push(token);
                    }
                }
                2 => rig.ring.word(place * 4).store(value, Ordering::Relaxed),
                // An answer that may be meant for a request.
                3 => {
                    rig.ring.word(64 + place % 4 * SLOT_BYTES).store(value % 40, Ordering::Relaxed);
                    rig.ring.word(64 + place % 4 * SLOT_BYTES + 4).store(0, Ordering::Relaxed);
                    let told = rig.ring.word(8).load(Ordering::Relaxed);
                    rig.ring.word(8).store(told.wrapping_add(1), Ordering::Relaxed);
                }
                4 => rig.disk.0.with(Block::interrupt),
                _ => if let Some(token) = tokens.pop() {
                    if place % 3 == 0 {
                        rig.disk.forget(token);
                    } else if let Err(token) = rig.disk.poll(token, Waker::noop()) {
                        tokens.push(token);
                    }
                },
            }
        }
        rig.disk.0.with(Block::end);
        for token in tokens {
            prop_assert!(rig.disk.poll(token, Waker::noop()).is_ok());
        }
        rig.disk.0.with(|block| assert_eq!(block.free.len(), block.entries.len()));
        prop_assert_eq!((rig.xen.open_grants(), rig.xen.open_channels()), (0, 0));
    }
}
