//! 16550 UART: the serial console (National Semiconductor PC16550D, data sheet of June 1995).
//!
//! Crate `uart_16550` knows the registers; here are the promises that a console needs on top: an absent or stuck
//! device is found out in bounded time, and sending never waits for ever. Neighbours: `mmio` ([`UartPorts`]),
//! [`class::Console`](Console).
#![forbid(unsafe_code)]

use alloc::collections::VecDeque;

use uart_16550::{
    BaudRate, Config, Uart16550,
    spec::registers::{FifoTriggerLevel, IER, LSR},
};

use crate::{
    Error,
    class::Console,
    hal::PortIo,
    mmio::{DRAIN_READS, Drained, UartPorts},
};

/// First port of the register block of COM1, by PC convention.
pub const COM1: u16 = 0x3f8;

/// Bytes handed to the transmit FIFO (16 deep) each time it is found empty: two are left for a FIFO that is
/// emptier than it says, as some emulations are.
const BURST_BYTES: usize = 14;

/// Reads of the line status register that a burst may wait for an empty FIFO, about 1 µs each. At 115200 baud a
/// full FIFO takes 1.4 ms.
const SEND_READS: u32 = 100_000;

/// A 16550 UART, 115200 baud, 8N1.
#[derive(Debug)]
pub struct Serial<P: PortIo> {
    uart: Uart16550<UartPorts<P>>,
    name: &'static str,
    /// What had been received when the device was found.
    received: VecDeque<u8>,
    /// The last wait for the FIFO was in vain: do not wait again until it has room.
    stalled: bool,
}

impl<P: PortIo> Serial<P> {
    /// Finds the UART whose register block starts at port `base` and sets it up, interrupts disabled.
    ///
    /// # Errors
    /// [`Error::NoUart`], [`Error::UartStuck`].
    pub fn probe(ports: P, base: u16, name: &'static str) -> Result<Self, Error> {
        let mut uart = UartPorts::uart(ports, base);
        let config = Config {
            baud_rate: BaudRate::Baud115200,
            // An interrupt for the first byte: who types wants to see it.
            fifo_trigger_level: Some(FifoTriggerLevel::One),
            ..Config::DEFAULT
        };
        match uart.init(config) {
            Ok(()) => match uart.backend_mut().end_set_up() {
                Drained::Yes(received) => Ok(Self { uart, name, received: received.into(), stalled: false }),
                Drained::No => Err(Error::UartStuck { base, reads: DRAIN_READS }),
            },
            Err(_) => Err(Error::NoUart { base }),
        }
    }

    /// Lets the device interrupt when it has received something (PC16550D §8.7).
    pub fn enable_receive_interrupt(&mut self) {
        self.uart.enable_interrupts(IER::DATA_READY);
    }

    /// Sends a burst, unless the device takes nothing for [`SEND_READS`] reads.
    fn send(&mut self, burst: &[u8]) {
        let reads = if self.stalled { 1 } else { SEND_READS };
        for _ in 0..reads {
            if self.uart.lsr().contains(LSR::THR_EMPTY) {
                self.stalled = false;
                return self.uart.backend_mut().send(burst);
            }
            core::hint::spin_loop();
        }
        self.stalled = true;
    }
}

impl<P: PortIo + Send> Console for Serial<P> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut burst = [0; BURST_BYTES];
        let mut len = 0;
        for &byte in bytes {
            let with_return = [b'\r', byte];
            let sent = if byte == b'\n' { &with_return[..] } else { &with_return[1..] };
            if len + sent.len() > BURST_BYTES {
                self.send(&burst[..len]);
                len = 0;
            }
            burst[len..len + sent.len()].copy_from_slice(sent);
            len += sent.len();
        }
        self.send(&burst[..len]);
    }

    fn flush(&mut self) {
        for _ in 0..if self.stalled { 1 } else { SEND_READS } {
            if self.uart.lsr().contains(LSR::TRANSMITTER_EMPTY) {
                return;
            }
            core::hint::spin_loop();
        }
    }

    fn read(&mut self) -> Option<u8> {
        if let Some(byte) = self.received.pop_front() {
            return Some(byte);
        }
        // A UART that has been unplugged reads all ones, which would look like input without end.
        if self.uart.lsr().bits() == 0xff {
            return None;
        }
        self.uart.try_receive_byte().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{EmptyBus, FakeUart};

    fn probe(uart: &FakeUart) -> Result<Serial<&FakeUart>, Error> {
        Serial::probe(uart, COM1, "serial")
    }

    #[test]
    fn text_arrives_in_order_with_carriage_returns() {
        let uart = FakeUart::default();
        probe(&uart).unwrap().write(b"one line\nand another that is longer than the FIFO\n");
        assert_eq!(uart.sent(), b"one line\r\nand another that is longer than the FIFO\r\n");
    }

    #[test]
    fn the_fifo_is_never_overrun() {
        let uart = FakeUart::default();
        probe(&uart).unwrap().write(&[b'\n'; 200]);
        assert_eq!(uart.sent(), b"\r\n".repeat(200));
        assert_eq!(uart.overruns(), 0);
    }

    #[test]
    fn what_was_received_is_read_once_and_an_empty_device_does_not_block() {
        let uart = FakeUart::default();
        let mut serial = probe(&uart).unwrap();
        uart.receive(b"ab");
        assert_eq!([serial.read(), serial.read(), serial.read()], [Some(b'a'), Some(b'b'), None]);
    }

    #[test]
    fn what_came_before_the_set_up_is_not_lost() {
        for early in [&b"h"[..], b"hello", b"more than the sixteen bytes of a FIFO"] {
            let uart = FakeUart::default();
            uart.receive(early);
            let mut serial = probe(&uart).unwrap();
            uart.receive(b"!");
            let read: Vec<u8> = core::iter::from_fn(|| serial.read()).collect();
            assert_eq!(read, [early, b"!"].concat());
        }
    }

    #[test]
    fn the_receive_interrupt_is_off_until_asked_for() {
        let uart = FakeUart::default();
        let mut serial = probe(&uart).unwrap();
        assert_eq!(uart.interrupt_enable(), 0);
        serial.enable_receive_interrupt();
        assert_eq!(uart.interrupt_enable(), 1);
    }

    #[test]
    fn an_absent_uart_is_an_error() {
        assert_eq!(Serial::probe(&EmptyBus, COM1, "serial").unwrap_err(), Error::NoUart { base: COM1 });
    }

    #[test]
    fn a_uart_that_never_runs_empty_is_an_error() {
        let uart = FakeUart::default();
        uart.jam();
        assert_eq!(probe(&uart).unwrap_err(), Error::UartStuck { base: COM1, reads: DRAIN_READS });
    }

    #[test]
    fn a_uart_that_stops_sending_costs_one_wait_and_recovers() {
        let uart = FakeUart::default();
        let mut serial = probe(&uart).unwrap();
        uart.jam();
        serial.write(b"lost");
        let before = uart.status_reads();
        serial.write(b"lost too");
        assert!(uart.status_reads() - before < 10, "each write waits again");
        serial.flush();
        uart.unjam();
        serial.write(b"heard");
        assert_eq!(uart.sent(), b"heard");
    }

    #[test]
    fn a_uart_that_vanishes_yields_no_input() {
        let uart = FakeUart::default();
        let mut serial = probe(&uart).unwrap();
        uart.unplug();
        assert_eq!(serial.read(), None);
        serial.write(b"into the void");
    }
}
