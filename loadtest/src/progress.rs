//! How a run stands, readable at any time without slowing it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::live::Snapshot;
use crate::record::{Outcome, RequestRecord};

/// Values of which rolling percentiles are made.
const RECENT: usize = 256;

/// How a run stands.
#[derive(Debug)]
pub struct Progress {
    /// Requests of the plan; `None` when the run ends by time.
    planned: Option<u64>,
    ends_ns: Option<u64>,
    sent: AtomicU64,
    retries: AtomicU64,
    completed: AtomicU64,
    failed: AtomicU64,
    in_flight: AtomicU64,
    peak: AtomicU64,
    chunks: AtomicU64,
    ttft: Rolling,
    send_delay: Rolling,
}

/// The last values, in microseconds.
#[derive(Debug)]
struct Rolling {
    values_us: [AtomicU32; RECENT],
    count: AtomicU64,
}

impl Progress {
    /// Of a run that has not begun: of so many requests, ending at this time if it ends by time.
    pub fn new(planned: u64, ends_ns: Option<u64>) -> Self {
        Self {
            planned: ends_ns.is_none().then_some(planned),
            ends_ns,
            sent: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            chunks: AtomicU64::new(0),
            ttft: Rolling::new(),
            send_delay: Rolling::new(),
        }
    }

    /// How it stands at a time of the run.
    pub fn snapshot(&self, now_ns: u64) -> Snapshot {
        let ttft = self.ttft.sorted();
        let send_delay = self.send_delay.sorted();
        Snapshot {
            elapsed_s: now_ns as f64 / 1e9,
            ends_s: self.ends_ns.map(|ns| ns as f64 / 1e9),
            planned: self.planned,
            sent: self.sent.load(Relaxed),
            retries: self.retries.load(Relaxed),
            completed: self.completed.load(Relaxed),
            failed: self.failed.load(Relaxed),
            in_flight: self.in_flight.load(Relaxed),
            chunks: self.chunks.load(Relaxed),
            ttft_p50_ms: percentile_ms(&ttft, 50),
            ttft_p99_ms: percentile_ms(&ttft, 99),
            send_delay_p99_ms: percentile_ms(&send_delay, 99),
        }
    }

    /// Most requests under way at once.
    pub fn peak(&self) -> u64 {
        self.peak.load(Relaxed)
    }

    pub(crate) fn began(&self, send_delay_ns: u64) {
        self.sent.fetch_add(1, Relaxed);
        let now = self.in_flight.fetch_add(1, Relaxed) + 1;
        self.peak.fetch_max(now, Relaxed);
        self.send_delay.add(send_delay_ns);
    }

    pub(crate) fn ended(&self, record: &RequestRecord) {
        self.in_flight.fetch_sub(1, Relaxed);
        let counter = match record.outcome {
            Outcome::Completed => &self.completed,
            _ => &self.failed,
        };
        counter.fetch_add(1, Relaxed);
    }

    pub(crate) fn retried(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    pub(crate) fn chunk(&self) {
        self.chunks.fetch_add(1, Relaxed);
    }

    pub(crate) fn first_token(&self, ttft_ns: u64) {
        self.ttft.add(ttft_ns);
    }
}

impl Rolling {
    fn new() -> Self {
        Self { values_us: std::array::from_fn(|_| AtomicU32::new(0)), count: AtomicU64::new(0) }
    }

    fn add(&self, value_ns: u64) {
        let place = self.count.fetch_add(1, Relaxed) as usize % RECENT;
        let value_us = u32::try_from(value_ns / 1000).unwrap_or(u32::MAX);
        self.values_us[place].store(value_us, Relaxed);
    }

    fn sorted(&self) -> Vec<u32> {
        let known = (self.count.load(Relaxed) as usize).min(RECENT);
        let mut values: Vec<u32> =
            self.values_us[..known].iter().map(|value| value.load(Relaxed)).collect();
        values.sort_unstable();
        values
    }
}

fn percentile_ms(sorted_us: &[u32], percentile: usize) -> Option<f64> {
    let rank = (sorted_us.len() * percentile).div_ceil(100);
    Some(f64::from(*sorted_us.get(rank.checked_sub(1)?)?) / 1000.0)
}
