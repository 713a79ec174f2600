//! The bus and a device's life, with a backend that does its part, and with one that does not.
#![forbid(unsafe_code)]

use super::*;
use crate::xen::fake::{FakeStore, run, run_with};

const FRONT: &str = "device/vbd/51712";
const BACK: &str = "/local/domain/0/backend/vbd/7/51712";

fn id() -> Id {
    Id { kind: "vbd".into(), number: "51712".into() }
}

fn plug(server: &mut FakeStore) {
    for (key, value) in [("backend", BACK), ("backend-id", "0"), ("state", "1")] {
        server.set(&format!("{FRONT}/{key}"), value);
    }
    server.set(&format!("{BACK}/state"), "1");
}

fn backend(server: &mut FakeStore, state: State) {
    server.set(&format!("{BACK}/state"), &state.to_string());
}

fn front(server: &FakeStore) -> State {
    State::parse(server.get(&format!("{FRONT}/state")).unwrap_or(""))
}

/// A device that remembers what was done with it.
#[derive(Default)]
struct Disk {
    log: Vec<&'static str>,
    fails: bool,
    faulty: bool,
}

impl Frontend for Disk {
    async fn offer(&mut self, device: &Device) -> Result<Offer, String> {
        assert_eq!(device.backend_domain(), DomainId(0));
        self.log.push("offer");
        let values =
            [("ring-ref", "8"), ("event-channel", "9")].map(|(key, value)| (key.into(), value.into()));
        Ok(Offer { values: values.to_vec(), state: State::Initialised })
    }

    async fn connect(&mut self, device: &Device) -> Result<(), String> {
        self.log.push("connect");
        let sectors = device.backend_value("sectors").await.unwrap();
        if self.fails {
            return Err(format!("{} sectors are none", sectors.unwrap_or_default()));
        }
        Ok(())
    }

    fn poll_fault(&mut self, _cx: &mut Context<'_>) -> Poll<String> {
        if self.faulty { Poll::Ready("it lies".into()) } else { Poll::Pending }
    }

    fn close(&mut self) {
        self.log.push("close");
    }
}

fn life(disk: &mut Disk, mut backend_does: impl FnMut(u32, &mut FakeStore)) -> FakeStore {
    let (mut server, store) = FakeStore::new();
    plug(&mut server);
    run_with(
        &mut server,
        &store,
        async {
            let mut device = Device::open(&store, id()).await.unwrap();
            serve(&mut device, disk).await.unwrap();
        },
        |turn, server| backend_does(turn, server),
    );
    server
}

#[test]
fn a_device_is_connected_and_closed_again() {
    let mut disk = Disk::default();
    let server = life(&mut disk, |turn, server| match turn {
        20 => backend(server, State::InitWait),
        60 => {
            assert_eq!(front(server), State::Initialised);
            assert_eq!(server.get("device/vbd/51712/ring-ref"), Some("8"));
            backend(server, State::Connected);
        }
        100 => {
            assert_eq!(front(server), State::Connected);
            backend(server, State::Closing);
        }
        _ => {}
    });
    assert_eq!(disk.log, ["offer", "connect", "close"]);
    assert_eq!(front(&server), State::Closed);
}

#[test]
fn a_device_that_fails_says_why_in_the_store() {
    let mut disk = Disk { fails: true, ..Disk::default() };
    let server = life(&mut disk, |turn, server| match turn {
        20 => backend(server, State::InitWait),
        60 => backend(server, State::Connected),
        _ => {}
    });
    assert_eq!(disk.log, ["offer", "connect", "close"]);
    assert_eq!(server.get("error/device/vbd/51712/error"), Some("-5  sectors are none"));
    assert_eq!(front(&server), State::Closed);
}

#[test]
fn a_device_that_fails_while_it_is_in_use_says_why_in_the_store() {
    let mut disk = Disk { faulty: true, ..Disk::default() };
    let server = life(&mut disk, |_, _| ());
    assert_eq!(disk.log, ["close"]);
    assert_eq!(server.get("error/device/vbd/51712/error"), Some("-5 it lies"));
    assert_eq!(front(&server), State::Closed);
}

#[test]
fn a_backend_that_jumps_about_leads_nowhere() {
    let mut disk = Disk::default();
    life(&mut disk, |turn, server| {
        // No state at all is the end, also for a device that has not begun.
        if turn == 10 {
            server.set(&format!("{BACK}/state"), "four");
        }
    });
    assert_eq!(disk.log, ["close"]);
}

#[test]
fn a_device_whose_nodes_vanish_ends() {
    let mut disk = Disk::default();
    let server = life(&mut disk, |turn, server| match turn {
        20 => backend(server, State::InitWait),
        60 => {
            server.unset(FRONT);
            server.unset(BACK);
        }
        _ => {}
    });
    assert_eq!(disk.log, ["offer", "close"]);
    assert_eq!(front(&server), State::Unknown);
}

#[test]
fn a_device_without_a_sensible_backend_is_refused() {
    for (key, value) in
        [("backend-id", "many"), ("backend-id", "65536"), ("backend", ""), ("backend-id", "-1")]
    {
        let (mut server, store) = FakeStore::new();
        plug(&mut server);
        server.set(&format!("{FRONT}/{key}"), value);
        assert!(run(&mut server, &store, Device::open(&store, id())).is_err() || key == "backend");
    }
    let (mut server, store) = FakeStore::new();
    assert!(run(&mut server, &store, Device::open(&store, id())).is_err());
}

#[test]
fn what_an_earlier_life_left_is_reset() {
    let (mut server, store) = FakeStore::new();
    plug(&mut server);
    server.set(&format!("{FRONT}/state"), "6");
    let _device = run(&mut server, &store, Device::open(&store, id())).unwrap();
    assert_eq!(front(&server), State::Initialising);
}

#[test]
fn devices_are_told_when_they_come_and_go() {
    let (mut server, store) = FakeStore::new();
    server.set("device/vif/0/backend", "/local/domain/0/backend/vif/7/0");
    run_with(
        &mut server,
        &store,
        async {
            let mut bus = Bus::new(&store).await.unwrap();
            let card = Id { kind: "vif".into(), number: "0".into() };
            assert_eq!(bus.next().await.unwrap(), Change::Added(card));
            assert_eq!(bus.next().await.unwrap(), Change::Added(id()));
            assert_eq!(bus.next().await.unwrap(), Change::Removed(id()));
        },
        |turn, server| match turn {
            100 => plug(server),
            300 => server.unset(FRONT),
            _ => {}
        },
    );
}

/// One that was found when its node was no text hid all that came after.
#[test]
fn a_device_that_makes_no_sense_does_not_hide_others() {
    let (mut server, store) = FakeStore::new();
    server.nonsense = Some("device/vbd/1/backend".into());
    server.set("device/vbd/1/backend", "");
    plug(&mut server);
    run(&mut server, &store, async {
        let mut bus = Bus::new(&store).await.unwrap();
        assert_eq!(bus.pop(), Some(Change::Added(Id { kind: "vbd".into(), number: "1".into() })));
        assert_eq!(bus.pop(), Some(Change::Added(id())));
        let odd = Id { kind: "vbd".into(), number: "1".into() };
        assert_eq!(Device::open(&store, odd).await.err(), Some(Error::Nonsense));
    });
}

#[test]
fn a_domain_without_devices_waits_for_some() {
    let (mut server, store) = FakeStore::new();
    let change = run_with(
        &mut server,
        &store,
        async { Bus::new(&store).await.unwrap().next().await.unwrap() },
        |turn, server| {
            if turn == 50 {
                plug(server);
            }
        },
    );
    assert_eq!(change, Change::Added(id()));
}
