//! The JSON report: the keys of `vllm bench serve`, so that scripts made for its results read
//! ours, and under `"loadtest"` the whole [`Summary`].
//!
//! The keys mean what they mean in vLLM, except:
//! - `*_ttft_ms` and `*_e2el_ms` are from the *scheduled* time (vLLM: from sending). The figures
//!   from sending are in the block, as `ttft_from_sent` and `e2el_from_sent`.
//! - `*_tpot_ms` is (last token - first token) / (n - 1); vLLM takes the end of the response in
//!   place of the last token, so its value has the `usage` chunk and the stream's end in it.
//! - Figures are of the measured window: `duration` is its length, `completed` and `failed` are
//!   of its requests. The lists of `--save-detailed` are of all requests of the plan, warm-up
//!   included; `start_times` tells them apart.
//! - A figure without values is `null` (vLLM: `0`).
//! - `start_times` are seconds since the run's start; `generated_texts` is not written.

use std::io::{self, Write};

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use super::figures;
use crate::clock::seconds;
use crate::plan::Pacing;
use crate::record::{Outcome, RequestRecord};
use crate::summary::{Distribution, Group, Summary};

/// Facts that `vllm bench serve` writes and a [`Summary`] does not have, and what is chosen of the
/// rest.
#[derive(Clone, Debug, PartialEq)]
pub struct BenchFacts {
    /// `backend`: `openai-chat` or `openai`.
    pub backend: String,
    /// `tokenizer_id`.
    pub tokenizer_id: Option<String>,
    /// `num_prompts`: requests of the plan.
    pub num_prompts: u64,
    /// `burstiness`: shape of the gamma distribution of gaps, 1 is Poisson.
    pub burstiness: Option<f64>,
    /// `--percentile-metrics`.
    pub metrics: Vec<Metric>,
    /// `--metric-percentiles`; those that the summary does not have are left out.
    pub percentiles: Vec<f64>,
    /// `--save-detailed`.
    pub detailed: bool,
}

/// A latency with keys of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Time to first token.
    Ttft,
    /// Time per output token.
    Tpot,
    /// Inter-token latency.
    Itl,
    /// End to end.
    E2el,
}

/// A value of `--percentile-metrics` that is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no metric: expected a list of ttft, tpot, itl and e2el, set apart by commas")]
pub struct UnknownMetric(pub String);

/// A JSON report that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("this is no JSON report of loadtest (it needs a \"loadtest\" block): {0}")]
pub struct ReadError(#[from] serde_json::Error);

#[derive(Deserialize)]
struct Envelope {
    loadtest: Summary,
}

struct Report<'a> {
    summary: &'a Summary,
    records: &'a [RequestRecord],
    facts: &'a BenchFacts,
}

/// A value of each record, written as it is computed: a run's gaps may be many millions.
struct Each<'a, T>(&'a [RequestRecord], fn(&RequestRecord) -> T);

impl Metric {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Ttft, Self::Tpot, Self::Itl, Self::E2el];

    /// Its word in flags and keys.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ttft => "ttft",
            Self::Tpot => "tpot",
            Self::Itl => "itl",
            Self::E2el => "e2el",
        }
    }

    fn of(self, group: &Group) -> &Distribution {
        match self {
            Self::Ttft => &group.ttft,
            Self::Tpot => &group.tpot,
            Self::Itl => &group.itl,
            Self::E2el => &group.e2el,
        }
    }
}

impl std::str::FromStr for Metric {
    type Err = UnknownMetric;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|metric| metric.word() == word.trim());
        found.ok_or_else(|| UnknownMetric(word.to_owned()))
    }
}

impl Default for BenchFacts {
    fn default() -> Self {
        Self {
            backend: "openai-chat".to_owned(),
            tokenizer_id: None,
            num_prompts: 0,
            burstiness: None,
            metrics: Metric::ALL.to_vec(),
            percentiles: vec![50.0, 90.0, 95.0, 99.0, 99.9],
            detailed: false,
        }
    }
}

impl Serialize for Report<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.run_keys(&mut map)?;
        self.total_keys(&mut map)?;
        for metric in &self.facts.metrics {
            self.metric_keys(&mut map, *metric)?;
        }
        if self.facts.detailed {
            self.detailed_keys(&mut map)?;
        }
        map.serialize_entry("loadtest", self.summary)?;
        map.end()
    }
}

impl Report<'_> {
    fn run_keys<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        let run = &self.summary.run;
        map.serialize_entry("date", &vllm_date(&run.started_at))?;
        map.serialize_entry("backend", &self.facts.backend)?;
        map.serialize_entry("model_id", &run.model)?;
        map.serialize_entry("tokenizer_id", &self.facts.tokenizer_id)?;
        map.serialize_entry("num_prompts", &self.facts.num_prompts)?;
        match run.request_rate {
            Some(rate) => map.serialize_entry("request_rate", &rate)?,
            None => map.serialize_entry("request_rate", "inf")?,
        }
        map.serialize_entry("burstiness", &self.facts.burstiness)?;
        let concurrency = match run.pacing {
            Pacing::Open => None,
            Pacing::Closed { concurrency } => Some(concurrency),
        };
        map.serialize_entry("max_concurrency", &concurrency)
    }

    fn total_keys<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        let (run, total) = (&self.summary.run, &self.summary.total);
        let completed = total.outcomes.get("completed").copied().unwrap_or(0);
        let objectives = figures::objectives(&self.summary.objectives);
        map.serialize_entry("duration", &run.measured_s)?;
        map.serialize_entry("completed", &completed)?;
        map.serialize_entry("failed", &total.requests.saturating_sub(completed))?;
        map.serialize_entry("total_input_tokens", &total.prompt_tokens)?;
        map.serialize_entry("total_output_tokens", &total.output_tokens)?;
        map.serialize_entry("request_throughput", &total.requests_per_s)?;
        map.serialize_entry("request_goodput", &objectives.map(|_| total.goodput_per_s))?;
        map.serialize_entry("output_throughput", &total.output_tokens_per_s)?;
        let all_tokens = total.prompt_tokens_per_s + total.output_tokens_per_s;
        map.serialize_entry("total_token_throughput", &all_tokens)?;
        map.serialize_entry("max_concurrent_requests", &run.peak_concurrency)
    }

    fn metric_keys<M: SerializeMap>(&self, map: &mut M, metric: Metric) -> Result<(), M::Error> {
        let (word, values) = (metric.word(), metric.of(&self.summary.total));
        let known = |value: f64| (values.count > 0).then_some(value);
        map.serialize_entry(&format!("mean_{word}_ms"), &known(values.mean_ms))?;
        map.serialize_entry(&format!("median_{word}_ms"), &values.percentile(50.0))?;
        map.serialize_entry(&format!("std_{word}_ms"), &known(values.std_ms))?;
        for percentile in &self.facts.percentiles {
            if let Some(value) = values.percentile(*percentile) {
                map.serialize_entry(&format!("p{percentile}_{word}_ms"), &known(value))?;
            }
        }
        Ok(())
    }

    fn detailed_keys<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        let records = self.records;
        map.serialize_entry(
            "input_lens",
            &Each(records, |r| r.prompt_tokens.or(r.prompt_tokens_wanted).unwrap_or(0)),
        )?;
        map.serialize_entry("output_lens", &Each(records, RequestRecord::output_tokens_counted))?;
        map.serialize_entry("ttfts", &Each(records, ttft_s))?;
        map.serialize_entry("itls", &Each(records, gaps_s))?;
        map.serialize_entry("start_times", &Each(records, |r| r.sent_ns.map(seconds)))?;
        map.serialize_entry("errors", &Each(records, error_text))
    }
}

impl<T: Serialize> Serialize for Each<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(self.1))
    }
}

/// Writes the report on one line, in vLLM's manner.
///
/// # Errors
///
/// What the writer says.
pub fn write(
    out: &mut dyn Write,
    summary: &Summary,
    records: &[RequestRecord],
    facts: &BenchFacts,
) -> io::Result<()> {
    serde_json::to_writer(&mut *out, &Report { summary, records, facts })?;
    out.write_all(b"\n")
}

/// The summary in a JSON report.
///
/// # Errors
///
/// When the text is no report of ours.
pub fn read(text: &str) -> Result<Summary, ReadError> {
    let envelope: Envelope = serde_json::from_str(text)?;
    Ok(envelope.loadtest)
}

/// `2026-11-20T17:04:05+00:00` as vLLM's `20261120-170405`; anything else as it is.
fn vllm_date(started_at: &str) -> String {
    match chrono::DateTime::parse_from_rfc3339(started_at) {
        Ok(time) => time.format("%Y%m%d-%H%M%S").to_string(),
        Err(_) => started_at.to_owned(),
    }
}

fn ttft_s(record: &RequestRecord) -> f64 {
    let first = record.first_token_ns();
    first.map_or(0.0, |first| seconds(first.saturating_sub(record.scheduled_ns)))
}

fn gaps_s(record: &RequestRecord) -> Vec<f64> {
    record.chunks_ns.windows(2).map(|pair| seconds(pair[1].saturating_sub(pair[0]))).collect()
}

/// Empty for a completed request, as in vLLM.
fn error_text(record: &RequestRecord) -> String {
    if record.outcome == Outcome::Completed {
        return String::new();
    }
    let code = record.code.as_deref().unwrap_or("no code");
    let message = record.message.as_deref().unwrap_or("");
    match record.status {
        Some(status) => format!("{status} {code}: {message}"),
        None => format!("{code}: {message}"),
    }
}

#[cfg(test)]
mod tests;
