//! May this request enter, now? Keys, queue bounds, draining; knows neither HTTP nor the content
//! of tokens. Everything is a function of its arguments: load and time come from outside.

mod backlog;
pub mod budget;
pub mod calendar;
mod forecast;
mod keys;
pub mod ledger;
mod permit;
pub mod rate;
mod refusal;
mod roster;
mod scope;
mod tenant;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use keys::{
    Digest, KEY_BYTES_MAX, KEY_RANDOM_BYTES, KEYS_MAX, KeyError, KeyFile, KeyRecord, KeyState,
    KeyStore, LastUse, NewKey, Stamp,
};
pub use permit::{Permit, Used};
pub use refusal::Refusal;
pub use roster::{Roster, Rosters};
pub use scope::{Scope, Scopes};
pub use tenant::{Caller, Tenant};

use crate::clock::{Moment, Time};
use crate::config::{Class, LedgerLimits, QueueLimits};
use crate::engine::{Load, Promise};

use self::budget::WorstCase;
use self::forecast::Forecast;
use self::ledger::Ledger;
use self::permit::Taken;
use self::rate::{Need, RateStatus, TenantRates};

/// What one prompt of a request asks of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens of output at most, all choices together.
    pub output_tokens_max: u64,
}

/// On which terms a request wants to enter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// `service_tier: "flex"`: it waits without a promise and runs in the batch class.
    pub flex: bool,
    /// The caller's own deadline of the last token.
    pub deadline: Option<Time>,
}

/// An admitted request.
#[derive(Debug)]
pub struct Entry {
    /// One for each demand, in their order.
    pub permits: Vec<Permit>,
    /// The class that it runs in.
    pub class: Class,
    /// The predicted time to the first token of the last prompt.
    pub predicted_ttft: Duration,
    /// When its prompts have to start.
    pub promise: Option<Promise>,
}

/// Decides about entry. Shared by all connections.
#[derive(Debug)]
pub struct Gate {
    rosters: Rosters,
    limits: QueueLimits,
    draining: AtomicBool,
    core: Mutex<Core>,
    ledger: Arc<Ledger>,
}

/// What changes with each request; one lock, held for a few microseconds and over no IO.
#[derive(Debug, Default)]
struct Core {
    /// Requests that hold a permit.
    open_requests: u32,
    /// Of these, the ones whose first step has not begun, and their prompt tokens. Counted here
    /// and not read from the engine, whose snapshot lags behind a burst of arrivals.
    waiting_requests: u32,
    waiting_tokens: u64,
    forecast: Forecast,
    rates: TenantRates,
}

impl Demand {
    fn worst_case(&self) -> WorstCase {
        let Self { prompt_tokens, output_tokens_max } = *self;
        WorstCase { prompt_tokens, output_tokens: output_tokens_max }
    }
}

impl Gate {
    /// A gate for these tenants and bounds.
    pub fn new(rosters: Rosters, limits: QueueLimits) -> Self {
        Self {
            rosters,
            limits,
            draining: AtomicBool::new(false),
            core: Mutex::default(),
            ledger: Arc::new(Ledger::in_memory(LedgerLimits::default())),
        }
    }

    /// With this ledger instead of one that lives in memory alone.
    pub fn with_ledger(self, ledger: Arc<Ledger>) -> Self {
        Self { ledger, ..self }
    }

    /// Token budgets and usage.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// The states of a tenant's requests and tokens a minute, where it has such limits.
    pub fn rates(&self, tenant: &Tenant, now: Time) -> (Option<RateStatus>, Option<RateStatus>) {
        self.core().rates.status(tenant.id, &tenant.settings, now)
    }

    /// A tenant's prompts that wait or run, and of these the ones that wait.
    pub fn open_prompts(&self, tenant: &Tenant) -> (u32, u32) {
        self.core().rates.open(tenant.id)
    }

    /// Tenants and keys.
    pub fn rosters(&self) -> &Rosters {
        &self.rosters
    }

    /// The caller behind a request's bearer token, if its key may be used for `scope` now.
    ///
    /// # Errors
    /// Those of [`Roster::identify`], and [`Refusal::MissingScope`].
    pub fn identify(
        &self,
        bearer: Option<&str>,
        scope: Scope,
        unix_s: u64,
    ) -> Result<Caller, Refusal> {
        let caller = self.rosters.identify(bearer, unix_s)?;
        if caller.scopes.has(scope) { Ok(caller) } else { Err(Refusal::MissingScope { scope }) }
    }

    /// Whether the server would take a request of any size now; asked before a body is parsed or
    /// a prompt tokenised, so that refusing is cheap.
    ///
    /// # Errors
    /// The [`Refusal`] that every request of this tenant would get.
    pub fn precheck(&self, tenant: &Tenant, load: &Load, now: Moment) -> Result<(), Refusal> {
        self.ready(load, now.at)?;
        self.ledger.check_room(&tenant.settings, now.unix_s)?;
        let core = self.core();
        let rates = core.rates.check(tenant.id, &tenant.settings, Need::LEAST, now.at);
        rates.map_err(Refusal::Rate)?;
        self.check_queue(&core, load, 0)?;
        Ok(())
    }

    /// Whether a request on these terms would be in time, whatever its length; asked before a
    /// prompt is tokenised.
    ///
    /// # Errors
    /// [`Refusal::PredictedLate`].
    pub fn foresee(
        &self,
        tenant: &Tenant,
        terms: Terms,
        load: &Load,
        now: Moment,
    ) -> Result<(), Refusal> {
        self.core().forecast.judge(tenant, terms, 0, load, now.at)?;
        Ok(())
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
        if load.canary_failed {
            return Err(Refusal::NotReady { reason: "its canary failed", retry_after_ms });
        }
        if load.unsound_until.is_some_and(|until| now < until) {
            let reason = "the device computes values that are not numbers";
            return Err(Refusal::NotReady { reason, retry_after_ms });
        }
        Ok(())
    }

    /// Admits a request, all of its prompts or none, or says why not.
    ///
    /// # Errors
    /// The [`Refusal`].
    pub fn admit(
        self: &Arc<Self>,
        tenant: &Arc<Tenant>,
        demands: &[Demand],
        terms: Terms,
        load: &Load,
        now: Moment,
    ) -> Result<Entry, Refusal> {
        self.ready(load, now.at)?;
        let settings = &tenant.settings;
        let worst_cases: Vec<WorstCase> = demands.iter().map(Demand::worst_case).collect();
        let need = Need {
            prompts: u32::try_from(demands.len()).unwrap_or(u32::MAX),
            tokens: worst_cases.iter().fold(0, |sum, worst| sum.saturating_add(worst.tokens())),
        };
        let mut core = self.core();
        core.rates.check(tenant.id, settings, need, now.at).map_err(Refusal::Rate)?;
        let tokens = demands.iter().map(|demand| u64::from(demand.prompt_tokens)).sum();
        self.check_queue(&core, load, tokens)?;
        let outlook = core.forecast.judge(tenant, terms, tokens, load, now.at)?;
        // The last thing that can refuse, and all or nothing: from here on the request is in.
        let holds = self.ledger.hold(settings, &worst_cases, now.unix_s)?;
        core.rates.take(tenant.id, settings, need, now.at);
        let mut permits = Vec::with_capacity(demands.len());
        for ((demand, worst_case), hold) in demands.iter().zip(worst_cases).zip(holds) {
            core.open_requests += 1;
            core.waiting_requests += 1;
            core.waiting_tokens += u64::from(demand.prompt_tokens);
            let ticket = core.forecast.enter(tenant, terms, *demand, load, now.at);
            let rate_tokens = settings.tokens_per_min.map_or(0, |_| worst_case.tokens());
            let taken = Taken { tenant: tenant.id, hold, rate_tokens };
            permits.push(Permit::new(Arc::clone(self), demand.prompt_tokens, ticket, taken));
        }
        Ok(Entry {
            permits,
            class: forecast::class_of(tenant, terms),
            predicted_ttft: outlook.ttft(),
            promise: forecast::promise(tenant, terms, outlook, tokens, now.at),
        })
    }

    /// Refuses everything from now on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether [`Gate::drain`] was called.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// For each class, by name, the part of a latency objective that is promised now.
    pub fn promise_margins(&self) -> [(&'static str, f64); 3] {
        self.core().forecast.margins()
    }

    /// Requests that were admitted and have not been answered in full.
    pub fn open_requests(&self) -> u32 {
        self.core().open_requests
    }

    /// Requests that were admitted and whose first step has not begun.
    pub fn waiting_requests(&self) -> u32 {
        self.core().waiting_requests
    }

    /// A panic while it was held is a bug that left no counter half changed.
    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses when more would wait than may.
    fn check_queue(&self, core: &Core, load: &Load, tokens: u64) -> Result<(), Refusal> {
        let waiting = core.waiting_requests;
        if waiting >= self.limits.requests_max {
            let limit = self.limits.requests_max;
            let retry_after_ms = retry_after_ms(1.0, load.requests_per_s);
            return Err(Refusal::QueueFull { waiting, limit, retry_after_ms });
        }
        let (waiting_tokens, limit) = (core.waiting_tokens, self.limits.tokens_max);
        // A prompt alone in the queue may be larger than the bound; otherwise it could never run.
        if waiting > 0 && waiting_tokens + tokens > limit {
            let excess = (waiting_tokens + tokens - limit) as f64;
            let retry_after_ms = retry_after_ms(excess, load.prefill_tokens_per_s);
            return Err(Refusal::QueuedTokensFull { waiting_tokens, limit, retry_after_ms });
        }
        Ok(())
    }

    fn stalled(&self, load: &Load, now: Time) -> bool {
        let patience = load.overdue_after(self.limits.stall_after);
        load.step_began.is_some_and(|began| now.since(began) > patience)
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
    use crate::config::Tenancy;

    fn gate(requests_max: u32, tokens_max: u64) -> Arc<Gate> {
        let limits = QueueLimits { requests_max, tokens_max, ..QueueLimits::default() };
        Arc::new(Gate::new(Rosters::new(&Tenancy::default(), &[], None), limits))
    }

    fn busy() -> Load {
        Load { alive: true, requests_per_s: 4.0, prefill_tokens_per_s: 100.0, ..Load::default() }
    }

    fn moment(at: Time) -> Moment {
        Moment { at, unix_s: 0 }
    }

    fn admit(gate: &Arc<Gate>, prompt_tokens: u32, load: &Load) -> Result<Permit, Refusal> {
        let caller = gate.identify(None, Scope::Inference, 0)?;
        let demand = Demand { prompt_tokens, output_tokens_max: 1 };
        let now = moment(Time(0));
        let entry = gate.admit(&caller.tenant, &[demand], Terms::default(), load, now)?;
        Ok(entry.permits.into_iter().next().expect("one for the demand"))
    }

    #[test]
    fn the_queue_is_bounded_and_a_started_request_leaves_it() {
        let (gate, load) = (gate(2, 1000), busy());
        let mut first = admit(&gate, 1, &load).expect("there is room");
        let second = admit(&gate, 1, &load).expect("there is room");
        let refusal = admit(&gate, 1, &load).expect_err("two wait");
        assert_eq!(refusal, Refusal::QueueFull { waiting: 2, limit: 2, retry_after_ms: 250 });
        let tenant = gate.identify(None, Scope::Inference, 0).expect("no keys").tenant;
        assert!(gate.precheck(&tenant, &load, moment(Time(0))).is_err());
        first.started(0, Time(0));
        first.started(0, Time(0));
        admit(&gate, 1, &load).expect("one has started");
        drop((first, second));
        assert_eq!((gate.open_requests(), gate.waiting_requests()), (0, 0));
    }

    #[test]
    fn waiting_prompt_tokens_are_bounded_but_one_long_prompt_may_wait_alone() {
        let (gate, load) = (gate(10, 100), busy());
        let long = admit(&gate, 500, &load).expect("it waits alone");
        let refusal = admit(&gate, 1, &load).expect_err("no more tokens");
        assert!(matches!(refusal, Refusal::QueuedTokensFull { waiting_tokens: 500, .. }));
        assert_eq!(refusal.retry_after_ms(), Some(4010));
        drop(long);
        admit(&gate, 100, &load).expect("it fits");
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
}
