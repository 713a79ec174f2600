//! Sees to it that a Linux whose processor runs guests of SVM goes on after an interrupt was lost.
//!
//! TCG loses one there now and then (docs/xen.md, "Odd things found"): by QEMU's source (7.2) because what waits for a processor is noted
//! in one word, which threads of devices change under a lock, and the processor's own without one when it enters or leaves such a guest.
//! The interrupt still waits in the local APIC, which notes it again with the next one that comes. If it was a timer's there may be no next
//! one, and the machine stands still. So here comes one.

use std::io::Write;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use super::channel::NOTHING;
use super::port::Port;

/// How long a Linux may stand still. What it is sent costs it some milliseconds.
const EVERY: Duration = Duration::from_secs(5);

/// Sends what interrupts a Linux, as long as it lives.
pub(super) struct Nudger {
    _until_dropped: Sender<()>,
}

impl Nudger {
    /// Begins; `port` is that of a [channel](super::channel::Channel).
    pub(super) fn start(port: Port) -> Self {
        Self::every(EVERY, port)
    }

    fn every(period: Duration, mut port: impl Write + Send + 'static) -> Self {
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            while receiver.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
                if port.write_all(NOTHING.as_bytes()).is_err() {
                    return;
                }
            }
        });
        Self { _until_dropped: sender }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn it_goes_on_until_it_is_dropped() {
        let (near, far) = UnixStream::pair().unwrap();
        let nudger = Nudger::every(Duration::from_millis(1), near);
        let mut lines = BufReader::new(far).lines();
        for _ in 0..3 {
            assert_eq!(lines.next().unwrap().unwrap() + "\n", NOTHING);
        }
        drop(nudger);
        // The stream ends when the thread does.
        assert!(lines.all(|line| line.is_ok()));
    }
}
