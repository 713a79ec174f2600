//! What was received and not yet read: a bounded queue between interrupt handlers and the one who awaits bytes.
//!
//! Queue and waker stand under one lock that disables interrupts: then "empty, so I sleep" and "here is a byte,
//! wake up" cannot miss each other, and each side holds it for a few instructions only.
#![forbid(unsafe_code)]

use core::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use crate::sync::IrqMutex;

/// Bytes that wait to be read; what comes beyond is dropped and counted.
const CAPACITY: usize = 256;

struct Queue {
    bytes: heapless::Deque<u8, CAPACITY>,
    lost: u64,
    reader: Option<Waker>,
}

static QUEUE: IrqMutex<Queue> = IrqMutex::new(Queue { bytes: heapless::Deque::new(), lost: 0, reader: None });

/// Queues what was received and wakes the reader. For interrupt handlers.
pub(super) fn push(received: &[u8]) {
    if received.is_empty() {
        return;
    }
    let reader = {
        let mut queue = QUEUE.lock();
        for &byte in received {
            if queue.bytes.push_back(byte).is_err() {
                queue.lost += 1;
            }
        }
        queue.reader.take()
    };
    if let Some(reader) = reader {
        reader.wake();
    }
}

/// Bytes of input dropped so far because nobody read them in time.
pub fn lost() -> u64 {
    QUEUE.lock().lost
}

/// Brings up the keyboard and the serial line's other direction, so that nothing typed from here on is lost. The first read
/// does so too: this is for who asks before it reads.
pub fn listen() {
    crate::devices::bring_up_inputs();
}

/// Waits for the next byte of input, as it came: a return key is `\r`, an arrow an escape sequence. Of several
/// waiting at the same time each byte reaches one.
pub fn read_byte() -> ReadByte {
    listen();
    ReadByte { _private: () }
}

/// Future of [`read_byte`].
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct ReadByte {
    _private: (),
}

impl Future for ReadByte {
    type Output = u8;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<u8> {
        let mut queue = QUEUE.lock();
        if let Some(byte) = queue.bytes.pop_front() {
            return Poll::Ready(byte);
        }
        let same = queue.reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker()));
        let other = if same { None } else { queue.reader.replace(cx.waker().clone()) };
        drop(queue);
        // There is one place for a waker: who stood there polls again, and takes its turn in it.
        if let Some(other) = other {
            other.wake();
        }
        Poll::Pending
    }
}

crate::kernel_test! {
    /// What a handler pushes wakes who waits, and what nobody reads is counted as lost.
    async fn what_is_received_reaches_the_reader() {
        let reader = crate::task::spawn(async { [read_byte().await, read_byte().await] });
        crate::task::yield_now().await;
        push(b"a");
        crate::task::yield_now().await;
        push(b"b");
        assert_eq!(reader.await, *b"ab");

        let lost_before = lost();
        push(&[b'x'; CAPACITY + 3]);
        assert_eq!(lost() - lost_before, 3);
        for _ in 0..CAPACITY {
            assert_eq!(read_byte().await, b'x');
        }
    }
}
