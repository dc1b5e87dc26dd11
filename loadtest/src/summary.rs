//! The figures of a run, as they are written to JSON and shown in every report.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::plan::Pacing;

/// All figures of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// What was run.
    pub run: RunFacts,
    /// Whether the figures may be used.
    pub validity: Validity,
    /// What a good request had to meet.
    pub objectives: Objectives,
    /// All tenants together.
    pub total: Group,
    /// Each tenant, in the plan's order; one entry when there is one.
    pub tenants: Vec<Group>,
    /// A line for each second, warm-up and cool-down included.
    pub timeline: Vec<Tick>,
}

/// What was run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunFacts {
    /// The profile's name, or `custom`.
    pub name: String,
    /// The command line, without keys.
    pub command: String,
    /// Start, RFC 3339 with zone.
    pub started_at: String,
    /// Server.
    pub base_url: String,
    /// Path under it.
    pub endpoint: String,
    /// `model` of the requests.
    pub model: String,
    /// Of the plan.
    pub seed: u64,
    /// Open or closed loop.
    pub pacing: Pacing,
    /// Mean rate that the plan asked for; `None` in closed loop.
    pub request_rate: Option<f64>,
    /// Whole run, warm-up and cool-down included.
    pub elapsed_s: f64,
    /// The part that the figures are of.
    pub measured_s: f64,
    /// Cut off at the start.
    pub warmup_s: f64,
    /// Cut off at the end.
    pub cooldown_s: f64,
    /// It was stopped before its end.
    pub interrupted: bool,
    /// Most requests under way at once.
    pub peak_concurrency: u32,
    /// Resident memory of the generator at its peak.
    pub peak_memory_bytes: u64,
}

/// Whether a run measured the server and not the generator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Validity {
    /// All is well.
    pub valid: bool,
    /// Why not, or what to keep in mind, in sentences.
    pub reasons: Vec<String>,
}

/// Objectives of a good request; all that are given must be met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Objectives {
    /// Time to first token from the scheduled time.
    pub ttft_ms: Option<f64>,
    /// Time per output token after the first.
    pub tpot_ms: Option<f64>,
    /// End to end from the scheduled time.
    pub e2el_ms: Option<f64>,
}

/// Figures of a group of requests: those of the measured window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// `all`, or a tenant's name.
    pub name: String,
    /// The tenant's class.
    pub class: Option<String>,
    /// Marked as misbehaving in the plan.
    pub abusive: bool,
    /// Requests by outcome.
    pub outcomes: BTreeMap<String, u64>,
    /// Requests by `status code` (for example `429 queue_full`), of all that did not complete.
    pub failures: BTreeMap<String, u64>,
    /// Requests in the window.
    pub requests: u64,
    /// Requests on the wire, retries included.
    pub attempts: u64,
    /// Sums of the server's counts (completed requests).
    pub prompt_tokens: u64,
    /// Of these from the server's cache.
    pub cached_tokens: u64,
    /// See `prompt_tokens`.
    pub output_tokens: u64,
    /// Completed requests whose answer had no `usage`; their output is counted in chunks.
    pub without_usage: u64,
    /// Completed requests with another number of output tokens than was asked for.
    pub output_mismatches: u64,
    /// Completed requests a second.
    pub requests_per_s: f64,
    /// Their prompt tokens a second.
    pub prompt_tokens_per_s: f64,
    /// Their output tokens a second.
    pub output_tokens_per_s: f64,
    /// Requests a second that met all objectives.
    pub goodput_per_s: f64,
    /// The part of all requests of the window (failures included, clients that left as planned not)
    /// that met all objectives.
    pub goodput_fraction: f64,
    /// First token, from the scheduled time.
    pub ttft: Distribution,
    /// First token, from the time of sending.
    pub ttft_from_sent: Distribution,
    /// (last token - first token) / (output tokens - 1), for requests of two tokens and more.
    pub tpot: Distribution,
    /// Gaps between chunks with content, all requests pooled.
    pub itl: Distribution,
    /// Last byte, from the scheduled time.
    pub e2el: Distribution,
    /// Last byte, from the time of sending.
    pub e2el_from_sent: Distribution,
    /// Response headers, from the time of sending: what the server lets a request wait before it
    /// begins to answer.
    pub queue: Distribution,
    /// Sending, from the scheduled time: the generator's own lateness.
    pub send_delay: Distribution,
}

/// A distribution in milliseconds, from an HDR histogram of three digits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// Values.
    pub count: u64,
    /// Mean.
    pub mean_ms: f64,
    /// Standard deviation.
    pub std_ms: f64,
    /// Least.
    pub min_ms: f64,
    /// Greatest.
    pub max_ms: f64,
    /// (percentile, value): 50, 90, 95, 99, 99.9 and those that were asked for.
    pub percentiles: Vec<(f64, f64)>,
    /// Points of the cumulative distribution (value, fraction at or below), for plots; at most 200.
    pub cdf: Vec<(f64, f64)>,
    /// The histogram of nanoseconds, HDR V2 with deflate, base64: mergeable with those of others.
    pub hdr: String,
}

/// One second of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tick {
    /// Its start, in seconds since the run's.
    pub second: u32,
    /// Requests that were scheduled in it.
    pub scheduled: u32,
    /// That were sent in it.
    pub sent: u32,
    /// That completed in it.
    pub completed: u32,
    /// That ended otherwise in it.
    pub failed: u32,
    /// Chunks with content that came in it.
    pub chunks: u32,
    /// Requests under way at its end.
    pub in_flight: u32,
    /// Median TTFT (from the scheduled time) of the first tokens that came in it.
    pub ttft_p50_ms: Option<f64>,
    /// And the 99th percentile.
    pub ttft_p99_ms: Option<f64>,
}

impl Distribution {
    /// The value at a percentile that was computed; `None` without values.
    pub fn percentile(&self, percentile: f64) -> Option<f64> {
        let found = self.percentiles.iter().find(|(at, _)| (at - percentile).abs() < 1e-9);
        found.map(|(_, value)| *value)
    }
}
