//! Rings of bytes in a shared page, as console and xenstore have them: one side writes, the other reads.
//! Both indices count for ever, modulo 2^32; what lies between them is on its way.
//! Neighbours: `page` (the memory), `console`, `xenstore::connection` (the users).
#![forbid(unsafe_code)]

use super::SharedPage;
use core::sync::atomic::Ordering;
use thiserror::Error;

/// Where the parts of a ring of bytes lie in its page.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Offset of the bytes.
    pub data: usize,
    /// Their number, a power of two.
    pub len_bytes: u32,
    /// Offset of the reader's index.
    pub consumer: usize,
    /// Offset of the writer's index.
    pub producer: usize,
}

/// The indices cannot be true: the reader would be ahead of the writer, or more behind than the ring is long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a ring of {len_bytes} bytes has consumer index {consumer:#x} and producer index {producer:#x}")]
pub struct BadIndices {
    /// Size of the ring.
    pub len_bytes: u32,
    /// The reader's index.
    pub consumer: u32,
    /// The writer's.
    pub producer: u32,
}

impl Layout {
    /// The bytes that were written and not yet read.
    fn used(&self, consumer: u32, producer: u32) -> Result<u32, BadIndices> {
        match producer.wrapping_sub(consumer) {
            used if used <= self.len_bytes => Ok(used),
            _ => Err(BadIndices { len_bytes: self.len_bytes, consumer, producer }),
        }
    }

    /// The place of a byte by its index, and how many follow it before the ring begins again.
    fn place(&self, index: u32) -> (usize, usize) {
        let at = index & (self.len_bytes - 1);
        (self.data + at as usize, (self.len_bytes - at) as usize)
    }
}

/// The writing end. Its own index is its own: the one in the page is told to the other side, not believed.
#[derive(Debug)]
pub struct Writer {
    layout: Layout,
    producer: u32,
}

impl Writer {
    /// Goes on where the ring in the page stands.
    pub fn new(layout: Layout, page: &SharedPage) -> Self {
        Self { layout, producer: page.word(layout.producer).load(Ordering::Relaxed) }
    }

    /// Writes as much of `bytes` as there is room for; how much that was.
    ///
    /// # Errors
    /// When the reader's index is nonsense.
    pub fn write(&mut self, page: &SharedPage, bytes: &[u8]) -> Result<usize, BadIndices> {
        let consumer = page.word(self.layout.consumer).load(Ordering::Acquire);
        let room = self.layout.len_bytes - self.layout.used(consumer, self.producer)?;
        let taken = bytes.len().min(room as usize);
        let (at, until_end) = self.layout.place(self.producer);
        let (first, rest) = bytes[..taken].split_at(taken.min(until_end));
        page.write(at, first);
        page.write(self.layout.data, rest);
        self.producer = self.producer.wrapping_add(taken as u32);
        // The bytes come before the index that announces them.
        page.word(self.layout.producer).store(self.producer, Ordering::Release);
        Ok(taken)
    }

    /// Whether the reader has taken everything.
    ///
    /// # Errors
    /// When the reader's index is nonsense.
    pub fn is_drained(&self, page: &SharedPage) -> Result<bool, BadIndices> {
        let consumer = page.word(self.layout.consumer).load(Ordering::Acquire);
        Ok(self.layout.used(consumer, self.producer)? == 0)
    }
}

/// The reading end. Its own index is its own, as with [`Writer`].
#[derive(Debug)]
pub struct Reader {
    layout: Layout,
    consumer: u32,
}

impl Reader {
    /// Goes on where the ring in the page stands.
    pub fn new(layout: Layout, page: &SharedPage) -> Self {
        Self { layout, consumer: page.word(layout.consumer).load(Ordering::Relaxed) }
    }

    /// Reads as many bytes as there are and as fit; how many that were.
    ///
    /// # Errors
    /// When the writer's index is nonsense.
    pub fn read(&mut self, page: &SharedPage, bytes: &mut [u8]) -> Result<usize, BadIndices> {
        let producer = page.word(self.layout.producer).load(Ordering::Acquire);
        let used = self.layout.used(self.consumer, producer)?;
        let taken = bytes.len().min(used as usize);
        let (at, until_end) = self.layout.place(self.consumer);
        let (first, rest) = bytes[..taken].split_at_mut(taken.min(until_end));
        page.read(at, first);
        page.read(self.layout.data, rest);
        self.consumer = self.consumer.wrapping_add(taken as u32);
        // The bytes are read before the index lets the other side write over them.
        page.word(self.layout.consumer).store(self.consumer, Ordering::Release);
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{collections::VecDeque, thread, vec::Vec};

    const RING: Layout = Layout { data: 1024, len_bytes: 1024, consumer: 3072, producer: 3076 };

    fn page(start: u32) -> SharedPage {
        let page = SharedPage::new();
        page.word(RING.consumer).store(start, Ordering::Relaxed);
        page.word(RING.producer).store(start, Ordering::Relaxed);
        page
    }

    proptest! {
        /// A ring is a queue, wherever its indices stand.
        #[test]
        fn bytes_come_out_in_the_order_in_which_they_went_in(
            start: u32,
            steps in prop::collection::vec((any::<bool>(), 0..1500_usize), 0..60),
        ) {
            let page = page(start);
            let (mut writer, mut reader) = (Writer::new(RING, &page), Reader::new(RING, &page));
            let mut model = VecDeque::new();
            let mut next = 0_u8;
            for (write, len) in steps {
                if write {
                    let bytes: Vec<u8> = (0..len).map(|at| next.wrapping_add(at as u8)).collect();
                    let taken = writer.write(&page, &bytes).unwrap();
                    prop_assert_eq!(taken, len.min(1024 - model.len()));
                    model.extend(&bytes[..taken]);
                    next = next.wrapping_add(taken as u8);
                } else {
                    let mut bytes = std::vec![0; len];
                    let taken = reader.read(&page, &mut bytes).unwrap();
                    prop_assert_eq!(taken, len.min(model.len()));
                    let expected: Vec<u8> = model.drain(..taken).collect();
                    prop_assert_eq!(&bytes[..taken], &expected[..]);
                }
                prop_assert_eq!(writer.is_drained(&page).unwrap(), model.is_empty());
            }
        }

        /// Whatever the other side writes into its index, both ends answer, and say when it is nonsense.
        #[test]
        fn an_index_that_cannot_be_true_is_an_error(own: u32, other: u32) {
            let page = page(own);
            let (mut writer, mut reader) = (Writer::new(RING, &page), Reader::new(RING, &page));
            page.word(RING.consumer).store(other, Ordering::Relaxed);
            prop_assert_eq!(writer.write(&page, &[1]).is_ok(), own.wrapping_sub(other) <= 1024);
            page.word(RING.producer).store(other, Ordering::Relaxed);
            prop_assert_eq!(reader.read(&page, &mut [0]).is_ok(), other.wrapping_sub(own) <= 1024);
        }
    }

    #[test]
    fn two_sides_at_the_same_time_lose_nothing() {
        let page = page(u32::MAX - 5000);
        let bytes: Vec<u8> = (0..60_000_u32).map(|at| (at % 251) as u8).collect();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut writer = Writer::new(RING, &page);
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    rest = &rest[writer.write(&page, rest).unwrap()..];
                    thread::yield_now();
                }
            });
            let mut reader = Reader::new(RING, &page);
            let mut read = Vec::new();
            while read.len() < bytes.len() {
                let mut piece = [0; 300];
                let taken = reader.read(&page, &mut piece).unwrap();
                read.extend_from_slice(&piece[..taken]);
                thread::yield_now();
            }
            assert_eq!(read, bytes);
        });
    }
}
