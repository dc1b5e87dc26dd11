//! How long a request would wait for its first step, and whether that keeps its tenant's promise.
//!
//! The wait is the greatest of what the work ahead needs: time to compute its prompts, KV blocks,
//! slots, and the pace at which waiting requests started of late. Three things keep the promise
//! without favouring short prompts (`src/ARCHITECTURE.md`, "The latency promise"):
//!
//! - A request's own length does not count, so that all sizes meet the same door.
//! - What is ahead is what the engine will start earlier, and a tenant with waiting requests is
//!   judged by the pace that others left it, since whoever was served less goes before it.
//! - The part of the objective that may be promised falls with each admitted request that was late
//!   after all, and rises slowly with those that were not (AIMD).

use std::time::Duration;

use super::backlog::{Backlog, LineId, Work};
use super::refusal::Refusal;
use super::tenant::Tenant;
use super::{Demand, Terms};
use crate::clock::Time;
use crate::config::Class;
use crate::engine::{Load, Promise, StepShape};

/// Part of the objective after which an admitted request that still waits goes first.
const URGENT_FROM: f64 = 0.75;
/// Part of the objective at most by which a start is promised earlier.
const EXCESS_MAX: f64 = 0.25;
/// Part of the objective that may be promised: where it starts, and its bounds.
const MARGIN_START: f64 = 0.8;
const MARGIN_MIN: f64 = 0.1;
const MARGIN_MAX: f64 = 0.95;
/// A late request lowers the margin by this factor, one in time raises it by `MARGIN_STEP`: in
/// balance at one late of about 75.
const MARGIN_FACTOR: f64 = 0.97;
const MARGIN_STEP: f64 = 0.0004;
/// A queue that was not empty for two objectives is no burst. Its length then only costs time, so
/// less of it is allowed (after Facebook's variant of CoDel, "Fail at Scale") to those who made it.
const STANDING_OBJECTIVES: u32 = 2;
const STANDING_SHARE: f64 = 0.4;
/// What is waited for goes on being used meanwhile; no less than this part of the rate at which
/// blocks come back is counted on.
const RELEASE_SHARE_MIN: f64 = 0.25;
/// A refused request is told to stay away this long at least and at most.
const RETRY_MIN_S: f64 = 0.1;
const RETRY_MAX_S: f64 = 60.0;

/// See the module.
#[derive(Debug)]
pub(super) struct Forecast {
    backlog: Backlog,
    /// For each class, the part of an objective that may be promised.
    margins: [f64; 3],
}

/// A request's wait, if it can be known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outlook {
    /// Until its first step.
    pub wait: Duration,
    /// Of its prompt, to the end of the step that ends it.
    pub prefill: Duration,
    /// Of a step.
    pub step: Duration,
}

/// An admitted prompt, as the forecast knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    line: LineId,
    class: Class,
    work: Work,
    /// Prices when it came.
    prefill_token_us: f64,
    decode_us: f64,
    /// Its first token is late after this.
    first_token_by: Option<Time>,
}

impl Default for Forecast {
    fn default() -> Self {
        Self { backlog: Backlog::default(), margins: [MARGIN_START; 3] }
    }
}

impl Forecast {
    /// What a request of `prompt_tokens` would meet, or the refusal if its tenant's objective or
    /// its own deadline would not be kept.
    ///
    /// # Errors
    /// [`Refusal::PredictedLate`].
    pub fn judge(
        &self,
        tenant: &Tenant,
        terms: Terms,
        prompt_tokens: u64,
        load: &Load,
        now: Time,
    ) -> Result<Outlook, Refusal> {
        let class = class_of(tenant, terms);
        let line = LineId::new(tenant.id, class);
        let ahead = self.backlog.ahead(line);
        let rate = prefill_tokens_per_s(load);
        let waits = [
            (ahead.tokens + load.prefilling_tokens as f64) / rate,
            blocks_wait_s(ahead, load),
            slots_wait_s(ahead, load),
            self.backlog.drain_s(ahead.tokens),
            self.backlog.own_drain_s(line),
        ];
        let wait_s = waits.into_iter().fold(0.0, f64::max).min(1e6);
        let prefill_s = prompt_tokens as f64 / rate + load.step_s;
        let outlook = Outlook {
            wait: Duration::from_secs_f64(wait_s),
            prefill: Duration::from_secs_f64(prefill_s.min(1e6)),
            step: Duration::from_secs_f64(load.step_s.clamp(0.0, 1e6)),
        };
        if let Some(ttft) = tenant.settings.ttft.filter(|_| !terms.flex) {
            let allowed_s = self.margin(line, class, ttft, now) * ttft.as_secs_f64();
            if wait_s > allowed_s {
                return Err(late(outlook, ttft, wait_s - allowed_s));
            }
        }
        if let Some(deadline) = terms.deadline {
            let left = deadline.since(now);
            if outlook.ttft() > left {
                return Err(late(outlook, left, (outlook.ttft() - left).as_secs_f64()));
            }
        }
        Ok(outlook)
    }

    /// Counts an admitted prompt.
    pub fn enter(
        &mut self,
        tenant: &Tenant,
        terms: Terms,
        demand: Demand,
        load: &Load,
        now: Time,
    ) -> Ticket {
        let class = class_of(tenant, terms);
        let line = LineId::new(tenant.id, class);
        let tokens = f64::from(demand.prompt_tokens);
        let output = self.backlog.output_tokens(line).min(demand.output_tokens_max as f64);
        let prefill_us = load.cost.prefill_us(demand.prompt_tokens.max(2), 0);
        let decode_us = load.cost.decode_us(demand.prompt_tokens);
        let work = Work { tokens, requests: 1.0, cost_us: prefill_us + output * decode_us };
        self.backlog.enter(line, tenant.settings.weight, work, now);
        let settings = &tenant.settings;
        let own = match settings.ttft_per_1k_tokens {
            Some(per_1k) => per_1k.mul_f64(tokens / 1000.0),
            None => Duration::from_secs_f64((tokens / prefill_tokens_per_s(load)).min(1e6)),
        };
        let first_token_by =
            settings.ttft.filter(|_| !terms.flex).map(|ttft| now.plus(ttft).plus(own));
        let prefill_token_us = prefill_us / tokens.max(1.0);
        Ticket { line, class, work, prefill_token_us, decode_us, first_token_by }
    }

    /// An admitted prompt has started.
    pub fn started(&mut self, ticket: &Ticket, cached_tokens: u32, now: Time) {
        let computed = (ticket.work.tokens - f64::from(cached_tokens)).max(0.0);
        let cost_us = computed * ticket.prefill_token_us;
        self.backlog.start(ticket.line, ticket.work, cost_us, now);
    }

    /// An admitted prompt is gone before it started.
    pub fn left(&mut self, ticket: &Ticket) {
        self.backlog.leave(ticket.line, ticket.work);
    }

    /// Tokens were generated.
    pub fn generated(&mut self, ticket: &Ticket, tokens: u32) {
        self.backlog.charge(ticket.line, f64::from(tokens) * ticket.decode_us);
    }

    /// The first token has come.
    pub fn first_token(&mut self, ticket: &Ticket, now: Time) {
        if let Some(by) = ticket.first_token_by {
            self.learn(ticket.class, now > by);
        }
    }

    /// A promise was not kept.
    pub fn late(&mut self, ticket: &Ticket) {
        self.learn(ticket.class, true);
    }

    /// An answer has ended after so many tokens.
    pub fn ended(&mut self, ticket: &Ticket, output_tokens: u32) {
        self.backlog.note_output(ticket.line, output_tokens);
    }

    /// For each class, the part of an objective that may be promised now.
    pub fn margins(&self) -> [(&'static str, f64); 3] {
        let classes = [Class::Interactive, Class::Standard, Class::Batch];
        classes.map(|class| (class.name(), self.margins[class as usize]))
    }

    fn margin(&self, line: LineId, class: Class, ttft: Duration, now: Time) -> f64 {
        let stands = |since| {
            now.since(since) > ttft * STANDING_OBJECTIVES && !self.backlog.is_within_share(line)
        };
        let share =
            if self.backlog.occupied_since().is_some_and(stands) { STANDING_SHARE } else { 1.0 };
        self.margins[class as usize] * share
    }

    fn learn(&mut self, class: Class, late: bool) {
        let margin = &mut self.margins[class as usize];
        *margin = if late { *margin * MARGIN_FACTOR } else { *margin + MARGIN_STEP };
        *margin = margin.clamp(MARGIN_MIN, MARGIN_MAX);
    }
}

impl Outlook {
    /// Time to the first token.
    pub fn ttft(&self) -> Duration {
        self.wait + self.prefill
    }
}

/// The class that a request runs in.
pub(super) fn class_of(tenant: &Tenant, terms: Terms) -> Class {
    if terms.flex { Class::Batch } else { tenant.settings.class }
}

/// What a tenant's objective promises to a request that comes now: a start so early that the first
/// token is in time, whose prompt may take longer than the objective allows it for itself.
pub(super) fn promise(
    tenant: &Tenant,
    terms: Terms,
    outlook: Outlook,
    prompt_tokens: u64,
    now: Time,
) -> Option<Promise> {
    let settings = &tenant.settings;
    let ttft = settings.ttft.filter(|_| !terms.flex)?;
    let own = match settings.ttft_per_1k_tokens {
        Some(per_1k) => per_1k.mul_f64(prompt_tokens as f64 / 1000.0),
        None => outlook.prefill.saturating_sub(outlook.step),
    };
    let excess = outlook.prefill.saturating_sub(own).min(ttft.mul_f64(EXCESS_MAX));
    let start_in = ttft - excess;
    let urgent_from = now.plus(start_in.mul_f64(URGENT_FROM));
    Some(Promise { urgent_from, start_by: now.plus(start_in) })
}

fn late(outlook: Outlook, objective: Duration, excess_s: f64) -> Refusal {
    Refusal::PredictedLate {
        predicted_ms: super::millis(outlook.ttft()),
        objective_ms: super::millis(objective),
        retry_after_ms: (excess_s.clamp(RETRY_MIN_S, RETRY_MAX_S) * 1000.0) as u64,
    }
}

/// Prompt tokens that are computed each second beside what decodes now.
fn prefill_tokens_per_s(load: &Load) -> f64 {
    let decodes = StepShape {
        decode_sequences: load.decoding,
        decode_context_tokens: load.decoding_context_tokens,
        ..StepShape::default()
    };
    let most = load.step_rows_max.saturating_sub(load.decoding).max(1);
    let wanted = load.step_budget.and_then(|budget| load.cost.rows_for(budget, &decodes, 0));
    if !load.cost.is_warm() {
        // Nothing is known before the first prompts were computed, and nobody is refused for it.
        let seen = load.prefill_tokens_per_s;
        return if seen > 0.0 { seen } else { f64::INFINITY };
    }
    let rows = wanted.unwrap_or(most).clamp(1, most);
    let step = StepShape { prefill_rows: rows, ..decodes };
    f64::from(rows) / load.cost.predict(&step).as_secs_f64().max(1e-9)
}

/// Seconds until there are KV blocks for the prompts ahead.
fn blocks_wait_s(ahead: Work, load: &Load) -> f64 {
    let size = f64::from(load.block_size_tokens.max(1));
    let wanted = ahead.tokens / size + ahead.requests;
    let lacking = wanted - f64::from(load.blocks_available);
    if lacking <= 0.0 || load.blocks_released_per_s <= 0.0 {
        return 0.0;
    }
    // Decodes take a block each time they have filled one.
    let taken_per_s = f64::from(load.decoding) / size / load.step_s.max(1e-6);
    let released_per_s = load.blocks_released_per_s;
    lacking / (released_per_s - taken_per_s).max(released_per_s * RELEASE_SHARE_MIN)
}

/// Seconds until there are slots for the requests ahead and one more.
fn slots_wait_s(ahead: Work, load: &Load) -> f64 {
    let lacking = ahead.requests + 1.0 - f64::from(load.slots_free);
    let rate = load.slots_released_per_s;
    if lacking > 0.0 && rate > 0.0 { lacking / rate } else { 0.0 }
}
