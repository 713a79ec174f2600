//! The console of a Xen domain: two rings of bytes in one page (io/console.h), which a daemon in dom0 shows.
//! Neighbours: `stream` (the rings), `class::Console` (what callers see).
//!
//! Nobody waits for the reader. What the ring does not hold is kept, up to [`BACKLOG_BYTES`]; what goes beyond is lost,
//! counted, and told in the text once there is room again. So a reader that comes late still sees how the guest began.
#![forbid(unsafe_code)]

use super::{
    SharedPage,
    stream::{Layout, Reader, Writer},
};
use crate::class::Console;
use alloc::{boxed::Box, collections::VecDeque, format};

/// What was typed (`struct xencons_interface`).
const INPUT: Layout = Layout { data: 0, len_bytes: 1024, consumer: 3072, producer: 3076 };
/// What is shown.
const OUTPUT: Layout = Layout { data: 1024, len_bytes: 2048, consumer: 3080, producer: 3084 };

/// Bytes kept for a reader that is late.
pub const BACKLOG_BYTES: usize = 16 << 10;
/// Times that [`Console::flush`] gives way until it gives up.
const FLUSH_TURNS: u32 = 20_000;

/// The frontend. `xl console` and the log of xenconsoled are its other end.
#[doc(alias = "hvc")]
pub struct HvcConsole {
    page: &'static SharedPage,
    backlog: VecDeque<u8>,
    lost: u64,
    lost_told: u64,
    notify: Box<dyn Fn() + Send>,
    give_way: Box<dyn Fn() + Send>,
}

impl HvcConsole {
    /// A console on the rings in `page`. `notify` rings at the reader; `give_way` lets it run.
    pub fn new(
        page: &'static SharedPage,
        notify: Box<dyn Fn() + Send>,
        give_way: Box<dyn Fn() + Send>,
    ) -> Self {
        Self { page, backlog: VecDeque::new(), lost: 0, lost_told: 0, notify, give_way }
    }

    /// Bytes of output that were lost so far.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.backlog.len() + bytes.len() <= BACKLOG_BYTES {
            self.backlog.extend(bytes);
        } else {
            self.lost += bytes.len() as u64;
        }
    }

    /// Moves what is kept into the ring, as far as it goes, and rings if anything moved.
    fn pump(&mut self) {
        let mut moved = false;
        loop {
            self.tell_lost();
            // A panic writes past this driver, so the index in the page counts.
            let (piece, _) = self.backlog.as_slices();
            // A reader with an index that cannot be true gets nothing until it makes sense.
            let sent = Writer::new(OUTPUT, self.page).write(self.page, piece).unwrap_or(0);
            if sent == 0 {
                break;
            }
            self.backlog.drain(..sent);
            moved = true;
        }
        if moved {
            (self.notify)();
        }
    }

    /// Puts in a line that says how much is missing here, once all that was kept before has gone.
    fn tell_lost(&mut self) {
        if self.backlog.is_empty() && self.lost > self.lost_told {
            let line = format!("\r\n[{} bytes of console output lost]\r\n", self.lost - self.lost_told);
            self.lost_told = self.lost;
            self.keep(line.as_bytes());
        }
    }
}

impl Console for HvcConsole {
    fn name(&self) -> &'static str {
        "hvc"
    }

    fn write(&mut self, bytes: &[u8]) {
        self.pump();
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            match line.strip_suffix(b"\n") {
                Some(text) => {
                    self.keep(text);
                    self.keep(b"\r\n");
                }
                None => self.keep(line),
            }
        }
        self.pump();
    }

    fn flush(&mut self) {
        for _ in 0..FLUSH_TURNS {
            self.pump();
            let drained = Writer::new(OUTPUT, self.page).is_drained(self.page).unwrap_or(false);
            if self.backlog.is_empty() && drained {
                return;
            }
            (self.give_way)();
        }
    }

    fn read(&mut self) -> Option<u8> {
        // The reader rings too when it has made room.
        self.pump();
        let mut byte = [0];
        // The index in the page counts here too: the ring begins anew after the guest was restored.
        let taken = Reader::new(INPUT, self.page).read(self.page, &mut byte).unwrap_or(0);
        if taken == 0 {
            return None;
        }
        (self.notify)();
        Some(byte[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::{AtomicU32, Ordering};
    use proptest::prelude::*;
    use std::{sync::Arc, vec::Vec};

    struct Daemon {
        page: &'static SharedPage,
        output: Reader,
        input: Writer,
        rung: Arc<AtomicU32>,
    }

    fn console() -> (Daemon, HvcConsole) {
        let page: &'static SharedPage = Box::leak(Box::new(SharedPage::new()));
        let rung = Arc::new(AtomicU32::new(0));
        let bell = rung.clone();
        let ring = Box::new(move || _ = bell.fetch_add(1, Ordering::Relaxed));
        let daemon =
            Daemon { page, output: Reader::new(OUTPUT, page), input: Writer::new(INPUT, page), rung };
        (daemon, HvcConsole::new(page, ring, Box::new(|| ())))
    }

    impl Daemon {
        fn show(&mut self) -> Vec<u8> {
            let mut text = std::vec![0; 4096];
            let taken = self.output.read(self.page, &mut text).unwrap();
            text.truncate(taken);
            text
        }
    }

    #[test]
    fn lines_are_shown_and_the_reader_is_rung() {
        let (mut daemon, mut console) = console();
        console.write(b"one\ntwo");
        assert_eq!(daemon.show(), b"one\r\ntwo");
        assert_eq!(daemon.rung.load(Ordering::Relaxed), 1);
        console.flush();
    }

    #[test]
    fn what_is_typed_is_read() {
        let (mut daemon, mut console) = console();
        assert_eq!(console.read(), None);
        daemon.input.write(daemon.page, b"ls\r").unwrap();
        assert_eq!([console.read(), console.read(), console.read()], [b'l', b's', b'\r'].map(Some));
        assert_eq!(console.read(), None);
    }

    #[test]
    fn a_reader_that_comes_late_sees_the_beginning_and_how_much_is_missing() {
        let (mut daemon, mut console) = console();
        for _ in 0..3000 {
            console.write(b"0123456789");
        }
        assert_eq!(console.lost(), 30_000 - console.backlog.len() as u64 - 2048);
        let mut text = Vec::new();
        for _ in 0..20 {
            text.extend(daemon.show());
            console.read();
        }
        assert!(text.starts_with(b"0123456789"));
        let note = format!("\r\n[{} bytes of console output lost]\r\n", console.lost());
        assert!(text.ends_with(note.as_bytes()));
        assert_eq!(text.len() as u64, 30_000 - console.lost() + note.len() as u64);
    }

    #[test]
    fn nobody_hangs_on_a_reader_that_never_reads() {
        let (_daemon, mut console) = console();
        console.write(&[b'x'; 10_000]);
        console.flush();
        assert_eq!(console.lost(), 0);
    }

    proptest! {
        /// Any indices at any time: what is written is bounded, and nothing panics.
        #[test]
        fn indices_that_jump_are_survived(jumps in prop::collection::vec((0..4_usize, any::<u32>()), 1..50)) {
            let (daemon, mut console) = console();
            for (which, value) in jumps {
                daemon.page.word(3072 + which * 4).store(value, Ordering::Relaxed);
                console.write(b"line\n");
                for _ in 0..10 {
                    console.read();
                }
                prop_assert!(console.backlog.len() <= BACKLOG_BYTES);
            }
        }
    }
}
