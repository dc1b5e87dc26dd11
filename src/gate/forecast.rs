//! How long a request would wait.

use std::time::Duration;

use super::refusal::Refusal;
use super::tenant::Tenant;
use crate::clock::Time;
use crate::engine::Load;

#[derive(Debug)]
pub(super) struct Forecast {
    tenants: Vec<TenantWork>,
    /// Tenants with waiting requests.
    waiting: Vec<u32>,
    theta: f64,
    /// Virtual time of the tenant that was served last.
    virtual_now: f64,
    /// Prompt tokens of requests that have started and have no first token.
    prefilling: f64,
    busy_since: Option<Time>,
}

/// One tenant's admitted work.
#[derive(Clone, Debug, Default)]
struct TenantWork {
    /// Virtual time: what it was served, by its weight.
    served: f64,
    weight: f64,
    tokens: f64,
    requests: u32,
    /// Where it stands in `waiting`.
    place: usize,
    /// Prompt tokens started a second, while it had waiting ones.
    rate: f64,
    rated_at: Time,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    tenant: u32,
    tokens: u32,
    limit: Option<Time>,
}

impl Default for Forecast {
    fn default() -> Self {
        Self {
            tenants: Vec::new(),
            waiting: Vec::new(),
            theta: 0.8,
            virtual_now: 0.0,
            prefilling: 0.0,
            busy_since: None,
        }
    }
}

impl Forecast {
    pub fn judge(
        &self,
        tenant: &Tenant,
        load: &Load,
        now: Time,
    ) -> Result<Option<Duration>, Refusal> {
        let Some(ttft) = tenant.settings.ttft else { return Ok(None) };
        let rate = load.prefill_tokens_per_s.max(1.0);
        let ahead = self.ahead(tenant.id.index());
        let mut wait = ahead / rate;
        if let Some(own) = self.tenants.get(tenant.id.index())
            && own.tokens > 0.0
            && own.rate > 0.0
        {
            wait = wait.max(own.tokens / own.rate.min(rate));
        }
        let standing = self.busy_since.is_some_and(|since| now.since(since) > ttft * 2);
        let limit = self.theta * ttft.as_secs_f64() * if standing { 0.6 } else { 1.0 };
        if wait > limit {
            let retry = ((wait - limit).clamp(0.1, 60.0) * 1000.0) as u64;
            return Err(Refusal::PredictedLate {
                predicted_ms: (wait * 1e3) as u64,
                objective_ms: ttft.as_millis() as u64,
                retry_after_ms: retry,
            });
        }
        Ok(Some(Duration::from_secs_f64(wait)))
    }

    /// Prompt tokens that go before a new request of a tenant.
    fn ahead(&self, tenant: usize) -> f64 {
        let own = self.tenants.get(tenant);
        let start = own.map_or(0.0, |own| own.served + own.tokens / own.weight.max(1.0));
        let lowest = self
            .waiting
            .iter()
            .map(|i| self.tenants[*i as usize].served)
            .fold(f64::INFINITY, f64::min);
        let start = if lowest.is_finite() { start.max(lowest) } else { start };
        let mut ahead = self.prefilling;
        for index in &self.waiting {
            let other = &self.tenants[*index as usize];
            if other.served <= start {
                let mean = other.tokens / f64::from(other.requests);
                ahead += other.tokens.min((start - other.served) * other.weight + mean);
            }
        }
        ahead
    }

    pub fn enter(&mut self, tenant: &Tenant, tokens: u32, now: Time) -> Ticket {
        let index = tenant.id.index();
        if self.tenants.len() <= index {
            self.tenants.resize(index + 1, TenantWork::default());
        }
        if self.waiting.is_empty() {
            self.busy_since = Some(now);
        }
        let floor = self.virtual_now;
        let work = &mut self.tenants[index];
        work.weight = f64::from(tenant.settings.weight);
        if work.requests == 0 {
            work.place = self.waiting.len();
            self.waiting.push(index as u32);
            work.served = work.served.max(floor);
            work.rated_at = now;
        }
        work.requests += 1;
        work.tokens += f64::from(tokens);
        let per_1k = tenant.settings.ttft_per_1k_tokens.unwrap_or_default();
        let limit = tenant
            .settings
            .ttft
            .map(|ttft| now.plus(ttft + per_1k.mul_f64(f64::from(tokens) / 1e3)));
        Ticket { tenant: index as u32, tokens, limit }
    }

    pub fn started(&mut self, ticket: &Ticket, now: Time) {
        let lowest = self
            .waiting
            .iter()
            .map(|i| self.tenants[*i as usize].served)
            .fold(f64::INFINITY, f64::min);
        self.virtual_now = self.virtual_now.max(lowest);
        let work = &mut self.tenants[ticket.tenant as usize];
        let tokens = f64::from(ticket.tokens);
        work.served += tokens / work.weight;
        let dt = now.since(work.rated_at).as_secs_f64().max(1e-3);
        let fresh = tokens / dt;
        let k = 1.0 - (-dt / 1.0).exp();
        work.rate = if work.rate == 0.0 { fresh } else { work.rate + (fresh - work.rate) * k };
        work.rated_at = now;
        self.prefilling += tokens;
        self.left(ticket);
    }

    pub fn left(&mut self, ticket: &Ticket) {
        let work = &mut self.tenants[ticket.tenant as usize];
        work.tokens -= f64::from(ticket.tokens);
        work.requests -= 1;
        if work.requests == 0 {
            work.tokens = 0.0;
            let place = work.place;
            self.waiting.swap_remove(place);
            if let Some(moved) = self.waiting.get(place) {
                self.tenants[*moved as usize].place = place;
            }
            if self.waiting.is_empty() {
                self.busy_since = None;
            }
        }
    }

    pub fn generated(&mut self, ticket: &Ticket) {
        let work = &mut self.tenants[ticket.tenant as usize];
        work.served += 2.0 / work.weight;
    }

    pub fn first_token(&mut self, ticket: &Ticket, now: Time) {
        self.prefilling -= f64::from(ticket.tokens);
        let Some(limit) = ticket.limit else { return };
        self.note(now > limit);
    }

    pub fn late(&mut self, _ticket: &Ticket, _now: Time) {
        self.note(true);
    }

    /// Additive increase, multiplicative decrease, balanced at 1.5 % of late ones.
    fn note(&mut self, late: bool) {
        if late {
            self.theta = (self.theta * 0.97).max(0.1);
        } else {
            self.theta = (self.theta + 0.0004).min(0.95);
        }
    }
}
