//! What the server really did: the times at which it handed chunks to the socket.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// Requests whose times are kept; of later ones only the counts are.
const REQUESTS_MAX: usize = 1_000_000;

/// One attempt, from arrival to end. Times in nanoseconds since the server's start.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RequestTruth {
    /// Which request, counted from 0 by first arrival; equal bodies are one request.
    pub request: u64,
    /// Which try of it, counted from 0.
    pub attempt: u32,
    /// Path.
    pub path: String,
    /// The client's `x-request-id`.
    pub request_id: Option<String>,
    /// Status that was answered.
    pub status: u16,
    /// When its head had been read.
    pub arrived_ns: u64,
    /// When it got a place; that of arrival when there is no limit.
    pub admitted_ns: u64,
    /// When each chunk with content was handed to the socket.
    pub chunks_ns: Vec<u64>,
    /// When the answer was whole, was cut, or the client left.
    pub end_ns: u64,
    /// The answer was given whole.
    pub completed: bool,
    /// Counted in the prompt.
    pub prompt_tokens: u32,
    /// Sent.
    pub output_tokens: u32,
}

/// All requests of a server.
#[derive(Debug, Default)]
pub struct Truth {
    inside: Mutex<Inside>,
}

#[derive(Debug, Default)]
struct Inside {
    requests: Vec<RequestTruth>,
    attempts: u64,
    running: u32,
    running_peak: u32,
    numbers: HashMap<u64, (u64, u32)>,
}

/// Figures of the truth, by the definitions of `loadtest/README.md`.
#[derive(Clone, Debug, Serialize)]
pub struct TruthSummary {
    /// Requests that came, whatever became of them.
    pub attempts: u64,
    /// Under way now.
    pub running: u32,
    /// Most at once.
    pub running_peak: u32,
    /// Ended attempts by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Whole answers.
    pub completed: u64,
    /// Of whole answers.
    pub prompt_tokens: u64,
    /// Of whole answers.
    pub output_tokens: u64,
    /// From the first arrival to the last end of whole answers.
    pub span_s: f64,
    /// First chunk, from arrival.
    pub ttft_ms: Spread,
    /// (last chunk - first chunk) / (tokens - 1), for answers of two tokens and more.
    pub tpot_ms: Spread,
    /// Gaps between chunks, all answers pooled.
    pub itl_ms: Spread,
    /// End, from arrival.
    pub e2el_ms: Spread,
}

/// A set of values.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Spread {
    /// How many.
    pub count: usize,
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
}

impl Truth {
    /// Counts an arrival and gives the request's number and its try's.
    pub fn arrive(&self, body_hash: u64) -> (u64, u32) {
        let mut inside = self.lock();
        inside.attempts += 1;
        let next = inside.numbers.len() as u64;
        let entry = inside.numbers.entry(body_hash).or_insert((next, 0));
        let found = *entry;
        entry.1 += 1;
        found
    }

    /// An answer begins.
    pub fn begin(&self) {
        let mut inside = self.lock();
        inside.running += 1;
        inside.running_peak = inside.running_peak.max(inside.running);
    }

    /// An answer that had begun ends.
    pub fn end(&self, request: RequestTruth) {
        self.lock().running -= 1;
        self.write(request);
    }

    /// Keeps what became of a request.
    pub fn write(&self, request: RequestTruth) {
        let mut inside = self.lock();
        if inside.requests.len() < REQUESTS_MAX {
            inside.requests.push(request);
        }
    }

    /// Forgets all but what is under way.
    pub fn clear(&self) {
        let mut inside = self.lock();
        let running = inside.running;
        *inside = Inside { running, running_peak: running, ..Inside::default() };
    }

    /// Ended requests, in order of ending.
    pub fn requests(&self) -> Vec<RequestTruth> {
        self.lock().requests.clone()
    }

    /// Answers under way.
    pub fn running(&self) -> u32 {
        self.lock().running
    }

    /// Figures of all ended requests.
    pub fn summary(&self) -> TruthSummary {
        let inside = self.lock();
        let mut statuses = BTreeMap::new();
        for request in &inside.requests {
            *statuses.entry(request.status).or_default() += 1;
        }
        let whole: Vec<&RequestTruth> =
            inside.requests.iter().filter(|request| request.completed).collect();
        let first_ns = whole.iter().map(|request| request.arrived_ns).min().unwrap_or(0);
        let last_ns = whole.iter().map(|request| request.end_ns).max().unwrap_or(0);
        let itl = whole.iter().flat_map(|request| request.gaps_ms());
        TruthSummary {
            attempts: inside.attempts,
            running: inside.running,
            running_peak: inside.running_peak,
            statuses,
            completed: whole.len() as u64,
            prompt_tokens: whole.iter().map(|r| u64::from(r.prompt_tokens)).sum(),
            output_tokens: whole.iter().map(|r| u64::from(r.output_tokens)).sum(),
            span_s: (last_ns - first_ns) as f64 / 1e9,
            ttft_ms: Spread::of(whole.iter().filter_map(|request| request.ttft_ms()).collect()),
            tpot_ms: Spread::of(whole.iter().filter_map(|request| request.tpot_ms()).collect()),
            itl_ms: Spread::of(itl.collect()),
            e2el_ms: Spread::of(whole.iter().map(|request| request.e2el_ms()).collect()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RequestTruth {
    /// First chunk, from arrival.
    pub fn ttft_ms(&self) -> Option<f64> {
        self.chunks_ns.first().map(|first_ns| (first_ns - self.arrived_ns) as f64 / 1e6)
    }

    /// Time per token after the first.
    pub fn tpot_ms(&self) -> Option<f64> {
        let (first_ns, last_ns) = (self.chunks_ns.first()?, self.chunks_ns.last()?);
        let rest = self.output_tokens.checked_sub(1).filter(|rest| *rest > 0)?;
        Some((last_ns - first_ns) as f64 / 1e6 / f64::from(rest))
    }

    /// Gaps between chunks.
    pub fn gaps_ms(&self) -> impl Iterator<Item = f64> {
        self.chunks_ns.windows(2).map(|pair| (pair[1] - pair[0]) as f64 / 1e6)
    }

    /// End, from arrival.
    pub fn e2el_ms(&self) -> f64 {
        (self.end_ns - self.arrived_ns) as f64 / 1e6
    }
}

impl Spread {
    /// The spread of values in any order.
    pub fn of(mut values: Vec<f64>) -> Self {
        if values.is_empty() {
            return Self::default();
        }
        values.sort_by(f64::total_cmp);
        let at = |part: f64| values[((values.len() - 1) as f64 * part).round() as usize];
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        Self { count: values.len(), mean, p50: at(0.5), p99: at(0.99) }
    }
}
