//! What happened to one request: every time that a figure is made of, in nanoseconds since the
//! run's start. One line of the per-request JSONL.

use serde::{Deserialize, Serialize};

/// One planned request, from its schedule to its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RequestRecord {
    /// Its place in the plan.
    pub index: u32,
    /// An index into the plan's tenants.
    pub tenant: u16,
    /// When it should have been sent: the zero of the headline latencies.
    pub scheduled_ns: u64,
    /// When its first attempt was handed to the connection; `None` when it never was.
    pub sent_ns: Option<u64>,
    /// When the last byte that belongs to it came, or when it was given up.
    pub end_ns: u64,
    /// How it ended, after all retries.
    pub outcome: Outcome,
    /// HTTP status of the last attempt that got one.
    pub status: Option<u16>,
    /// `error.code` (else `error.type`) of the last refusal or error; else a word of ours for
    /// what broke (`connect`, `reset`, `malformed_stream`, `client_timeout` ...).
    pub code: Option<String>,
    /// The error in a sentence.
    pub message: Option<String>,
    /// Requests on the wire, the first included.
    pub attempts: u32,
    /// When the last attempt was sent; its answer is what the times below are of.
    pub last_sent_ns: Option<u64>,
    /// Response headers of the last attempt.
    pub headers_ns: Option<u64>,
    /// Arrival of each chunk with content, reasoning or tool text.
    pub chunks_ns: Vec<u64>,
    /// `usage.prompt_tokens`.
    pub prompt_tokens: Option<u32>,
    /// `usage.prompt_tokens_details.cached_tokens`.
    pub cached_tokens: Option<u32>,
    /// `usage.completion_tokens`; `None` when the server sent no usage.
    pub output_tokens: Option<u32>,
    /// What was asked for.
    pub prompt_tokens_wanted: Option<u32>,
    /// What was asked for.
    pub output_tokens_wanted: u32,
    /// Bytes of response bodies, all attempts.
    pub body_bytes: u64,
    /// `finish_reason` of the first choice.
    pub finish_reason: Option<String>,
}

/// How a request ended. Only `Completed` can meet an objective.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The whole answer came.
    Completed,
    /// The server said to come later, and retries were used up: 429 or 503.
    Refused,
    /// Another status of 400 to 499.
    ClientError,
    /// Another status of 500 to 599.
    ServerError,
    /// An error event in the stream, a stream without its end, a broken connection, bytes that
    /// are no answer.
    Broken,
    /// No connection.
    Unreachable,
    /// The client's own time-out.
    TimedOut,
    /// The client left on purpose, as planned.
    Disconnected,
    /// The run ended (interrupt, or its time was over) before the answer did.
    Cut,
    /// The run ended before it was sent.
    NotSent,
}

impl RequestRecord {
    /// The first chunk with content.
    pub fn first_token_ns(&self) -> Option<u64> {
        self.chunks_ns.first().copied()
    }

    /// The last chunk with content.
    pub fn last_token_ns(&self) -> Option<u64> {
        self.chunks_ns.last().copied()
    }

    /// Output tokens by the server's count, else one for each chunk.
    pub fn output_tokens_counted(&self) -> u32 {
        self.output_tokens.unwrap_or(self.chunks_ns.len() as u32)
    }
}
