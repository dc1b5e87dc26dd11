//! An admitted prompt's place.

use std::sync::Arc;

use super::Gate;
use super::budget::{HoldId, Progress};
use super::forecast::Ticket;
use super::ledger::CHECKPOINT_TOKENS;
use crate::clock::Time;
use crate::ids::TenantId;

/// The forecast is told of an answer's tokens by so many, since each time takes the gate's lock.
const REPORTED_TOKENS: u32 = 16;

/// An admitted prompt's place. Lives in the response body; dropping it gives the place back.
#[derive(Debug)]
pub struct Permit {
    gate: Arc<Gate>,
    used: Used,
    waiting: bool,
    ticket: Ticket,
    taken: Taken,
    /// Output tokens that the forecast knows of.
    reported_tokens: u32,
}

/// What a prompt has taken of its tenant's limits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    /// Whose.
    pub(super) tenant: TenantId,
    /// Of its budgets.
    pub(super) hold: HoldId,
    /// Of its tokens a minute: its worst case.
    pub(super) rate_tokens: u64,
}

/// What a prompt has used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Of these, the ones from the prefix cache.
    pub cached_tokens: u32,
    /// Tokens generated, all choices together.
    pub output_tokens: u32,
}

impl Permit {
    /// The place of a prompt that the gate has counted already.
    pub(super) fn new(gate: Arc<Gate>, prompt_tokens: u32, ticket: Ticket, taken: Taken) -> Self {
        let used = Used { prompt_tokens, ..Used::default() };
        Self { gate, used, waiting: true, ticket, taken, reported_tokens: 0 }
    }

    /// The prompt's first step has begun: it waits no longer.
    pub fn started(&mut self, cached_tokens: u32, now: Time) {
        if std::mem::take(&mut self.waiting) {
            self.used.cached_tokens = cached_tokens;
            let mut core = self.gate.core();
            core.waiting_requests -= 1;
            core.waiting_tokens -= u64::from(self.used.prompt_tokens);
            core.forecast.started(&self.ticket, cached_tokens, now);
            core.rates.started(self.taken.tenant);
            drop(core);
            self.checkpoint();
        }
    }

    /// Its first token has come.
    pub fn first_token(&mut self, now: Time) {
        self.gate.core().forecast.first_token(&self.ticket, now);
    }

    /// It did not begin in time.
    pub fn late(&mut self) {
        self.gate.core().forecast.late(&self.ticket);
    }

    /// A token was generated.
    pub fn generated(&mut self) {
        self.used.output_tokens += 1;
        let unreported = self.used.output_tokens - self.reported_tokens;
        if unreported >= REPORTED_TOKENS {
            self.reported_tokens = self.used.output_tokens;
            self.gate.core().forecast.generated(&self.ticket, unreported);
        }
        if self.used.output_tokens.is_multiple_of(CHECKPOINT_TOKENS) {
            self.checkpoint();
        }
    }

    /// What it has used so far; nothing before it has started.
    pub fn used(&self) -> Used {
        if self.waiting { Used::default() } else { self.used }
    }

    fn checkpoint(&self) {
        let Used { cached_tokens, output_tokens, .. } = self.used;
        self.gate.ledger.checkpoint(self.taken.hold, Progress { cached_tokens, output_tokens });
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let used = self.used();
        // Before the place is given back: who sees that nothing runs sees everything settled.
        self.gate.ledger.settle(self.taken.hold, used);
        let used_tokens = u64::from(used.prompt_tokens) + u64::from(used.output_tokens);
        let unused = self.taken.rate_tokens.saturating_sub(used_tokens);
        let mut core = self.gate.core();
        if self.waiting {
            core.waiting_requests -= 1;
            core.waiting_tokens -= u64::from(self.used.prompt_tokens);
            core.forecast.left(&self.ticket);
        } else {
            let unreported = self.used.output_tokens - self.reported_tokens;
            core.forecast.generated(&self.ticket, unreported);
            core.forecast.ended(&self.ticket, self.used.output_tokens);
        }
        core.rates.ended(self.taken.tenant, self.waiting, unused);
        core.open_requests -= 1;
    }
}
