//! The one place where time is read.

use std::time::{Duration, Instant};

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

    /// Nanoseconds since the start.
    pub fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// The instant of a time, for timers.
    pub fn at(&self, time_ns: u64) -> Instant {
        self.start + Duration::from_nanos(time_ns)
    }
}
