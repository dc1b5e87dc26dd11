//! What a run will do, decided whole before it starts: two servers given the same plan see the
//! same requests at the same times.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Everything that a run sends. Drawn from `seed` and nothing else.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Source of all randomness.
    pub seed: u64,
    /// How requests are released.
    pub pacing: Pacing,
    /// Who sends; requests name them by index.
    pub tenants: Vec<Tenant>,
    /// In order of `scheduled_ns` (open loop) or of sending (closed loop).
    pub requests: Vec<PlannedRequest>,
    /// Requests scheduled (closed loop: sent) before this time are left out of the figures.
    pub warmup_ns: u64,
    /// As are those after the last scheduled time less this; 0 cuts nothing.
    pub cooldown_ns: u64,
    /// No request is sent after this time; `None` sends all.
    pub duration_ns: Option<u64>,
}

/// How requests are released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pacing {
    /// At their scheduled time, whatever the server does.
    Open,
    /// As many at a time as this; a request's scheduled time is when its place became free.
    Closed {
        /// Requests under way.
        concurrency: u32,
    },
}

/// A sender of requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tenant {
    /// Its name in reports.
    pub name: String,
    /// Sent as `Authorization: Bearer`. Never written to a report.
    #[serde(skip_serializing, default)]
    pub api_key: Option<String>,
    /// For reports, and sent as `service_tier` when the profile says so.
    #[serde(default)]
    pub class: Option<String>,
    /// Part of the requests that are its own, relative to the others'.
    pub share: f64,
    /// Whether reports mark it as the one that misbehaves.
    #[serde(default)]
    pub abusive: bool,
}

/// One request.
#[derive(Clone, Debug)]
pub struct PlannedRequest {
    /// Its place in the plan.
    pub index: u32,
    /// Who sends it: an index into [`Plan::tenants`].
    pub tenant: u16,
    /// When it should be sent (open loop; 0 in closed loop).
    pub scheduled_ns: u64,
    /// What it asks.
    pub prompt: Prompt,
    /// `max_tokens` (with `ignore_eos` when asked for).
    pub output_tokens: u32,
    /// What the client does besides reading the answer.
    pub behaviour: Behaviour,
}

/// A prompt, kept as its recipe so that a plan of a million requests fits in memory.
#[derive(Clone, Debug, PartialEq)]
pub enum Prompt {
    /// Text from a trace, sent as it is.
    Text(Arc<str>),
    /// Words drawn from seeds: pieces with equal seeds are equal text, so that requests which
    /// begin with the same pieces share a prefix.
    Synthetic(Vec<PromptPiece>),
}

/// A run of words in a synthetic prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromptPiece {
    /// Which words.
    pub seed: u64,
    /// How many tokens they should be.
    pub tokens: u32,
}

/// What a client does besides reading its answer at once to the end.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Behaviour {
    /// Closes the connection after this many chunks with content.
    pub disconnect_after_chunks: Option<u32>,
    /// Reads no faster than this.
    pub read_bytes_per_s: Option<u32>,
    /// Gives up this long after it was sent (a client's own timeout).
    pub give_up_after_ms: Option<u32>,
    /// Retries as the official SDKs do, at most so often.
    pub retries_max: u32,
}

impl Prompt {
    /// Tokens that it should have; unknown for text.
    pub fn tokens_wanted(&self) -> Option<u32> {
        match self {
            Self::Text(_) => None,
            Self::Synthetic(pieces) => Some(pieces.iter().map(|piece| piece.tokens).sum()),
        }
    }
}
