//! May this request enter, now? Keys, queue bounds, draining; knows neither HTTP nor the content
//! of tokens. Everything is a function of its arguments: load and time come from outside.

mod refusal;
mod tenant;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

pub use refusal::Refusal;
pub use tenant::{Keys, Tenant};

use crate::clock::Time;
use crate::config::QueueLimits;
use crate::engine::Load;

/// What a request asks of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens of output at most, all choices together.
    pub output_tokens_max: u64,
}

/// Decides about entry. Shared by all connections.
#[derive(Debug)]
pub struct Gate {
    keys: Keys,
    limits: QueueLimits,
    draining: AtomicBool,
    /// Requests that hold a permit.
    open_requests: AtomicU32,
    /// Of these, the ones whose first step has not begun, and their prompt tokens. Counted here
    /// and not read from the engine, whose snapshot lags behind a burst of arrivals.
    waiting_requests: AtomicU32,
    waiting_tokens: AtomicU64,
}

/// An admitted request's place. Lives in the response body; dropping it gives the place back.
#[derive(Debug)]
pub struct Permit {
    gate: Arc<Gate>,
    prompt_tokens: u32,
    waiting: bool,
}

impl Gate {
    /// A gate for these keys and bounds.
    pub fn new(keys: Keys, limits: QueueLimits) -> Self {
        Self {
            keys,
            limits,
            draining: AtomicBool::new(false),
            open_requests: AtomicU32::new(0),
            waiting_requests: AtomicU32::new(0),
            waiting_tokens: AtomicU64::new(0),
        }
    }

    /// The tenant behind a request's bearer token.
    ///
    /// # Errors
    /// [`Refusal::MissingKey`] or [`Refusal::InvalidKey`].
    pub fn identify(&self, bearer: Option<&str>) -> Result<Tenant, Refusal> {
        self.keys.identify(bearer)
    }

    /// Whether the server would take a request of any size now; asked before a body is parsed or
    /// a prompt tokenised, so that refusing is cheap.
    ///
    /// # Errors
    /// The [`Refusal`] that every request would get.
    pub fn precheck(&self, load: &Load, now: Time) -> Result<(), Refusal> {
        self.ready(load, now)?;
        self.check_queue(load, 0, 0)
    }

    /// Whether the server is ready: not draining, engine alive and making progress (R22).
    ///
    /// # Errors
    /// [`Refusal::Draining`] or [`Refusal::NotReady`].
    pub fn ready(&self, load: &Load, now: Time) -> Result<(), Refusal> {
        let retry_after_ms = millis(self.limits.drain_retry);
        if self.draining.load(Ordering::Acquire) {
            return Err(Refusal::Draining { retry_after_ms });
        }
        if !load.alive {
            return Err(Refusal::NotReady { reason: "its thread has stopped", retry_after_ms });
        }
        if self.stalled(load, now) {
            return Err(Refusal::NotReady { reason: "no step has completed", retry_after_ms });
        }
        Ok(())
    }

    /// Admits a request or says why not.
    ///
    /// # Errors
    /// The [`Refusal`].
    pub fn admit(
        self: &Arc<Self>,
        demand: Demand,
        load: &Load,
        now: Time,
    ) -> Result<Permit, Refusal> {
        self.ready(load, now)?;
        // The place is taken first and given back when refused: of two requests that arrive
        // together only one can then take the last place.
        let permit = Permit::take(Arc::clone(self), demand.prompt_tokens);
        self.check_queue(load, 1, u64::from(demand.prompt_tokens))?;
        Ok(permit)
    }

    /// Refuses everything from now on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether [`Gate::drain`] was called.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Requests that were admitted and have not been answered in full.
    pub fn open_requests(&self) -> u32 {
        self.open_requests.load(Ordering::Acquire)
    }

    /// Requests that were admitted and whose first step has not begun.
    pub fn waiting_requests(&self) -> u32 {
        self.waiting_requests.load(Ordering::Acquire)
    }

    /// Refuses when more wait than may, not counting what the caller itself has just added.
    fn check_queue(&self, load: &Load, own: u32, own_tokens: u64) -> Result<(), Refusal> {
        let waiting = self.waiting_requests.load(Ordering::Acquire).saturating_sub(own);
        if waiting >= self.limits.requests_max {
            let limit = self.limits.requests_max;
            let retry_after_ms = retry_after_ms(1.0, load.requests_per_s);
            return Err(Refusal::QueueFull { waiting, limit, retry_after_ms });
        }
        let waiting_tokens = self.waiting_tokens.load(Ordering::Acquire).saturating_sub(own_tokens);
        let limit = self.limits.tokens_max;
        // A prompt alone in the queue may be larger than the bound; otherwise it could never run.
        if waiting > 0 && waiting_tokens + own_tokens > limit {
            let excess = (waiting_tokens + own_tokens - limit) as f64;
            let retry_after_ms = retry_after_ms(excess, load.prefill_tokens_per_s);
            return Err(Refusal::QueuedTokensFull { waiting_tokens, limit, retry_after_ms });
        }
        Ok(())
    }

    fn stalled(&self, load: &Load, now: Time) -> bool {
        let patience = self.limits.stall_after.max(Duration::from_secs_f64(20.0 * load.step_s));
        load.step_began.is_some_and(|began| now.since(began) > patience)
    }
}

impl Permit {
    fn take(gate: Arc<Gate>, prompt_tokens: u32) -> Self {
        gate.open_requests.fetch_add(1, Ordering::AcqRel);
        gate.waiting_requests.fetch_add(1, Ordering::AcqRel);
        gate.waiting_tokens.fetch_add(u64::from(prompt_tokens), Ordering::AcqRel);
        Self { gate, prompt_tokens, waiting: true }
    }

    /// The request's first step has begun: it waits no longer.
    pub fn started(&mut self) {
        if std::mem::take(&mut self.waiting) {
            self.gate.waiting_requests.fetch_sub(1, Ordering::AcqRel);
            self.gate.waiting_tokens.fetch_sub(u64::from(self.prompt_tokens), Ordering::AcqRel);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.started();
        self.gate.open_requests.fetch_sub(1, Ordering::AcqRel);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Time until `amount` has left at `rate` a second, between a tenth of a second and a minute: SDKs
/// give up at once on more than two minutes, and a rate measured over a lull would say so.
fn retry_after_ms(amount: f64, rate: f64) -> u64 {
    let seconds = if rate > 0.0 { amount / rate } else { 1.0 };
    (seconds.clamp(0.1, 60.0) * 1000.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(requests_max: u32, tokens_max: u64) -> Arc<Gate> {
        let limits = QueueLimits { requests_max, tokens_max, ..QueueLimits::default() };
        Arc::new(Gate::new(Keys::new(&[]), limits))
    }

    fn busy() -> Load {
        Load { alive: true, requests_per_s: 4.0, prefill_tokens_per_s: 100.0, ..Load::default() }
    }

    fn demand(prompt_tokens: u32) -> Demand {
        Demand { prompt_tokens, output_tokens_max: 1 }
    }

    #[test]
    fn the_queue_is_bounded_and_a_started_request_leaves_it() {
        let (gate, load) = (gate(2, 1000), busy());
        let mut first = gate.admit(demand(1), &load, Time(0)).expect("there is room");
        let second = gate.admit(demand(1), &load, Time(0)).expect("there is room");
        let refusal = gate.admit(demand(1), &load, Time(0)).expect_err("two wait");
        assert_eq!(refusal, Refusal::QueueFull { waiting: 2, limit: 2, retry_after_ms: 250 });
        assert!(gate.precheck(&load, Time(0)).is_err());
        first.started();
        first.started();
        gate.admit(demand(1), &load, Time(0)).expect("one has started");
        drop((first, second));
        assert_eq!((gate.open_requests(), gate.waiting_requests()), (0, 0));
    }

    #[test]
    fn waiting_prompt_tokens_are_bounded_but_one_long_prompt_may_wait_alone() {
        let (gate, load) = (gate(10, 100), busy());
        let long = gate.admit(demand(500), &load, Time(0)).expect("it waits alone");
        let refusal = gate.admit(demand(1), &load, Time(0)).expect_err("no more tokens");
        assert!(matches!(refusal, Refusal::QueuedTokensFull { waiting_tokens: 500, .. }));
        assert_eq!(refusal.retry_after_ms(), Some(4010));
        drop(long);
        gate.admit(demand(100), &load, Time(0)).expect("it fits");
    }

    #[test]
    fn a_dead_stalled_or_draining_server_is_not_ready() {
        let gate = gate(1, 1);
        let dead = gate.ready(&Load::default(), Time(0)).expect_err("no thread");
        assert!(matches!(dead, Refusal::NotReady { .. }));
        let minute = Time(60_000_000_000);
        gate.ready(&busy(), minute).expect("an idle engine completes no steps");
        let pending = Load { step_began: Some(Time(0)), ..busy() };
        assert!(gate.ready(&pending, minute).is_err(), "a step does not end");
        let fresh = Load { step_began: Some(minute), ..busy() };
        gate.ready(&fresh, minute).expect("the first step after an idle minute has just begun");
        // A device with slow steps is given twenty of them before it counts as stalled.
        let slow = Load { step_s: 4.0, ..pending };
        gate.ready(&slow, minute).expect("twenty steps of 4 s have not passed");
        gate.drain();
        assert!(matches!(gate.ready(&busy(), minute), Err(Refusal::Draining { .. })));
    }

    #[test]
    fn keys_are_compared_whole_and_by_case() {
        let keys = Keys::new(&["Secret".to_owned(), "other".to_owned()]);
        assert_eq!(keys.identify(Some("Secret")).expect("known").name(), "default");
        assert!(keys.identify(Some("other")).is_ok());
        for wrong in ["secret", "Secre", "Secret ", "SecretSecret"] {
            assert_eq!(keys.identify(Some(wrong)), Err(Refusal::InvalidKey), "{wrong}");
        }
        for missing in [None, Some("")] {
            assert_eq!(keys.identify(missing), Err(Refusal::MissingKey));
        }
        assert!(Keys::new(&[]).identify(Some("anything")).is_ok());
    }
}
