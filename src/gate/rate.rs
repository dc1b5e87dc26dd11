//! Rates of one tenant: requests and tokens a minute, and how many requests at once.
//!
//! A rate is a bucket of one minute's worth that empties evenly, which is the generic cell rate
//! algorithm (ITU-T I.371, continuous-state form): a quiet tenant may send a minute's worth at
//! once, after which its rate holds. Amounts are integers in units of 1/60,000,000,000 of a request
//! or token, so that nothing is ever rounded: a limit of n a minute empties n units a nanosecond.

use std::collections::HashMap;
use std::time::Duration;

use thiserror::Error;

use crate::clock::Time;
use crate::config::TenantSettings;
use crate::ids::TenantId;

/// Units of one request or token.
const UNITS: u128 = 60_000_000_000;
/// States of idle tenants are forgotten when there are more than this.
const IDLE_TENANTS_MAX: usize = 16_384;

/// What a limit of the rates counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Requests.
    Requests,
    /// Prompt and output tokens.
    Tokens,
}

/// Why a tenant's request may not enter now: its own rates.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RateExceeded {
    /// Too many a minute; there is room in time.
    #[error(
        "Rate limit reached for {}: limit {limit} per minute, {used} used, {asked} requested; \
         retry in {} ms", .unit.name(), .retry_after_ms
    )]
    PerMinute {
        /// Of what.
        unit: Unit,
        /// The limit.
        limit: u64,
        /// Used of it, rounded up.
        used: u64,
        /// What the request needs.
        asked: u64,
        /// When there is room for it, exactly.
        retry_after_ms: u64,
    },
    /// More than a minute's worth at once.
    #[error(
        "this request may need {asked} tokens (its prompt and max_tokens of every choice), more \
         than its limit of {limit} per minute; lower max_tokens or shorten the prompt"
    )]
    TooLarge {
        /// The limit.
        limit: u64,
        /// What the request needs.
        asked: u64,
    },
    /// Too many at once.
    #[error(
        "{open} of your requests wait or run, at most {limit} may at once; retry when one ends"
    )]
    Concurrency {
        /// How many do.
        open: u32,
        /// How many may.
        limit: u32,
    },
    /// Too many that wait.
    #[error("{waiting} of your requests wait, at most {limit} may; retry when one has started")]
    Queue {
        /// How many do.
        waiting: u32,
        /// How many may.
        limit: u32,
    },
}

/// What a request needs of its tenant's rates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// Prompts, each of which waits and runs by itself; as a request they count once.
    pub prompts: u32,
    /// Prompt tokens and output at most of all of them.
    pub tokens: u64,
}

/// A limit's state, as the `x-ratelimit-*` headers tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateStatus {
    /// Of a minute.
    pub limit: u64,
    /// What may still come at once.
    pub remaining: u64,
    /// Until all of `limit` may come at once again.
    pub reset: Duration,
}

/// A bucket that empties evenly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// Units in it at `at`.
    filled: u128,
    at: Time,
}

/// One tenant's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rates {
    requests: Bucket,
    tokens: Bucket,
    /// Prompts that wait or run.
    open: u32,
    /// Of these, the ones that wait.
    waiting: u32,
}

/// All tenants' states.
#[derive(Clone, Debug, Default)]
pub struct TenantRates {
    tenants: HashMap<TenantId, Rates>,
}

impl Need {
    /// The least that a request needs.
    pub const LEAST: Need = Need { prompts: 1, tokens: 1 };
}

impl Unit {
    /// As clients know it: the `type` of OpenAI's rate limit errors.
    pub fn name(self) -> &'static str {
        match self {
            Unit::Requests => "requests",
            Unit::Tokens => "tokens",
        }
    }
}

impl RateExceeded {
    /// What the limit counts.
    pub fn unit(&self) -> Unit {
        match self {
            RateExceeded::PerMinute { unit, .. } => *unit,
            RateExceeded::TooLarge { .. } => Unit::Tokens,
            RateExceeded::Concurrency { .. } | RateExceeded::Queue { .. } => Unit::Requests,
        }
    }
}

impl Bucket {
    /// Whether `amount` fits under `limit` a minute.
    ///
    /// # Errors
    /// How long until it does; `None`: it never will.
    pub fn room(&self, limit: u64, amount: u64, now: Time) -> Result<(), Option<Duration>> {
        let (capacity, added) = (units(limit), units(amount));
        if added > capacity {
            return Err(None);
        }
        let excess = (self.filled_at(limit, now) + added).saturating_sub(capacity);
        if excess == 0 { Ok(()) } else { Err(Some(time_to_empty(excess, limit))) }
    }

    /// Adds `amount`.
    pub fn add(&mut self, limit: u64, amount: u64, now: Time) {
        self.settle(limit, now);
        self.filled += units(amount);
    }

    /// Gives back `amount` of what was added: a request used less than it might have. What has
    /// been emptied since does not matter: max(0, max(0, f - e) - a) = max(0, max(0, f - a) - e).
    pub fn give_back(&mut self, amount: u64) {
        self.filled = self.filled.saturating_sub(units(amount));
    }

    /// Its state at `now`.
    pub fn status(&self, limit: u64, now: Time) -> RateStatus {
        let filled = self.filled_at(limit, now);
        let remaining = units(limit).saturating_sub(filled) / UNITS;
        RateStatus { limit, remaining: remaining as u64, reset: time_to_empty(filled, limit) }
    }

    fn filled_at(&self, limit: u64, now: Time) -> u128 {
        let elapsed_ns = u128::from(now.0.saturating_sub(self.at.0));
        // After a lower limit came with a reload, more than a minute's worth may be in it: it
        // counts as full.
        self.filled.min(units(limit)).saturating_sub(elapsed_ns * u128::from(limit))
    }

    fn settle(&mut self, limit: u64, now: Time) {
        self.filled = self.filled_at(limit, now);
        self.at = self.at.max(now);
    }
}

impl TenantRates {
    /// Whether a request could enter now.
    ///
    /// # Errors
    /// [`RateExceeded`].
    pub fn check(
        &self,
        tenant: TenantId,
        settings: &TenantSettings,
        need: Need,
        now: Time,
    ) -> Result<(), RateExceeded> {
        let rates = self.tenants.get(&tenant).copied().unwrap_or_default();
        rates.check(settings, need, now)
    }

    /// Takes what a request needs, after [`TenantRates::check`] found room for it.
    pub fn take(&mut self, tenant: TenantId, settings: &TenantSettings, need: Need, now: Time) {
        self.forget_idle(now);
        let rates = self.tenants.entry(tenant).or_default();
        if let Some(limit) = settings.requests_per_min {
            rates.requests.add(u64::from(limit), 1, now);
        }
        if let Some(limit) = settings.tokens_per_min {
            rates.tokens.add(limit, need.tokens, now);
        }
        rates.open += need.prompts;
        rates.waiting += need.prompts;
    }

    /// A prompt has begun to run.
    pub fn started(&mut self, tenant: TenantId) {
        if let Some(rates) = self.tenants.get_mut(&tenant) {
            rates.waiting = rates.waiting.saturating_sub(1);
        }
    }

    /// A prompt has ended; `unused_tokens` of what it took are given back.
    pub fn ended(&mut self, tenant: TenantId, was_waiting: bool, unused_tokens: u64) {
        let Some(rates) = self.tenants.get_mut(&tenant) else { return };
        rates.tokens.give_back(unused_tokens);
        rates.open = rates.open.saturating_sub(1);
        rates.waiting = rates.waiting.saturating_sub(u32::from(was_waiting));
    }

    /// The states of a tenant's limits of requests and of tokens, where it has them.
    pub fn status(
        &self,
        tenant: TenantId,
        settings: &TenantSettings,
        now: Time,
    ) -> (Option<RateStatus>, Option<RateStatus>) {
        let rates = self.tenants.get(&tenant).copied().unwrap_or_default();
        let requests = settings.requests_per_min;
        (
            requests.map(|limit| rates.requests.status(u64::from(limit), now)),
            settings.tokens_per_min.map(|limit| rates.tokens.status(limit, now)),
        )
    }

    /// A tenant's prompts that wait or run, and of these the ones that wait.
    pub fn open(&self, tenant: TenantId) -> (u32, u32) {
        self.tenants.get(&tenant).map_or((0, 0), |rates| (rates.open, rates.waiting))
    }

    /// A state that is as good as none may be forgotten: nothing is open, and what its buckets
    /// have taken is more than a minute old, in which any limit empties them.
    fn forget_idle(&mut self, now: Time) {
        if self.tenants.len() > IDLE_TENANTS_MAX {
            let minute = Duration::from_secs(60);
            self.tenants.retain(|_, rates| {
                let newest = rates.requests.at.max(rates.tokens.at);
                rates.open > 0 || now.since(newest) < minute
            });
        }
    }
}

impl Rates {
    fn check(&self, settings: &TenantSettings, need: Need, now: Time) -> Result<(), RateExceeded> {
        if let Some(limit) = settings.concurrent_requests_max
            && self.open.saturating_add(need.prompts) > limit
        {
            return Err(RateExceeded::Concurrency { open: self.open, limit });
        }
        if let Some(limit) = settings.queued_requests_max
            && self.waiting.saturating_add(need.prompts) > limit
        {
            return Err(RateExceeded::Queue { waiting: self.waiting, limit });
        }
        let requests = settings.requests_per_min.map(u64::from);
        check_bucket(&self.requests, Unit::Requests, requests, 1, now)?;
        check_bucket(&self.tokens, Unit::Tokens, settings.tokens_per_min, need.tokens, now)
    }
}

fn check_bucket(
    bucket: &Bucket,
    unit: Unit,
    limit: Option<u64>,
    asked: u64,
    now: Time,
) -> Result<(), RateExceeded> {
    let Some(limit) = limit else { return Ok(()) };
    match bucket.room(limit, asked, now) {
        Ok(()) => Ok(()),
        Err(None) => Err(RateExceeded::TooLarge { limit, asked }),
        Err(Some(wait)) => {
            let used = bucket.filled_at(limit, now).div_ceil(UNITS) as u64;
            let retry_after_ms = wait.as_nanos().div_ceil(1_000_000) as u64;
            Err(RateExceeded::PerMinute { unit, limit, used, asked, retry_after_ms })
        }
    }
}

fn units(amount: u64) -> u128 {
    u128::from(amount) * UNITS
}

/// A limit of 0 never empties: it is taken for the smallest one.
fn time_to_empty(filled: u128, limit: u64) -> Duration {
    let ns = filled.div_ceil(u128::from(limit.max(1)));
    Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
