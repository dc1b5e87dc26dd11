//! An admitted prompt's place.

use std::sync::Arc;

use super::Gate;
use super::forecast::Ticket;
use crate::clock::Time;

/// An admitted prompt's place. Lives in the response body; dropping it gives the place back.
#[derive(Debug)]
pub struct Permit {
    gate: Arc<Gate>,
    used: Used,
    waiting: bool,
    ticket: Ticket,
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
    pub(super) fn new(gate: Arc<Gate>, prompt_tokens: u32, ticket: Ticket) -> Self {
        Self { gate, used: Used { prompt_tokens, ..Used::default() }, waiting: true, ticket }
    }

    /// The prompt's first step has begun: it waits no longer.
    pub fn started(&mut self, cached_tokens: u32, now: Time) {
        if std::mem::take(&mut self.waiting) {
            self.used.cached_tokens = cached_tokens;
            let mut core = self.gate.core();
            core.waiting_requests -= 1;
            core.waiting_tokens -= u64::from(self.used.prompt_tokens);
            core.forecast.started(&self.ticket, now);
        }
    }

    /// Its first token has come.
    pub fn first_token(&mut self, now: Time) {
        self.gate.core().forecast.first_token(&self.ticket, now);
    }

    /// It did not begin in time.
    pub fn late(&mut self, now: Time) {
        self.gate.core().forecast.late(&self.ticket, now);
    }

    /// A token was generated.
    pub fn generated(&mut self) {
        self.used.output_tokens += 1;
        self.gate.core().forecast.generated(&self.ticket);
    }

    /// What it has used so far; nothing before it has started.
    pub fn used(&self) -> Used {
        if self.waiting { Used::default() } else { self.used }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut core = self.gate.core();
        if self.waiting {
            core.waiting_requests -= 1;
            core.waiting_tokens -= u64::from(self.used.prompt_tokens);
            core.forecast.left(&self.ticket);
        }
        core.open_requests -= 1;
    }
}
