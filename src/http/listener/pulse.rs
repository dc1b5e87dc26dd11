//! What a connection is doing and since when, so that one timer per connection can tell a slow
//! head, an idle connection and a stalled reader from one that merely waits for tokens.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Time};
use crate::config::ListenerLimits;

/// How long a connection may be in each state.
pub(super) struct Patience {
    header: Duration,
    idle: Duration,
    stall: Duration,
}

/// A connection's state. Moments are kept as nanoseconds plus one; 0 is "not now".
pub(super) struct Pulse {
    clock: Arc<dyn Clock>,
    /// Requests whose answers have not been written.
    in_flight: AtomicU32,
    /// Accept, or the end of the last answer.
    idle_since: Time0,
    /// First byte of the head that is being read.
    head_since: Time0,
    /// The socket takes no bytes since.
    blocked_since: Time0,
    /// Whether a request has been read.
    served: AtomicU32,
    /// HTTP/2 streams that were given a frame and have not asked for the next since, by number.
    /// There a reader stalls its own stream (flow control) and not the socket. At most one entry
    /// for each of the connection's streams.
    waiting_streams: Mutex<HashMap<u32, Time>>,
}

/// A request between its head and the last byte of its answer.
pub(super) struct InFlight {
    pulse: Arc<Pulse>,
    /// Its number when it is an HTTP/2 stream.
    stream: Option<u32>,
}

#[derive(Default)]
struct Time0(AtomicU64);

impl Patience {
    pub(super) fn new(limits: &ListenerLimits) -> Self {
        Self {
            header: limits.header_timeout,
            idle: limits.idle_timeout,
            stall: limits.write_stall_timeout,
        }
    }

    /// A connection must have brought its first head by then.
    pub(super) fn first_check(&self) -> Duration {
        self.header
    }

    /// Between checks when nothing is due earlier: a state can begin unseen by the timer, and is
    /// noticed at most this much later than its limit.
    fn interval(&self) -> Duration {
        (self.header.min(self.idle).min(self.stall) / 4).max(Duration::from_millis(1))
    }
}

impl Pulse {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let pulse = Self {
            clock,
            in_flight: AtomicU32::new(0),
            idle_since: Time0::default(),
            head_since: Time0::default(),
            blocked_since: Time0::default(),
            served: AtomicU32::new(0),
            waiting_streams: Mutex::default(),
        };
        pulse.idle_since.set(pulse.clock.now());
        pulse
    }

    /// Bytes came. Outside a request they are the start of a head.
    pub(super) fn read(&self) {
        if self.in_flight.load(Ordering::Acquire) == 0 && self.head_since.get().is_none() {
            self.head_since.set(self.clock.now());
        }
    }

    /// The socket took no bytes (`blocked`) or took some.
    pub(super) fn wrote(&self, blocked: bool) {
        match (blocked, self.blocked_since.get()) {
            (true, None) => self.blocked_since.set(self.clock.now()),
            (false, Some(_)) => self.blocked_since.clear(),
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// A request's head was read.
    pub(super) fn begin(self: &Arc<Self>, is_h2: bool) -> InFlight {
        let number = self.served.fetch_add(1, Ordering::AcqRel);
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        self.head_since.clear();
        InFlight { pulse: Arc::clone(self), stream: is_h2.then_some(number) }
    }

    /// When to look again, or why the connection has to be closed.
    pub(super) fn next_check(&self, patience: &Patience) -> Result<Duration, &'static str> {
        let now = self.clock.now();
        let mut wait = patience.interval();
        let mut within = |since: Option<Time>, limit: Duration, reason: &'static str| {
            let Some(since) = since else { return Ok(()) };
            let rest = limit.saturating_sub(now.since(since));
            if rest.is_zero() {
                return Err(reason);
            }
            wait = wait.min(rest);
            Ok(())
        };
        within(self.blocked_since.get(), patience.stall, "the reader takes no bytes")?;
        let oldest = self.waiting_streams().values().min().copied();
        within(oldest, patience.stall, "the reader of a stream takes no bytes")?;
        if self.in_flight.load(Ordering::Acquire) == 0 {
            let first = self.served.load(Ordering::Acquire) == 0;
            let idle_since = self.idle_since.get();
            // A connection that has just been accepted owes its first head.
            let head_since = if first { idle_since } else { self.head_since.get() };
            within(head_since, patience.header, "the request's head came too slowly")?;
            within(idle_since, patience.idle, "no request came")?;
        }
        // A millisecond more, so that the limit has passed for certain when the timer fires.
        Ok(wait + Duration::from_millis(1))
    }

    fn waiting_streams(&self) -> std::sync::MutexGuard<'_, HashMap<u32, Time>> {
        self.waiting_streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InFlight {
    /// A frame of the answer was handed over.
    pub(super) fn gave(&self) {
        if let Some(stream) = self.stream {
            let now = self.pulse.clock.now();
            self.pulse.waiting_streams().insert(stream, now);
        }
    }

    /// The next frame was asked for.
    pub(super) fn asked(&self) {
        if let Some(stream) = self.stream {
            self.pulse.waiting_streams().remove(&stream);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.asked();
        self.pulse.idle_since.set(self.pulse.clock.now());
        self.pulse.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Time0 {
    fn get(&self) -> Option<Time> {
        self.0.load(Ordering::Acquire).checked_sub(1).map(Time)
    }

    fn set(&self, time: Time) {
        self.0.store(time.0.saturating_add(1), Ordering::Release);
    }

    fn clear(&self) {
        self.0.store(0, Ordering::Release);
    }
}
