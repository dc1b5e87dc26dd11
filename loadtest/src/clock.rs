//! The one place where time is read.

use std::time::{Duration, Instant};

use chrono::{DateTime, Local, Utc};

/// Monotonic time in nanoseconds since a run's start.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that stands at zero now.
    #[allow(clippy::disallowed_methods)]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// This clock, had it started so much earlier.
    #[cfg(test)]
    pub fn started_before(self, by: Duration) -> Self {
        Self { start: self.start - by }
    }

    /// Nanoseconds since the start.
    pub fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// The instant of a time, for timers.
    pub fn at(&self, time_ns: u64) -> Instant {
        self.start + Duration::from_nanos(time_ns)
    }

    /// The time of day, for dates in headers.
    #[allow(clippy::disallowed_methods)]
    pub fn wall_now() -> DateTime<Utc> {
        Utc::now()
    }

    /// The time of day with its zone, RFC 3339.
    #[allow(clippy::disallowed_methods)]
    pub fn wall_text() -> String {
        Local::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, false)
    }

    /// The time of day as a part of file names: `20261120-180203`.
    #[allow(clippy::disallowed_methods)]
    pub fn wall_word() -> String {
        Local::now().format("%Y%m%d-%H%M%S").to_string()
    }
}

/// Nanoseconds as seconds.
pub fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}
