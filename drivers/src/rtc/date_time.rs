//! A date and time of day in UTC, and the Unix time it is (Gregorian calendar, no leap seconds).
#![forbid(unsafe_code)]

use core::fmt;

const SECONDS_PER_DAY: u64 = 86_400;
/// Days in four centuries, after which the calendar repeats.
const DAYS_PER_ERA: u64 = 146_097;
/// Days from 1 March of year 0 to 1 January 1970.
const EPOCH: u64 = 719_468;

/// A date from 1970 on and a time of day, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DateTime {
    /// The year, such as 2026.
    pub year: u16,
    /// The month, from 1.
    pub month: u8,
    /// The day of the month, from 1.
    pub day: u8,
    /// The hour, from 0 to 23.
    pub hour: u8,
    /// The minute, from 0 to 59.
    pub minute: u8,
    /// The second, from 0 to 59.
    pub second: u8,
}

impl DateTime {
    /// How many days the month has; 0 for a month that there is not.
    pub fn days_in_month(year: u16, month: u8) -> u8 {
        let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        match month {
            2 if leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            1..=12 => 31,
            _ => 0,
        }
    }

    /// Seconds since 1970-01-01 00:00:00 UTC; 0 for what lies before.
    pub fn to_unix(self) -> u64 {
        // Years that begin in March end with the leap day, and their months follow one straight line.
        let (year, month) = match self.month {
            3.. => (u64::from(self.year), u64::from(self.month) - 3),
            _ => (u64::from(self.year).saturating_sub(1), u64::from(self.month) + 9),
        };
        let day_of_year = (153 * month + 2) / 5 + u64::from(self.day).saturating_sub(1);
        let days = year * 365 + year / 4 - year / 100 + year / 400 + day_of_year;
        let time = u64::from(self.hour) * 3600 + u64::from(self.minute) * 60 + u64::from(self.second);
        days.saturating_sub(EPOCH) * SECONDS_PER_DAY + time
    }

    /// The date and time `seconds` after 1970-01-01 00:00:00 UTC; years after 65535 are given as 65535.
    pub fn from_unix(seconds: u64) -> Self {
        let days = seconds / SECONDS_PER_DAY + EPOCH;
        let (era, day_of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
        // Take out the leap days before it: every 4 years, but not every 100, but every 400.
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        let time = seconds % SECONDS_PER_DAY;
        Self {
            year: u16::try_from(year).unwrap_or(u16::MAX),
            month: month as u8,
            day: day as u8,
            hour: (time / 3600) as u8,
            minute: (time / 60 % 60) as u8,
            second: (time % 60) as u8,
        }
    }
}

impl fmt::Display for DateTime {
    /// As `2026-11-21 03:34:07`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { year, month, day, hour, minute, second } = self;
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::ToString;

    #[test]
    fn known_dates_have_their_unix_time() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_709_251_199, "2024-02-29 23:59:59"),
            (4_107_542_400, "2100-03-01 00:00:00"),
        ] {
            assert_eq!(DateTime::from_unix(seconds).to_string(), text);
            assert_eq!(DateTime::from_unix(seconds).to_unix(), seconds);
        }
    }

    proptest! {
        #[test]
        fn unix_time_survives_the_calendar(seconds in 0..253_402_300_800u64) {
            let date = DateTime::from_unix(seconds);
            prop_assert_eq!(date.to_unix(), seconds);
            prop_assert!((1..=DateTime::days_in_month(date.year, date.month)).contains(&date.day));
        }

        #[test]
        fn any_fields_are_survived(year: u16, month: u8, day: u8, hour: u8, minute: u8, second: u8) {
            DateTime { year, month, day, hour, minute, second }.to_unix();
        }
    }
}
