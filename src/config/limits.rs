//! Bounds on what one request may ask and one connection may hold (R11, R42).

use std::time::Duration;

/// Bounds of a request. Every quantity a client names is checked against one of these before
/// memory is taken for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Bytes of a request's body.
    pub body_bytes_max: usize,
    /// Nesting of a request's JSON.
    pub json_depth_max: usize,
    /// Messages of a chat request.
    pub messages_max: usize,
    /// Prompts of one completions request.
    pub prompts_max: usize,
    /// Tool definitions.
    pub tools_max: usize,
    /// Stop strings.
    pub stops_max: usize,
    /// Bytes of one stop string.
    pub stop_bytes_max: usize,
    /// Stop token ids.
    pub stop_tokens_max: usize,
    /// Choices (`n`).
    pub choices_max: u32,
    /// `top_logprobs`, `logprobs` and `prompt_logprobs`.
    pub logprobs_max: u32,
    /// Entries of `logit_bias`.
    pub logit_bias_max: usize,
    /// Entries of `metadata`.
    pub metadata_max: usize,
    /// Output tokens when the request names no maximum.
    pub default_output_tokens: u32,
}

/// Bounds of the queue, obeyed by the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Requests that may wait (`--max-num-queued-reqs`).
    pub requests_max: u32,
    /// Prompt tokens that may wait (`--max-num-queued-tokens`).
    pub tokens_max: u64,
    /// No completed step for this long while work is pending: not ready (R22).
    pub stall_after: Duration,
    /// Named to clients while draining.
    pub drain_retry: Duration,
}

/// Bounds of the ledger of token budgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerLimits {
    /// Entries that may wait to be written; with more, requests are refused.
    pub pending_entries_max: usize,
    /// A log that has grown by this much since its last snapshot gets a new one.
    pub snapshot_after_bytes: u64,
    /// Entries are made durable when this many wait …
    pub commit_entries: usize,
    /// … or the first of them has waited this long.
    pub commit_after: Duration,
}

/// Bounds of the HTTP listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerLimits {
    /// Open connections.
    pub connections_max: usize,
    /// Open connections of one peer address.
    pub connections_per_address_max: usize,
    /// From accept (or the end of the last answer) to the end of the next request's head.
    pub header_timeout: Duration,
    /// A kept-alive connection without a request is closed after this.
    pub idle_timeout: Duration,
    /// A body has to bring this many bytes a second once `body_grace` has passed.
    pub body_bytes_per_s_min: u64,
    /// See `body_bytes_per_s_min`.
    pub body_grace: Duration,
    /// Bytes of a request's head.
    pub header_bytes_max: usize,
    /// Header fields of a request.
    pub headers_max: usize,
    /// HTTP/2 streams of one connection.
    pub h2_streams_max: u32,
    /// A reader that takes nothing for this long is cut off.
    pub write_stall_timeout: Duration,
    /// A comment line is sent on a silent event stream this often, so that proxies keep it open.
    pub keep_alive_interval: Duration,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            body_bytes_max: 4 << 20,
            json_depth_max: 64,
            messages_max: 2048,
            prompts_max: 256,
            tools_max: 128,
            stops_max: 4,
            stop_bytes_max: 256,
            stop_tokens_max: 256,
            choices_max: 8,
            logprobs_max: 20,
            logit_bias_max: 1024,
            metadata_max: 16,
            default_output_tokens: 1024,
        }
    }
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self {
            requests_max: 1024,
            tokens_max: 1 << 20,
            stall_after: Duration::from_secs(10),
            drain_retry: Duration::from_secs(1),
        }
    }
}

impl Default for LedgerLimits {
    fn default() -> Self {
        Self {
            pending_entries_max: 1 << 16,
            snapshot_after_bytes: 64 << 20,
            commit_entries: 256,
            commit_after: Duration::from_millis(5),
        }
    }
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self {
            connections_max: 16_384,
            connections_per_address_max: 16_384,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            body_bytes_per_s_min: 1024,
            body_grace: Duration::from_secs(10),
            header_bytes_max: 32 << 10,
            headers_max: 64,
            h2_streams_max: 100,
            write_stall_timeout: Duration::from_secs(30),
            keep_alive_interval: Duration::from_secs(15),
        }
    }
}
