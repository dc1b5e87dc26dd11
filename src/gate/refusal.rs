//! Why a request may not enter, and when to come back.

use thiserror::Error;

use super::budget::Shortage;
use super::rate::RateExceeded;
use super::scope::Scope;

/// Until a running request has given back a place or tokens, as a guess.
const RUNNING_RETRY_MS: u64 = 1000;
/// A ledger that cannot be written needs a person.
const LEDGER_RETRY_MS: u64 = 30_000;

/// A refusal by the gate. `http` turns it into status, type, code and headers by one table.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// Keys are configured and the request carries none.
    #[error(
        "this server needs an API key: send it as \"Authorization: Bearer KEY\" \
         (OPENAI_API_KEY for the official SDKs)"
    )]
    MissingKey,
    /// The request's key is none of the configured ones.
    #[error("the API key is not one of this server's keys; check it with the server's operator")]
    InvalidKey,
    /// The key's time is over.
    #[error("this API key has expired; ask the server's operator for a new one")]
    ExpiredKey,
    /// The key was taken back.
    #[error("this API key was revoked; ask the server's operator for a new one")]
    RevokedKey,
    /// The settings do not know the key's tenant (any more).
    #[error("this API key's tenant is not served here; ask the server's operator")]
    UnknownTenant,
    /// The key is valid, but not for this.
    #[error(
        "this API key may not be used for this: it lacks the scope {:?}; ask the server's \
         operator for a key that has it", .scope.name()
    )]
    MissingScope {
        /// What the route needs.
        scope: Scope,
    },
    /// The server is shutting down.
    #[error(
        "the server is shutting down and takes no new requests; retry, another replica answers"
    )]
    Draining {
        /// When to come back.
        retry_after_ms: u64,
    },
    /// The engine is not running or makes no progress.
    #[error("the engine is not ready ({reason}); retry later")]
    NotReady {
        /// What is wrong.
        reason: &'static str,
        /// When to come back.
        retry_after_ms: u64,
    },
    /// The first token would come later than the tenant's objective allows.
    #[error(
        "the server is overloaded: the first token would come in about {predicted_ms} ms, the \
         objective is {objective_ms} ms; retry later, or send \"service_tier\": \"flex\" to wait \
         without a promise"
    )]
    PredictedLate {
        /// Predicted time to the first token.
        predicted_ms: u64,
        /// The tenant's objective.
        objective_ms: u64,
        /// Predicted time until the objective could be met.
        retry_after_ms: u64,
    },
    /// As many requests wait as may wait.
    #[error("the server is overloaded: {waiting} requests wait, at most {limit} may; retry later")]
    QueueFull {
        /// Requests that wait.
        waiting: u32,
        /// How many may (`--max-num-queued-reqs`).
        limit: u32,
        /// Predicted time until there is room.
        retry_after_ms: u64,
    },
    /// As many prompt tokens wait as may wait.
    #[error(
        "the server is overloaded: {waiting_tokens} prompt tokens wait, at most {limit} may; \
         retry later"
    )]
    QueuedTokensFull {
        /// Prompt tokens that wait.
        waiting_tokens: u64,
        /// How many may (`--max-num-queued-tokens`).
        limit: u64,
        /// Predicted time until there is room.
        retry_after_ms: u64,
    },
    /// The tenant's own rate: requests or tokens a minute, or requests at once.
    #[error("{0}")]
    Rate(RateExceeded),
    /// The tenant's token budget.
    #[error("{0}")]
    Budget(Shortage),
    /// What this tenant uses could not be written down.
    #[error(
        "the ledger of token budgets cannot be written any more, so no work with a budget is \
         taken; the server's operator has to look at its disk and start the server again"
    )]
    LedgerReadOnly,
    /// The ledger has more to write down than it may have, or knows as many tenants as it may.
    #[error("the ledger of token budgets cannot take another request now ({reason}); retry later")]
    LedgerBusy {
        /// What there is too much of.
        reason: &'static str,
    },
}

impl Refusal {
    /// When a retry can succeed, if it can at all.
    pub fn retry_after_ms(&self) -> Option<u64> {
        match *self {
            Refusal::Rate(RateExceeded::PerMinute { retry_after_ms, .. }) => Some(retry_after_ms),
            Refusal::Rate(RateExceeded::TooLarge { .. }) => None,
            Refusal::Rate(RateExceeded::Concurrency { .. } | RateExceeded::Queue { .. })
            | Refusal::LedgerBusy { .. } => Some(RUNNING_RETRY_MS),
            Refusal::Budget(ref shortage) => (!shortage.is_final()).then_some(RUNNING_RETRY_MS),
            Refusal::LedgerReadOnly => Some(LEDGER_RETRY_MS),
            Refusal::MissingKey
            | Refusal::InvalidKey
            | Refusal::ExpiredKey
            | Refusal::RevokedKey
            | Refusal::UnknownTenant
            | Refusal::MissingScope { .. } => None,
            Refusal::Draining { retry_after_ms }
            | Refusal::NotReady { retry_after_ms, .. }
            | Refusal::PredictedLate { retry_after_ms, .. }
            | Refusal::QueueFull { retry_after_ms, .. }
            | Refusal::QueuedTokensFull { retry_after_ms, .. } => Some(retry_after_ms),
        }
    }

    /// Whether `retry_after_ms` is the exact time at which there is room, which must not be varied.
    pub fn is_exact(&self) -> bool {
        matches!(self, Refusal::Rate(RateExceeded::PerMinute { .. }))
    }

    /// Whether the same request cannot succeed before somebody changes something or a long window
    /// ends, so that clients should not try (R3).
    pub fn is_final(&self) -> bool {
        match self {
            Refusal::Budget(shortage) => shortage.is_final(),
            Refusal::Rate(exceeded) => matches!(exceeded, RateExceeded::TooLarge { .. }),
            _ => false,
        }
    }
}
