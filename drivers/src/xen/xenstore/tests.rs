//! The client against a server that answers as it should, and against one that does not.
#![forbid(unsafe_code)]

use super::{wire::HEADER_BYTES, *};
use crate::xen::fake::{FakeStore, run, run_with};
use core::{
    pin::pin,
    sync::atomic::{AtomicU32, Ordering},
    task::Waker,
};
use proptest::prelude::*;
use std::{string::ToString, task::Wake};

const NONE: Transaction = Transaction::NONE;

#[test]
fn a_tree_is_read_and_written() {
    let (mut server, store) = FakeStore::new();
    server.set("device/vbd/51712/state", "1");
    run(&mut server, &store, async {
        assert_eq!(store.read(NONE, "device/vbd/51712/state").await.unwrap(), "1");
        assert_eq!(store.directory(NONE, "device/vbd").await.unwrap(), ["51712"]);
        store.write(NONE, "data/greeting", "hello").await.unwrap();
        assert_eq!(store.find(NONE, "data/greeting").await.unwrap().as_deref(), Some("hello"));
        store.remove(NONE, "data/greeting").await.unwrap();
        assert_eq!(store.find(NONE, "data/greeting").await.unwrap(), None);
        store.write(NONE, "data/empty", "").await.unwrap();
        assert_eq!(store.directory(NONE, "data/empty").await.unwrap(), [""; 0]);
        let error = store.directory(NONE, "nowhere").await.unwrap_err();
        assert_eq!(error, Error::Refused(Refusal::ENOENT));
    });
    assert_eq!(store.strays(), 0);
}

#[test]
fn requests_are_answered_in_any_order_and_reach_who_asked() {
    let (mut server, store) = FakeStore::new();
    let (a, b) = (store.ask(Kind::Read, NONE, &[b"a\0"], text), store.ask(Kind::Read, NONE, &[b"b\0"], text));
    server.is_silent = true;
    server.serve();
    let numbers: Vec<u32> = server.seen.iter().map(|(header, _)| header.request).collect();
    server.send(Kind::Read as u32, numbers[1], 0, b"value of b");
    server.send(Kind::Read as u32, numbers[0], 0, b"value of a");
    assert_eq!(run(&mut server, &store, a).unwrap(), "value of a");
    assert_eq!(run(&mut server, &store, b).unwrap(), "value of b");
}

struct Count(AtomicU32);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn who_waits_is_woken_when_its_answer_comes() {
    let (mut server, store) = FakeStore::new();
    server.set("a", "1");
    let count = Arc::new(Count(AtomicU32::new(0)));
    let waker = Waker::from(count.clone());
    let mut answer = pin!(store.read(NONE, "a"));
    assert!(answer.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    store.process();
    assert_eq!(count.0.load(Ordering::Relaxed), 0);
    server.serve();
    store.process();
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
    assert!(answer.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
}

/// Requests and answers are longer than the rings: they go through in pieces.
#[test]
fn messages_longer_than_the_ring_get_through() {
    let (mut server, store) = FakeStore::new();
    let long = "x".repeat(4000);
    run(&mut server, &store, async {
        store.write(NONE, "long", &long).await.unwrap();
        assert_eq!(store.read(NONE, "long").await.unwrap(), long);
        let too_long = "x".repeat(4096);
        assert_eq!(store.write(NONE, "long", &too_long).await, Err(Error::TooLong(4101)));
    });
}

#[test]
fn a_bad_path_never_reaches_the_server() {
    let (mut server, store) = FakeStore::new();
    run(&mut server, &store, async {
        for path in ["", "a\0b"] {
            assert_eq!(store.read(NONE, path).await, Err(Error::BadPath(path.to_string())));
        }
    });
    assert!(server.seen.is_empty());
}

#[test]
fn a_transaction_is_tried_again_until_nobody_interferes() {
    let (mut server, store) = FakeStore::new();
    server.set("counter", "6");
    server.conflicts = 3;
    let mut tries = 0;
    let increment = store.transaction(|transaction| {
        tries += 1;
        let store = &store;
        async move {
            let value: u32 = store.read(transaction, "counter").await?.parse().unwrap();
            store.write(transaction, "counter", &(value + 1).to_string()).await?;
            Ok(value + 1)
        }
    });
    assert_eq!(run(&mut server, &store, increment), Ok(7));
    assert_eq!((tries, server.get("counter")), (4, Some("7")));
}

#[test]
fn a_transaction_that_always_meets_a_conflict_ends_and_changes_nothing() {
    let (mut server, store) = FakeStore::new();
    server.conflicts = u32::MAX;
    let write = store.transaction(|transaction| {
        let store = &store;
        async move { store.write(transaction, "a", "1").await }
    });
    assert_eq!(run(&mut server, &store, write), Err(Error::Conflict(32)));
    assert_eq!(server.get("a"), None);
}

#[test]
fn a_transaction_whose_body_fails_is_given_up() {
    let (mut server, store) = FakeStore::new();
    let read = store.transaction(|transaction| {
        let store = &store;
        async move {
            store.write(transaction, "a", "1").await?;
            store.read(transaction, "nowhere").await
        }
    });
    assert_eq!(run(&mut server, &store, read), Err(Error::Refused(Refusal::ENOENT)));
    server.serve();
    let (header, payload) = server.seen.last().unwrap();
    assert_eq!((header.kind, &payload[..]), (Kind::TransactionEnd as u32, &b"F\0"[..]));
    assert_eq!(server.get("a"), None);
}

#[test]
fn a_watch_tells_of_changes_until_it_is_dropped() {
    let (mut server, store) = FakeStore::new();
    let path = |path: &str| Ok(Changed::Path(path.to_string()));
    run_with(
        &mut server,
        &store,
        async {
            let mut watch = store.watch("device").await.unwrap();
            assert_eq!(watch.next().await, path("device"));
            assert_eq!(watch.next().await, path("device/vbd/1"));
        },
        |turn, server| {
            if turn == 5 {
                server.set("elsewhere", "1");
                server.set("device/vbd/1", "1");
            }
        },
    );
    server.serve();
    assert_eq!(server.watches(), 0);
}

#[test]
fn a_watch_that_nobody_reads_keeps_a_bounded_number_of_changes() {
    let (mut server, store) = FakeStore::new();
    let mut watch = run(&mut server, &store, store.watch("a")).unwrap();
    for number in 0..1000 {
        server.set(&std::format!("a/{number}"), "");
        server.set("a/0", "");
        server.serve();
        store.process();
    }
    run(&mut server, &store, async {
        for _ in 0..MAX_CHANGES {
            assert!(matches!(watch.next().await, Ok(Changed::Path(_))));
        }
        assert_eq!(watch.next().await, Ok(Changed::Missed));
    });
    server.set("a/new", "");
    assert_eq!(run(&mut server, &store, watch.next()), Ok(Changed::Path("a/new".to_string())));
}

#[test]
fn answers_that_nobody_waits_for_are_thrown_away() {
    let (mut server, store) = FakeStore::new();
    server.is_silent = true;
    for _ in 0..MAX_PENDING {
        drop(store.ask(Kind::Read, NONE, &[b"a\0"], text));
    }
    server.serve();
    // All numbers are in use, as the server owes an answer to each.
    assert_eq!(run(&mut server, &store, store.read(NONE, "a")), Err(Error::TooMany));
    for (header, _) in core::mem::take(&mut server.seen) {
        server.send(Kind::Error as u32, header.request, 0, b"ENOENT\0");
    }
    server.is_silent = false;
    for _ in 0..20 {
        server.serve();
        store.process();
    }
    assert_eq!(run(&mut server, &store, store.find(NONE, "a")), Ok(None));
    assert_eq!(store.strays(), 0);
}

#[test]
fn an_answer_of_another_kind_is_an_error_of_that_request_alone() {
    let (mut server, store) = FakeStore::new();
    server.set("a", "1");
    let mut answer = Some(store.ask(Kind::Read, NONE, &[b"a\0"], text));
    server.is_silent = true;
    server.serve();
    let request = server.seen[0].0.request;
    server.send(Kind::Directory as u32, request, 0, b"a\0");
    // Nobody asked for these.
    server.send(Kind::Read as u32, request, 0, b"again");
    server.send(Kind::Read as u32, 77_777, 0, b"");
    server.send(99, 0, 0, b"what");
    server.send(Kind::WatchEvent as u32, 0, 0, b"a\0not a number\0");
    server.send(Kind::WatchEvent as u32, 0, 0, b"a\x001234\0");
    server.send(Kind::WatchEvent as u32, 0, 0, b"");
    server.is_silent = false;
    let error = Err(Error::WrongKind { asked: Kind::Read as u32, answered: Kind::Directory as u32 });
    assert_eq!(run(&mut server, &store, answer.take().unwrap()), error);
    assert_eq!(run(&mut server, &store, store.read(NONE, "a")).unwrap(), "1");
    assert_eq!(store.strays(), 6);
}

#[test]
fn a_payload_longer_than_any_closes_the_connection() {
    let (mut server, store) = FakeStore::new();
    let mut watch = run(&mut server, &store, store.watch("a")).unwrap();
    run(&mut server, &store, watch.next()).unwrap();
    let header = wire::Header { kind: Kind::Read as u32, request: 1, transaction: 0, len_bytes: 4097 };
    server.is_silent = true;
    server.send_bytes(&header.emit());
    let error = Error::Overlong(4097);
    assert_eq!(run(&mut server, &store, store.read(NONE, "a")), Err(error.clone()));
    assert_eq!(run(&mut server, &store, watch.next()), Err(error.clone()));
    assert_eq!(run(&mut server, &store, store.write(NONE, "a", "")), Err(error));
}

#[test]
fn indices_that_cannot_be_true_close_the_connection() {
    let (server, store) = FakeStore::new();
    let mut answer = pin!(store.read(NONE, "a"));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(answer.as_mut().poll(&mut cx).is_pending());
    server.page().word(RESPONSES.producer).store(0x8000_0000, Ordering::Relaxed);
    store.process();
    let Poll::Ready(Err(Error::Ring(bad))) = answer.as_mut().poll(&mut cx) else { panic!("not noticed") };
    assert_eq!(bad.producer, 0x8000_0000);
}

#[test]
fn after_a_restart_requests_are_interrupted_and_watches_are_set_again() {
    let (mut server, store) = FakeStore::new();
    let mut watch = run(&mut server, &store, store.watch("memory/target")).unwrap();
    run(&mut server, &store, watch.next()).unwrap();
    server.is_silent = true;
    let asked = store.ask(Kind::Read, NONE, &[b"a\0"], text);
    server.serve();

    let (mut other, _) = FakeStore::new();
    other.set("a", "1");
    store.restart(&mut || Some(other.page()));
    assert_eq!(run(&mut other, &store, asked), Err(Error::Interrupted));
    assert_eq!(run(&mut other, &store, watch.next()), Ok(Changed::Path("memory/target".to_string())));
    assert_eq!(other.watches(), 1);
    assert_eq!(run(&mut other, &store, store.read(NONE, "a")).unwrap(), "1");
}

#[test]
fn nothing_is_touched_while_the_server_makes_the_connection_anew() {
    let (mut server, store) = FakeStore::new();
    server.set("a", "1");
    server.page().word(SERVER_FEATURES + 4).store(1, Ordering::Relaxed);
    let read = run_with(&mut server, &store, store.read(NONE, "a"), |turn, server| {
        if turn < 10 {
            assert!(server.seen.is_empty());
        } else {
            server.page().word(SERVER_FEATURES + 4).store(0, Ordering::Relaxed);
        }
    });
    assert_eq!(read.unwrap(), "1");
}

/// The result of a future that does not wait.
fn run_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("it waits"),
    }
}

proptest! {
    /// Any bytes from the server: no panic, no hang, and memory stays bounded.
    #[test]
    fn a_server_that_sends_rubbish_is_survived(
        messages in prop::collection::vec(
            (0..20_u32, 0..6_u32, 0..3_u32, prop::collection::vec(any::<u8>(), 0..300)),
            0..40,
        ),
        tail in prop::collection::vec(any::<u8>(), 0..HEADER_BYTES * 4),
    ) {
        let (mut server, store) = FakeStore::new();
        let mut watch = run(&mut server, &store, store.watch("a")).unwrap();
        let _ = run(&mut server, &store, watch.next());
        server.is_silent = true;
        let mut asked: Vec<_> = (0..4).map(|_| Box::pin(store.read(NONE, "a"))).collect();
        let mut cx = Context::from_waker(Waker::noop());
        for (kind, request, transaction, payload) in &messages {
            server.send(*kind, *request, *transaction, payload);
            server.serve();
            store.process();
            asked.retain_mut(|answer| answer.as_mut().poll(&mut cx).is_pending());
        }
        server.send_bytes(&tail);
        server.serve();
        store.process();
        drop(asked);
    }

    /// Any words anywhere in the page, at any time: no panic, no hang; once the connection is over it stays so.
    #[test]
    fn a_page_of_any_content_is_survived(
        words in prop::collection::vec((0..1024_usize, any::<u32>(), any::<bool>()), 1..200),
        fills in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..1024), 0..4),
    ) {
        let (server, store) = FakeStore::new();
        let page = server.page();
        let mut cx = Context::from_waker(Waker::noop());
        let mut watch = Box::pin(store.watch("a"));
        let mut asked: Vec<_> = (0..3).map(|_| Box::pin(store.read(NONE, "a"))).collect();
        let mut fills = fills.into_iter();
        for (place, value, is_index) in words {
            match fills.next() {
                // Bytes that the indices say are there.
                Some(bytes) => {
                    page.write(RESPONSES.data, &bytes);
                    let consumed = page.word(RESPONSES.consumer).load(Ordering::Relaxed);
                    let told = consumed.wrapping_add(bytes.len() as u32);
                    page.word(RESPONSES.producer).store(told, Ordering::Relaxed);
                }
                None if is_index => page.word(RESPONSES.producer).store(value, Ordering::Relaxed),
                None => page.word(place * 4).store(value, Ordering::Relaxed),
            }
            store.process();
            asked.retain_mut(|answer| answer.as_mut().poll(&mut cx).is_pending());
            let _ = watch.as_mut().poll(&mut cx).map(|_| watch = Box::pin(store.watch("b")));
        }
        page.word(REQUESTS.consumer).store(0x8000_0000, Ordering::Relaxed);
        page.word(RESPONSES.producer).store(0x8000_0000, Ordering::Relaxed);
        page.word(SERVER_FEATURES + 4).store(0, Ordering::Relaxed);
        store.process();
        let mut late = pin!(store.read(NONE, "a"));
        let is_over = |polled: Poll<Result<String, Error>>| matches!(polled, Poll::Ready(Err(_)));
        prop_assert!(is_over(late.as_mut().poll(&mut cx)));
        for mut answer in asked {
            prop_assert!(is_over(answer.as_mut().poll(&mut cx)));
        }
    }

    /// Any indices in the page: no panic, and the client goes on or says that the connection is closed.
    #[test]
    fn indices_that_jump_are_survived(jumps in prop::collection::vec((0..4_usize, any::<u32>()), 1..20)) {
        let (server, store) = FakeStore::new();
        let mut cx = Context::from_waker(Waker::noop());
        for (which, value) in jumps {
            let mut answer = pin!(store.read(NONE, "a"));
            let is_closed = answer.as_mut().poll(&mut cx).is_ready();
            server.page().word(REQUESTS.consumer + which * 4).store(value, Ordering::Relaxed);
            store.process();
            prop_assert!(!is_closed || run_once(store.read(NONE, "a")).is_err());
        }
    }
}
