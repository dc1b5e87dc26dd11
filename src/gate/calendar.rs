//! Windows of the UTC calendar: hours, days and months, as functions of seconds since 1970.

use std::fmt;

const HOUR_S: u64 = 3600;
const DAY_S: u64 = 86_400;
/// Days of 400 years, after which the Gregorian calendar repeats.
const ERA_DAYS: u64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01.
const EPOCH_DAYS: u64 = 719_468;
/// 9999-12-31T23:59:59Z: later moments count as this one, so that dates keep four-digit years.
const LAST_UNIX_S: u64 = 253_402_300_799;

/// A kind of window. Each window is named by its first second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Window {
    /// From minute 0 to minute 59.
    Hour,
    /// From midnight to midnight.
    Day,
    /// From the first of the month on.
    Month,
}

/// A day, in days since 1970-01-01.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub u32);

/// A moment as people write it: `2026-11-20T23:00:00Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Utc(pub u64);

impl Window {
    /// All kinds, the shortest first.
    pub const ALL: [Window; 3] = [Window::Hour, Window::Day, Window::Month];

    /// Its name in answers and messages.
    pub fn name(self) -> &'static str {
        match self {
            Window::Hour => "hour",
            Window::Day => "day",
            Window::Month => "month",
        }
    }

    /// First second of the window that `unix_s` lies in.
    pub fn start(self, unix_s: u64) -> u64 {
        let unix_s = unix_s.min(LAST_UNIX_S);
        match self {
            Window::Hour => unix_s - unix_s % HOUR_S,
            Window::Day => unix_s - unix_s % DAY_S,
            Window::Month => {
                let days = unix_s / DAY_S;
                let (_, _, day) = civil(days);
                (days + 1 - u64::from(day)) * DAY_S
            }
        }
    }

    /// First second after the window that `unix_s` lies in.
    pub fn end(self, unix_s: u64) -> u64 {
        let start = self.start(unix_s);
        match self {
            Window::Hour => start + HOUR_S,
            Window::Day => start + DAY_S,
            // No month has more than 31 days, and none ends within 32 days of its successor's end.
            Window::Month => {
                let days = start / DAY_S + 31;
                let (_, _, day) = civil(days);
                (days + 1 - u64::from(day)) * DAY_S
            }
        }
    }
}

impl Day {
    /// The day that `unix_s` lies in.
    pub fn of(unix_s: u64) -> Self {
        Day((unix_s.min(LAST_UNIX_S) / DAY_S) as u32)
    }

    /// The day written as `2026-11-20`, if it is one, from 1970 to 9999.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let mut number = |digits: usize| {
            let part = parts.next().filter(|part| part.len() == digits)?;
            part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse::<u32>().ok())?
        };
        let (year, month, day) = (number(4)?, number(2)?, number(2)?);
        if parts.next().is_some() || year < 1970 || !(1..=12).contains(&month) || day == 0 {
            return None;
        }
        let days = days_from_civil(u64::from(year), month, day);
        (civil(days) == (u64::from(year), month, day)).then_some(Day(days as u32))
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil(u64::from(self.0));
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unix_s = self.0.min(LAST_UNIX_S);
        let (hour, minute, second) = (unix_s / HOUR_S % 24, unix_s / 60 % 60, unix_s % 60);
        write!(f, "{}T{hour:02}:{minute:02}:{second:02}Z", Day::of(unix_s))
    }
}

/// Year, month and day of the month of a day since 1970 (Hinnant, "chrono-compatible low-level
/// date algorithms", 2013): years begin in March there, so that leap days come last.
fn civil(days: u64) -> (u64, u32, u32) {
    let days = days + EPOCH_DAYS;
    let (era, day_of_era) = (days / ERA_DAYS, days % ERA_DAYS);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month as u32, day as u32)
}

/// Days from 1970-01-01 to a date not before it; the inverse of [`civil`].
fn days_from_civil(year: u64, month: u32, day: u32) -> u64 {
    let year = year - u64::from(month <= 2);
    let (era, year_of_era) = (year / 400, year % 400);
    let from_march = u64::from((month + 9) % 12);
    let day_of_year = (153 * from_march + 2) / 5 + u64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * ERA_DAYS + day_of_era - EPOCH_DAYS
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Datelike, NaiveDate};

    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for days in (0..2_932_896).step_by(7).chain([2_932_896]) {
            let date = NaiveDate::from_ymd_opt(1970, 1, 1).expect("a date")
                + chrono::Duration::days(i64::from(days));
            let (year, month, day) = civil(u64::from(days));
            assert_eq!(
                (year as i32, month, day),
                (date.year(), date.month(), date.day()),
                "{days} days"
            );
            assert_eq!(days_from_civil(year, month, day), u64::from(days));
            assert_eq!(Day::parse(&Day(days).to_string()), Some(Day(days)));
        }
    }

    #[test]
    fn windows_follow_each_other_without_gap_or_overlap() {
        for window in Window::ALL {
            let mut start = window.start(1_582_934_400);
            for _ in 0..100 {
                let end = window.end(start);
                assert_eq!(window.start(end), end);
                assert_eq!(window.start(end - 1), start);
                assert_eq!(window.end(end - 1), end);
                start = end;
            }
        }
        // 2024 is a leap year: February ends on the 29th.
        let february = DateTime::parse_from_rfc3339("2024-02-29T23:59:59Z").expect("a moment");
        let unix_s = february.timestamp() as u64;
        assert_eq!(Utc(Window::Month.end(unix_s)).to_string(), "2024-03-01T00:00:00Z");
        assert_eq!(Utc(Window::Month.start(unix_s)).to_string(), "2024-02-01T00:00:00Z");
        assert_eq!(Utc(unix_s).to_string(), "2024-02-29T23:59:59Z");
        assert_eq!(Utc(u64::MAX).to_string(), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in
            ["", "2026", "2026-02-30", "2026-13-01", "2026-1-1", "1969-12-31", "2026-01-01-1"]
        {
            assert_eq!(Day::parse(text), None, "{text}");
        }
    }
}
