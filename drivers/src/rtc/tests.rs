//! A CMOS clock, played.
use std::cell::Cell;

use super::*;
use crate::fake::EmptyBus;
use proptest::prelude::*;

struct FakeClock {
    registers: [u8; 128],
    index: Cell<u8>,
    /// Reads of status A that still find an update going on.
    updating: Cell<u32>,
    /// Whether the seconds change from one reading to the next.
    racing: bool,
    seconds_reads: Cell<u8>,
}

impl FakeClock {
    fn binary_24_hours() -> Self {
        let mut registers = [0; 128];
        registers[..12].copy_from_slice(&[7, 0, 34, 0, 3, 0, 7, 21, 11, 26, 0x26, BINARY | HOURS_24]);
        Self {
            registers,
            index: Cell::new(0),
            updating: Cell::new(0),
            racing: false,
            seconds_reads: Cell::new(0),
        }
    }

    fn set(mut self, register: u8, value: u8) -> Self {
        self.registers[usize::from(register)] = value;
        self
    }
}

impl PortIo for FakeClock {
    fn read_u8(&self, port: u16) -> u8 {
        let value = self.registers[usize::from(self.index.get())];
        match (port, self.index.get()) {
            (DATA, STATUS_A) if self.updating.get() > 0 => {
                self.updating.set(self.updating.get() - 1);
                value | UPDATE_IN_PROGRESS
            }
            (DATA, SECONDS) if self.racing => self.seconds_reads.replace(self.seconds_reads.get() + 1),
            (DATA, _) => value,
            _ => 0xff,
        }
    }

    fn write_u8(&self, port: u16, value: u8) {
        assert_eq!((port, value & 0x80), (INDEX, 0), "only the index is written, and the NMI not masked");
        self.index.set(value);
    }
}

#[test]
fn binary_and_packed_decimal_clocks_say_the_same() {
    let binary = read(&FakeClock::binary_24_hours(), None).unwrap();
    assert_eq!(std::format!("{binary}"), "2026-11-21 03:34:07");
    let mut decimal = FakeClock::binary_24_hours().set(STATUS_B, HOURS_24);
    for register in &mut decimal.registers[..10] {
        *register = ((*register / 10) << 4) | (*register % 10);
    }
    assert_eq!(read(&decimal, None), Ok(binary));
}

#[test]
fn noon_and_midnight_of_a_12_hour_clock_are_right() {
    for (register, hour) in [(12, 0), (1, 1), (11, 11), (AFTERNOON | 12, 12), (AFTERNOON | 11, 23)] {
        let clock = FakeClock::binary_24_hours().set(STATUS_B, BINARY).set(HOURS, register);
        assert_eq!(read(&clock, None).unwrap().hour, hour);
    }
}

#[test]
fn the_century_register_is_used_where_there_is_one() {
    let clock = || FakeClock::binary_24_hours().set(YEAR, 99).set(0x32, 20);
    assert_eq!(read(&clock(), None).unwrap().year, 1999);
    assert_eq!(read(&clock(), Some(0x32)).unwrap().year, 2099);
}

#[test]
fn an_update_is_waited_for_but_not_for_ever() {
    let clock = FakeClock::binary_24_hours();
    clock.updating.set(100);
    assert!(read(&clock, None).is_ok());
    clock.updating.set(u32::MAX);
    assert_eq!(read(&clock, None), Err(Error::ClockUpdating { reads: UPDATE_READS }));
}

#[test]
fn an_absent_clock_is_an_error() {
    assert_eq!(read(&EmptyBus, None), Err(Error::NoClock));
}

#[test]
fn a_clock_that_never_rests_is_an_error() {
    let clock = FakeClock { racing: true, ..FakeClock::binary_24_hours() };
    assert_eq!(read(&clock, None), Err(Error::ClockUnsteady { reads: READINGS }));
}

#[test]
fn what_is_no_date_is_refused_with_its_register() {
    let clock = FakeClock::binary_24_hours().set(MONTH, 2).set(DAY, 29);
    let nonsense = Error::ClockNonsense { register: DAY, value: 29, expected: "a day of the month" };
    assert_eq!(read(&clock, None), Err(nonsense));
}

proptest! {
    #[test]
    fn any_registers_are_survived(registers: [u8; 16], century: Option<u8>) {
        let mut clock = FakeClock::binary_24_hours();
        clock.registers[..16].copy_from_slice(&registers);
        if let Ok(date) = read(&clock, century) {
            prop_assert_eq!(DateTime::from_unix(date.to_unix()), date);
        }
    }
}
