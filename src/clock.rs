//! Time as an argument: the only file that reads the operating system's clock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A moment on a monotonic clock, in nanoseconds since that clock's own start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Time(pub u64);

impl Time {
    /// Time from `earlier` to `self`, or zero when `earlier` is later.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// The moment `by` later, or the last representable one.
    pub fn plus(self, by: Duration) -> Time {
        Time(self.0.saturating_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Seconds since the clock's start.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }
}

/// One moment on both clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Moment {
    /// On the monotonic clock, for durations.
    pub at: Time,
    /// In seconds since 1970 (UTC), for windows of the calendar and expiry dates.
    pub unix_s: u64,
}

/// Where time comes from: the operating system, or a test that moves it by hand.
pub trait Clock: Send + Sync {
    /// Now, on the monotonic clock.
    fn now(&self) -> Time;
    /// Now, in seconds since 1970 (UTC); for time stamps in answers, never for durations.
    fn unix_s(&self) -> u64;
    /// Now, on both.
    fn moment(&self) -> Moment {
        Moment { at: self.now(), unix_s: self.unix_s() }
    }
}

/// The operating system's clocks.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

/// A clock that moves only when told to; simulations and tests own one.
#[derive(Debug, Default)]
pub struct ManualClock {
    now_ns: AtomicU64,
}

impl SystemClock {
    /// A clock whose zero is now.
    #[allow(clippy::disallowed_methods, reason = "this file is where the OS clock is read")]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this file is where the OS clock is read")]
    fn now(&self) -> Time {
        Time(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    #[allow(clippy::disallowed_methods, reason = "this file is where the OS clock is read")]
    fn unix_s(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
    }
}

impl ManualClock {
    /// Moves the clock forward by `by`.
    pub fn advance(&self, by: Duration) {
        let by_ns = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.now_ns.fetch_add(by_ns, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Time {
        Time(self.now_ns.load(Ordering::SeqCst))
    }

    fn unix_s(&self) -> u64 {
        self.now_ns.load(Ordering::SeqCst) / 1_000_000_000
    }
}
