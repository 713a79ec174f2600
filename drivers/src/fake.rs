//! Devices that a test plays behind [`PortIo`].
#![forbid(unsafe_code)]

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    sync::Mutex,
};

use crate::hal::PortIo;

/// A bus on which nothing answers.
#[derive(Debug)]
pub(crate) struct EmptyBus;

impl PortIo for EmptyBus {
    fn read_u8(&self, _port: u16) -> u8 {
        0xff
    }

    fn write_u8(&self, _port: u16, _value: u8) {}
}

/// A 16550 at any base port that is a multiple of eight.
#[derive(Debug, Default)]
pub(crate) struct FakeUart(Mutex<Uart>);

#[derive(Debug, Default)]
struct Uart {
    registers: [u8; 8],
    divisor: [u8; 2],
    fifo: usize,
    sent: Vec<u8>,
    /// Sent by the other side, which waits while the device has no room.
    line: VecDeque<u8>,
    received: VecDeque<u8>,
    overruns: usize,
    status_reads: usize,
    jammed: bool,
    unplugged: bool,
}

const DATA: u16 = 0;
const IER: u16 = 1;
const FCR: u16 = 2;
const LCR: u16 = 3;
const LSR: u16 = 5;
const FIFO_DEPTH: usize = 16;

impl FakeUart {
    fn uart(&self) -> std::sync::MutexGuard<'_, Uart> {
        self.0.lock().unwrap()
    }

    pub(crate) fn sent(&self) -> Vec<u8> {
        self.uart().sent.clone()
    }

    pub(crate) fn overruns(&self) -> usize {
        self.uart().overruns
    }

    pub(crate) fn status_reads(&self) -> usize {
        self.uart().status_reads
    }

    pub(crate) fn interrupt_enable(&self) -> u8 {
        self.uart().registers[usize::from(IER)]
    }

    pub(crate) fn receive(&self, bytes: &[u8]) {
        self.uart().line.extend(bytes);
    }

    /// From now on the transmitter is never empty.
    pub(crate) fn jam(&self) {
        self.uart().jammed = true;
    }

    pub(crate) fn unjam(&self) {
        self.uart().jammed = false;
    }

    pub(crate) fn unplug(&self) {
        self.uart().unplugged = true;
    }
}

impl PortIo for FakeUart {
    fn read_u8(&self, port: u16) -> u8 {
        let mut uart = self.uart();
        let divisor_access = uart.registers[usize::from(LCR)] & 0x80 != 0;
        match port % 8 {
            _ if uart.unplugged => 0xff,
            index @ (DATA | IER) if divisor_access => uart.divisor[usize::from(index)],
            DATA => uart.received.pop_front().unwrap_or(0),
            FCR => 0xc1,
            LSR => {
                uart.status_reads += 1;
                let transmitter = if uart.jammed { 0 } else { 0x60 };
                if !uart.jammed {
                    uart.fifo = 0;
                }
                let room = if uart.registers[usize::from(FCR)] & 1 != 0 { FIFO_DEPTH } else { 1 };
                while uart.received.len() < room
                    && let Some(byte) = uart.line.pop_front()
                {
                    uart.received.push_back(byte);
                }
                transmitter | u8::from(!uart.received.is_empty())
            }
            index => uart.registers[usize::from(index)],
        }
    }

    fn write_u8(&self, port: u16, value: u8) {
        let mut uart = self.uart();
        let divisor_access = uart.registers[usize::from(LCR)] & 0x80 != 0;
        match port % 8 {
            _ if uart.unplugged => {}
            index @ (DATA | IER) if divisor_access => uart.divisor[usize::from(index)] = value,
            DATA if uart.fifo == FIFO_DEPTH => uart.overruns += 1,
            DATA => {
                uart.fifo += 1;
                uart.sent.push(value);
            }
            FCR => {
                let is_switched = (value ^ uart.registers[usize::from(FCR)]) & 1 != 0;
                if is_switched || value & 2 != 0 {
                    uart.received.clear();
                }
                uart.registers[usize::from(FCR)] = value;
            }
            index => uart.registers[usize::from(index)] = value,
        }
    }
}

/// An i8042 with a keyboard: a script of scan codes, and switches for what may be broken.
#[derive(Debug)]
pub(crate) struct FakeController {
    output: RefCell<VecDeque<u8>>,
    command: Cell<u8>,
    pub(crate) configuration: Cell<u8>,
    pub(crate) self_test: Cell<Option<u8>>,
    pub(crate) keyboard_answer: Cell<Option<u8>>,
}

impl Default for FakeController {
    fn default() -> Self {
        Self {
            output: RefCell::default(),
            command: Cell::new(0),
            configuration: Cell::new(0x10),
            self_test: Cell::new(Some(0x55)),
            keyboard_answer: Cell::new(Some(0xfa)),
        }
    }
}

impl FakeController {
    pub(crate) fn press(&self, scan_codes: &[u8]) {
        self.output.borrow_mut().extend(scan_codes);
    }
}

impl PortIo for FakeController {
    fn read_u8(&self, port: u16) -> u8 {
        let mut output = self.output.borrow_mut();
        match port {
            0x60 => output.pop_front().unwrap_or(0),
            0x64 => u8::from(!output.is_empty()),
            _ => 0xff,
        }
    }

    fn write_u8(&self, port: u16, value: u8) {
        let mut output = self.output.borrow_mut();
        match (port, value) {
            (0x64, 0x20) => output.push_back(self.configuration.get()),
            (0x64, 0xaa) => output.extend(self.self_test.get()),
            (0x64, 0xab) => output.push_back(0),
            (0x64, _) => self.command.set(value),
            (0x60, _) if self.command.replace(0) == 0x60 => self.configuration.set(value),
            (0x60, 0xf4) => output.extend(self.keyboard_answer.get()),
            _ => {}
        }
    }
}
