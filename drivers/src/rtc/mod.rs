//! CMOS real-time clock: the date and time of day (Motorola MC146818A; registers as in the IBM PC/AT).
//!
//! The clock is taken to run in UTC, as virtual machines' clocks do. Neighbour: `hal`.
#![forbid(unsafe_code)]

mod date_time;

pub use date_time::DateTime;

use crate::{Error, hal::PortIo};

const INDEX: u16 = 0x70;
const DATA: u16 = 0x71;

const SECONDS: u8 = 0x00;
const MINUTES: u8 = 0x02;
const HOURS: u8 = 0x04;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const STATUS_A: u8 = 0x0a;
const STATUS_B: u8 = 0x0b;

/// Status A: the registers are being updated.
const UPDATE_IN_PROGRESS: u8 = 1 << 7;
/// Status B: the registers hold binary numbers, not packed decimal ones.
const BINARY: u8 = 1 << 2;
/// Status B: hours run from 0 to 23, not from 1 to 12.
const HOURS_24: u8 = 1 << 1;
/// In a register of 12-hour form: afternoon.
const AFTERNOON: u8 = 1 << 7;

/// What a register reads where there is no device.
const ABSENT: u8 = 0xff;

/// An update takes at most 2 ms (MC146818A, "Update Cycle"), a read of two ports about 2 µs.
const UPDATE_READS: u32 = 5_000;
/// Two readings in a row agree unless a second ended between them.
const READINGS: u32 = 8;

/// What the clock says. `century_register` is the one that the FADT names (ACPI 6.5 §5.2.9), if it names one;
/// without it, years 70 to 99 are taken for 1970 to 1999 and the others for 2000 to 2069.
///
/// # Errors
/// [`Error::NoClock`], [`Error::ClockUpdating`], [`Error::ClockUnsteady`], [`Error::ClockNonsense`].
pub fn read(ports: &impl PortIo, century_register: Option<u8>) -> Result<DateTime, Error> {
    let mut last = read_registers(ports, century_register)?;
    for _ in 1..READINGS {
        let next = read_registers(ports, century_register)?;
        if next == last {
            return last.decode();
        }
        last = next;
    }
    Err(Error::ClockUnsteady { reads: READINGS })
}

/// The clock's registers at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Registers {
    seconds: u8,
    minutes: u8,
    hours: u8,
    day: u8,
    month: u8,
    year: u8,
    century: Option<(u8, u8)>,
    status_b: u8,
}

fn read_registers(ports: &impl PortIo, century_register: Option<u8>) -> Result<Registers, Error> {
    let register = |index: u8| {
        // Bit 7 of the index port masks the NMI: keep it clear.
        ports.write_u8(INDEX, index & 0x7f);
        ports.read_u8(DATA)
    };
    // Neither a number of seconds nor, in all its bits, a status.
    if register(SECONDS) == ABSENT && register(STATUS_B) == ABSENT {
        return Err(Error::NoClock);
    }
    if !(0..UPDATE_READS).any(|_| register(STATUS_A) & UPDATE_IN_PROGRESS == 0) {
        return Err(Error::ClockUpdating { reads: UPDATE_READS });
    }
    Ok(Registers {
        seconds: register(SECONDS),
        minutes: register(MINUTES),
        hours: register(HOURS),
        day: register(DAY),
        month: register(MONTH),
        year: register(YEAR),
        century: century_register.map(|index| (index, register(index))),
        status_b: register(STATUS_B),
    })
}

impl Registers {
    fn decode(&self) -> Result<DateTime, Error> {
        let hour = match self.status_b & HOURS_24 {
            0 => {
                let half = if self.hours & AFTERNOON == 0 { 0 } else { 12 };
                self.number(HOURS, self.hours & !AFTERNOON, 1, 12, "an hour from 1 to 12")? % 12 + half
            }
            _ => self.number(HOURS, self.hours, 0, 23, "an hour from 0 to 23")?,
        };
        let year = u16::from(self.number(YEAR, self.year, 0, 99, "a year from 0 to 99")?);
        let century = match self.century {
            Some((index, value)) => {
                u16::from(self.number(index, value, 19, 29, "a century from 19 to 29")?)
            }
            None if year >= 70 => 19,
            None => 20,
        };
        let month = self.number(MONTH, self.month, 1, 12, "a month from 1 to 12")?;
        let year = century * 100 + year;
        if year < 1970 {
            return Err(Error::ClockNonsense { register: YEAR, value: self.year, expected: "1970 or later" });
        }
        Ok(DateTime {
            year,
            month,
            day: self.number(DAY, self.day, 1, DateTime::days_in_month(year, month), "a day of the month")?,
            hour,
            minute: self.number(MINUTES, self.minutes, 0, 59, "a minute from 0 to 59")?,
            second: self.number(SECONDS, self.seconds, 0, 59, "a second from 0 to 59")?,
        })
    }

    /// The number in a register, if it lies within its bounds.
    fn number(&self, register: u8, value: u8, min: u8, max: u8, expected: &'static str) -> Result<u8, Error> {
        let nonsense = Error::ClockNonsense { register, value, expected };
        let number = match self.status_b & BINARY {
            0 if value & 0x0f > 9 || value >> 4 > 9 => return Err(nonsense),
            0 => (value >> 4) * 10 + (value & 0x0f),
            _ => value,
        };
        if (min..=max).contains(&number) { Ok(number) } else { Err(nonsense) }
    }
}

#[cfg(test)]
mod tests;
