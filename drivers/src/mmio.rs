//! Device registers and device memory as typed, bounds-checked, volatile words: the one place of this crate
//! with unsafe code.
//!
//! [`Mmio`] is a slice of words in memory, such as a framebuffer. [`UartPorts`] is the register block of a 16550
//! behind I/O ports, in the form that crate `uart_16550` asks for. Neighbours: `hal` (ports), `serial`, `text`.

use alloc::vec::Vec;
use core::ptr::NonNull;

use uart_16550::{
    Uart16550,
    backend::Backend,
    spec::registers::{FCR, LCR, LSR, offsets},
};
use volatile::VolatilePtr;

use crate::hal::PortIo;

/// A word that a device can be accessed by: every bit pattern is a value.
pub trait Word: Copy + sealed::Sealed {}
impl Word for u8 {}
impl Word for u16 {}
impl Word for u32 {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for u8 {}
    impl Sealed for u16 {}
    impl Sealed for u32 {}
}

/// Device memory as a slice of words.
#[derive(Debug)]
pub struct Mmio<T> {
    start: NonNull<T>,
    len: usize,
}

// SAFETY: A mapping is the same on every CPU (1 of `Mmio::new`), and the value has no other state.
unsafe impl<T: Word> Send for Mmio<T> {}

impl Mmio<u8> {
    /// The `len_bytes` bytes at `start`.
    ///
    /// # Safety
    /// 1. The range is mapped, readable and writable, for as long as the value lives, on every CPU.
    /// 2. No object of the program lies in it: it is device memory, or memory handed over for good.
    /// 3. No access of any width to it makes the device change an object of the program.
    pub const unsafe fn new(start: NonNull<u8>, len_bytes: usize) -> Self {
        Self { start, len: len_bytes }
    }

    /// The first `len_bytes` bytes of it, or all if there are fewer.
    pub fn first(self, len_bytes: usize) -> Self {
        Self { len: self.len.min(len_bytes), ..self }
    }

    /// The word at the byte `offset`, read in one access; `None` if it does not lie inside, aligned to its size.
    pub fn read_at<T: Word>(&self, offset: usize) -> Option<T> {
        self.word_at(offset).map(|word| word.read())
    }

    /// Writes the word at the byte `offset` in one access; `None`, and nothing is written, if it does not lie
    /// inside, aligned to its size.
    pub fn write_at<T: Word>(&mut self, offset: usize, value: T) -> Option<()> {
        self.word_at(offset).map(|word| word.write(value))
    }

    fn word_at<T: Word>(&self, offset: usize) -> Option<VolatilePtr<'_, T>> {
        let is_inside = self.len.checked_sub(size_of::<T>()).is_some_and(|last| offset <= last);
        if !is_inside {
            return None;
        }
        // SAFETY: inside the range, as just checked, which is one allocation for the compiler's purposes.
        let word = unsafe { self.start.add(offset) }.cast::<T>();
        word.is_aligned().then(|| {
            // SAFETY:
            // 1. The word is mapped while `self` lives (1 of `Mmio::new`) and aligned, as just checked.
            // 2. No reference to it exists: nothing of the program lies there (2 of `Mmio::new`).
            unsafe { VolatilePtr::new(word) }
        })
    }

    /// The same memory as wider words; `None` if it does not start at a multiple of the word's size. Bytes
    /// after the last whole word are left out.
    pub fn into_words<T: Word>(self) -> Option<Mmio<T>> {
        let start = self.start.cast::<T>();
        start.is_aligned().then_some(Mmio { start, len: self.len / size_of::<T>() })
    }
}

impl<T: Word> Mmio<T> {
    /// How many words there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no word at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reads the word at `index`.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Self::len).
    pub fn read(&self, index: usize) -> T {
        self.word(index).read()
    }

    /// Writes the word at `index`.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Self::len).
    pub fn write(&mut self, index: usize, value: T) {
        self.word(index).write(value);
    }

    /// Writes `values` to the words from `first` on, in this order.
    ///
    /// # Panics
    /// If they do not lie inside.
    pub fn write_slice(&mut self, first: usize, values: &[T]) {
        let end = first.checked_add(values.len()).filter(|&end| end <= self.len);
        assert!(end.is_some(), "{} words at {first} of a device range of {} words", values.len(), self.len);
        for (index, &value) in values.iter().enumerate() {
            // SAFETY: `first + index` is below `end`, which was just found to be `len` at most.
            unsafe { self.word_inside(first + index) }.write(value);
        }
    }

    /// Writes `value` to every word.
    pub fn fill(&mut self, value: T) {
        for index in 0..self.len {
            // SAFETY: the loop ends at `len`.
            unsafe { self.word_inside(index) }.write(value);
        }
    }

    fn word(&self, index: usize) -> VolatilePtr<'_, T> {
        assert!(index < self.len, "word {index} of a device range of {} words", self.len);
        // SAFETY: checked.
        unsafe { self.word_inside(index) }
    }

    /// The word at `index`.
    ///
    /// # Safety
    /// `index` is below `len`.
    unsafe fn word_inside(&self, index: usize) -> VolatilePtr<'_, T> {
        // SAFETY: `index` is inside the range, which is one allocation for the compiler's purposes: `len` words
        // from `start` are mapped (1 of `Mmio::new`; `into_words` rounds down).
        let word = unsafe { self.start.add(index) };
        // SAFETY:
        // 1. The word is mapped while `self` lives (1 of `Mmio::new`) and aligned (`into_words` checks).
        // 2. No reference to the word exists: nothing of the program lies there (2 of `Mmio::new`).
        unsafe { VolatilePtr::new(word) }
    }
}

/// Reads of the line status register without "transmitter empty" that a UART gets when it is set up. At 9600
/// baud its FIFO of 16 bytes takes 17 ms to run empty, and a read of a port about 1 µs.
pub const DRAIN_READS: u32 = 50_000;
/// Bytes kept that were received before the UART was set up.
const MAX_EARLY_BYTES: usize = 256;
/// Reads of the line status after a byte in which the next may come: a few milliseconds.
const NEXT_BYTE_READS: u32 = 2_000;

/// The register block of a 16550 behind I/O ports.
///
/// While crate `uart_16550` sets the device up, it waits without a bound for the transmitter to run empty, and
/// throws away what has been received, which may be the first keys that somebody typed. So until
/// [`end_set_up`](Self::end_set_up) this block answers for a transmitter that never runs empty, after
/// [`DRAIN_READS`] reads, and keeps what is received.
#[derive(Debug)]
pub struct UartPorts<P> {
    ports: P,
    base: u16,
    /// `None` once the device is set up.
    set_up: Option<SetUp>,
}

#[derive(Debug)]
struct SetUp {
    drain_reads_left: u32,
    received: Vec<u8>,
}

/// How the set-up went.
#[derive(Debug, PartialEq, Eq)]
pub enum Drained {
    /// The transmitter ran empty; these bytes had been received.
    Yes(Vec<u8>),
    /// It had to be given up on.
    No,
}

impl<P: PortIo> UartPorts<P> {
    /// A driver for the UART whose register block starts at port `base`.
    pub fn uart(ports: P, base: u16) -> Uart16550<Self> {
        let set_up = SetUp { drain_reads_left: DRAIN_READS, received: Vec::new() };
        let registers = Self { ports, base, set_up: Some(set_up) };
        // SAFETY: The backend works for all eight register offsets: it wraps, never leaves the port space, and
        // `PortIo` keeps it to the device's own ports. A `PortIo` access is safe to make at any time.
        unsafe { Uart16550::new_with_backend(registers) }
    }

    /// The device has been set up: from now on it speaks for itself.
    pub fn end_set_up(&mut self) -> Drained {
        match self.set_up.take() {
            Some(SetUp { drain_reads_left: 1.., received }) => Drained::Yes(received),
            _ => Drained::No,
        }
    }

    /// Hands bytes to the transmitter, whose FIFO has room for them.
    pub fn send(&mut self, bytes: &[u8]) {
        self.ports.write_bytes(self.base, bytes);
    }

    /// Takes out what waits before the FIFO is switched on, which empties it whatever is asked. Each byte taken
    /// lets the other side send one more, so it goes on until none comes.
    fn take_early_bytes(&mut self) {
        let mut reads = 1;
        for _ in 0..MAX_EARLY_BYTES {
            if !(0..reads).any(|_| LSR::from_bits_retain(self.line_status()).contains(LSR::DATA_READY)) {
                return;
            }
            self.data();
            reads = NEXT_BYTE_READS;
        }
    }

    fn read_register(&self, offset: usize) -> u8 {
        self.ports.read_u8(self.base.wrapping_add(offset as u16))
    }

    fn write_register(&self, offset: usize, value: u8) {
        self.ports.write_u8(self.base.wrapping_add(offset as u16), value);
    }

    /// The line status as the set-up is to see it.
    fn line_status(&mut self) -> u8 {
        let status = LSR::from_bits_retain(self.read_register(offsets::LSR));
        match &mut self.set_up {
            Some(set_up) if !status.contains(LSR::TRANSMITTER_EMPTY) => {
                set_up.drain_reads_left = set_up.drain_reads_left.saturating_sub(1);
                let given_up = set_up.drain_reads_left == 0;
                if given_up { status | LSR::TRANSMITTER_EMPTY } else { status }.bits()
            }
            _ => status.bits(),
        }
    }

    /// The data register, which is half of the divisor while the latch bit is set.
    fn data(&mut self) -> u8 {
        let is_divisor = self.set_up.is_some()
            && LCR::from_bits_retain(self.read_register(offsets::LCR)).contains(LCR::DLAB);
        let value = self.read_register(offsets::DATA);
        match &mut self.set_up {
            Some(set_up) if !is_divisor && set_up.received.len() < MAX_EARLY_BYTES => {
                set_up.received.push(value)
            }
            _ => {}
        }
        value
    }
}

impl<P: PortIo> Backend for UartPorts<P> {
    // Both are safe for every offset, so the contract of the trait is not needed.
    unsafe fn read(&mut self, register_offset: u8) -> u8 {
        match usize::from(register_offset) {
            offsets::LSR => self.line_status(),
            offsets::DATA => self.data(),
            offset => self.read_register(offset),
        }
    }

    unsafe fn write(&mut self, register_offset: u8, value: u8) {
        let offset = usize::from(register_offset);
        let mut value = value;
        if offset == offsets::FCR && self.set_up.is_some() {
            self.take_early_bytes();
            value &= !FCR::RX_FIFO_RESET.bits();
        }
        self.write_register(offset, value);
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use std::{boxed::Box, vec::Vec};

    /// `bytes` as device memory that is aligned for every word, and what reads them back.
    pub(crate) fn leaked(bytes: Vec<u8>) -> (Mmio<u8>, impl Fn() -> Vec<u8>) {
        let words: &'static mut [u32] = Box::leak(bytes.chunks(4).map(|_| 0).collect());
        let (first, len) = (NonNull::from(words).cast::<u8>(), bytes.len());
        // SAFETY: The words are leaked, and from here on reached through `memory` and `read` alone.
        let (mut memory, read) = unsafe { (Mmio::new(first, len), Mmio::new(first, len)) };
        bytes.iter().enumerate().for_each(|(index, &byte)| memory.write(index, byte));
        (memory, move || (0..len).map(|index| read.read(index)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::testing::leaked;
    use std::vec;

    #[test]
    fn words_lie_little_endian_in_the_bytes_of_the_device() {
        let (memory, bytes) = leaked(vec![0; 7]);
        let mut words = memory.into_words::<u32>().unwrap();
        assert_eq!(words.len(), 1, "three bytes are no word");
        words.write(0, 0x0403_0201);
        assert_eq!(words.read(0), 0x0403_0201);
        assert_eq!(bytes()[..5], [1, 2, 3, 4, 0]);
    }

    #[test]
    fn an_unaligned_range_has_no_words() {
        let (mut memory, _) = leaked(vec![0; 8]);
        memory.start = memory.start.map_addr(|address| address.saturating_add(1));
        assert!(memory.into_words::<u32>().is_none());
    }

    #[test]
    fn slices_are_written_inside_the_range_only() {
        let (mut memory, bytes) = leaked(vec![0; 4]);
        memory.fill(9);
        memory.write_slice(1, &[1, 2]);
        assert_eq!(bytes(), [9, 1, 2, 9]);
        memory.write_slice(4, &[]);
        for (first, len) in [(3, 2), (5, 0), (usize::MAX, 1)] {
            let (mut memory, _) = leaked(vec![0; 4]);
            let write = std::panic::AssertUnwindSafe(|| memory.write_slice(first, &vec![0; len]));
            assert!(std::panic::catch_unwind(write).is_err(), "{len} words at {first}");
        }
    }

    #[test]
    #[should_panic(expected = "word 4 of a device range of 4 words")]
    fn an_access_outside_the_range_is_caught() {
        leaked(vec![0; 4]).0.write(4, 0);
    }
}
