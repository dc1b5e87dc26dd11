//! What is told to the metrics about one request, exactly once, however it ends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::error::ApiError;
use crate::clock::{Clock, Time};
use crate::metrics::{Metrics, Outcome, RequestFacts};

/// A request's facts. The handler and the answer's body share it; the last to go reports it, as
/// cancelled if neither has said how it ended.
pub(super) struct Account {
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    ledger: Mutex<Ledger>,
}

/// The facts so far.
pub(super) struct Ledger {
    pub(super) facts: RequestFacts,
    /// The end of the request's body, or its head's as long as the body is not read.
    pub(super) arrived: Time,
    /// The end of the answer, once there is one.
    pub(super) ended: Option<Time>,
}

impl Account {
    /// An account of a request whose head has just been read.
    pub(super) fn open(
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
        endpoint: &'static str,
    ) -> Arc<Self> {
        let facts = RequestFacts {
            endpoint,
            outcome: Outcome::Cancelled,
            code: "",
            finished_reason: "abort",
            prompt_tokens: 0,
            cached_tokens: 0,
            output_tokens: 0,
            longest_output_tokens: 0,
            choices: 0,
            max_tokens: 0,
            queue: None,
            ttft: None,
            e2e: std::time::Duration::ZERO,
        };
        let ledger = Ledger { facts, arrived: clock.now(), ended: None };
        Arc::new(Self { metrics, clock, ledger: Mutex::new(ledger) })
    }

    /// To note facts.
    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It ended with an error.
    pub(super) fn failed(&self, error: &ApiError) {
        let mut ledger = self.ledger();
        ledger.facts.outcome = error.outcome();
        ledger.facts.code = error.row().code;
        ledger.facts.finished_reason = "error";
        ledger.ended = Some(self.clock.now());
    }

    /// The time between two tokens of a choice.
    pub(super) fn token_gap(&self, gap: std::time::Duration) {
        self.metrics.token_gap(gap);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let now = self.clock.now();
        let ledger = self.ledger.get_mut().unwrap_or_else(PoisonError::into_inner);
        ledger.facts.e2e = ledger.ended.unwrap_or(now).since(ledger.arrived);
        self.metrics.request(&ledger.facts);
    }
}
