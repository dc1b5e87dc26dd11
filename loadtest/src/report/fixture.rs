//! Summaries and records for the tests of the reports, made of values that are easy to check.

use std::collections::BTreeMap;

use crate::plan::Pacing;
use crate::record::{Outcome, RequestRecord};
use crate::summary::{Distribution, Group, Objectives, RunFacts, Summary, Tick, Validity};

/// A distribution of values, by nearest rank.
pub fn distribution(mut values: Vec<f64>) -> Distribution {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    if n == 0 {
        return Distribution::default();
    }
    let mean = values.iter().sum::<f64>() / n as f64;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n as f64;
    let rank = |part: f64| values[((part * n as f64).ceil() as usize).clamp(1, n) - 1];
    let every = n.div_ceil(200);
    let mut cdf: Vec<(f64, f64)> = (0..n)
        .filter(|place| place % every == every - 1)
        .map(|place| (values[place], (place + 1) as f64 / n as f64))
        .collect();
    if cdf.last().is_none_or(|(_, part)| *part < 1.0) {
        cdf.push((values[n - 1], 1.0));
    }
    Distribution {
        count: n as u64,
        mean_ms: mean,
        std_ms: variance.sqrt(),
        min_ms: values[0],
        max_ms: values[n - 1],
        percentiles: [50.0, 90.0, 95.0, 99.0, 99.9].map(|p| (p, rank(p / 100.0))).to_vec(),
        cdf,
        hdr: "HISTFAAAAB".to_owned(),
    }
}

/// Values along an exponential distribution's quantiles above a floor: looks like latencies.
pub fn latencies(n: usize, floor: f64, mean: f64) -> Distribution {
    let quantile = |place: usize| (place as f64 + 0.5) / n as f64;
    distribution((0..n).map(|place| floor - mean * (1.0 - quantile(place)).ln()).collect())
}

/// A group in which `completed` of `requests` completed and the rest was refused.
pub fn group(name: &str, requests: usize, completed: usize, slowness: f64) -> Group {
    let refused = (requests - completed) as u64;
    let ttft = latencies(completed, 20.0 * slowness, 15.0 * slowness);
    Group {
        name: name.to_owned(),
        outcomes: counts(&[("completed", completed as u64), ("refused", refused)]),
        failures: counts(&[("429 queue_full", refused)]),
        requests: requests as u64,
        attempts: requests as u64 + refused,
        prompt_tokens: completed as u64 * 256,
        cached_tokens: completed as u64 * 64,
        output_tokens: completed as u64 * 128,
        requests_per_s: completed as f64 / 50.0,
        prompt_tokens_per_s: completed as f64 * 256.0 / 50.0,
        output_tokens_per_s: completed as f64 * 128.0 / 50.0,
        goodput_per_s: completed as f64 * 0.9 / 50.0,
        goodput_fraction: completed as f64 * 0.9 / requests.max(1) as f64,
        ttft_from_sent: latencies(completed, 19.5 * slowness, 14.5 * slowness),
        ttft,
        tpot: latencies(completed, 8.0 * slowness, 1.0),
        itl: latencies(completed * 20, 2.0, 6.0 * slowness),
        e2el: latencies(completed, 900.0 * slowness, 300.0),
        e2el_from_sent: latencies(completed, 899.0 * slowness, 300.0),
        queue: latencies(completed, 1.0, 4.0),
        send_delay: latencies(requests, 0.05, 0.1),
        ..Group::default()
    }
}

/// Counts by name, zeros left out.
pub fn counts(all: &[(&str, u64)]) -> BTreeMap<String, u64> {
    all.iter().filter(|(_, n)| *n > 0).map(|(name, n)| ((*name).to_owned(), *n)).collect()
}

/// A run of a minute at ten requests a second with one tenant.
pub fn summary() -> Summary {
    let total = group("all", 500, 480, 1.0);
    Summary {
        run: RunFacts {
            name: "steady".into(),
            command: "loadtest run steady --base-url http://127.0.0.1:8000".into(),
            started_at: "2026-11-20T17:04:05+00:00".into(),
            base_url: "http://127.0.0.1:8000".into(),
            endpoint: "/v1/chat/completions".into(),
            model: "demo".into(),
            seed: 7,
            pacing: Pacing::Open,
            request_rate: Some(10.0),
            elapsed_s: 61.5,
            measured_s: 50.0,
            warmup_s: 5.0,
            cooldown_s: 5.0,
            interrupted: false,
            peak_concurrency: 23,
            peak_memory_bytes: 20 << 20,
        },
        validity: Validity { valid: true, reasons: vec![] },
        objectives: Objectives { ttft_ms: Some(200.0), tpot_ms: Some(20.0), e2el_ms: None },
        tenants: vec![Group { name: "default".into(), ..total.clone() }],
        total,
        timeline: (0..62).map(tick).collect(),
    }
}

/// A run of 30 tenants, one of which misbehaves and is named to do harm.
pub fn many_tenants() -> Summary {
    let mut summary = summary();
    summary.run.name = "noisy-neighbour".into();
    summary.run.request_rate = Some(100.0);
    summary.total = group("all", 5000, 4700, 1.4);
    summary.total.failures.insert("503 overloaded".into(), 41);
    summary.total.failures.insert("500 <script>alert(1)</script>".into(), 3);
    summary.tenants = (0..30)
        .map(|n| {
            let slowness = 1.0 + f64::from(n % 7) / 5.0;
            group(&format!("tenant-{n:02}"), 166, 166 - (n % 4) as usize * 9, slowness)
        })
        .collect();
    summary.tenants[3].name = "<script>alert('tenant')</script>".into();
    summary.tenants[3].class = Some("batch\"><img src=x>".into());
    summary.tenants[4] = group("hog", 900, 210, 9.0);
    summary.tenants[4].abusive = true;
    summary
}

/// A run in which every request failed.
pub fn all_failed() -> Summary {
    let mut summary = summary();
    summary.validity = Validity {
        valid: false,
        reasons: vec!["No request completed: 500 of 500 were unreachable.".into()],
    };
    summary.total = Group {
        name: "all".into(),
        outcomes: counts(&[("unreachable", 500)]),
        failures: counts(&[("connect", 500)]),
        requests: 500,
        attempts: 500,
        send_delay: latencies(500, 0.05, 0.1),
        ..Group::default()
    };
    summary.tenants = vec![summary.total.clone()];
    for tick in &mut summary.timeline {
        tick.failed = tick.sent;
        (tick.completed, tick.chunks, tick.in_flight) = (0, 0, 0);
        (tick.ttft_p50_ms, tick.ttft_p99_ms) = (None, None);
    }
    summary
}

/// A run of one request.
pub fn single() -> Summary {
    let mut summary = summary();
    summary.objectives = Objectives::default();
    summary.total = group("all", 1, 1, 1.0);
    summary.tenants = vec![summary.total.clone()];
    summary.run.request_rate = None;
    summary.run.pacing = Pacing::Closed { concurrency: 1 };
    (summary.run.warmup_s, summary.run.cooldown_s) = (0.0, 0.0);
    summary.timeline = vec![Tick {
        scheduled: 1,
        sent: 1,
        completed: 1,
        chunks: 128,
        ttft_p50_ms: Some(35.0),
        ttft_p99_ms: Some(35.0),
        ..Tick::default()
    }];
    summary
}

/// A completed request: sent at 1 s, chunks at 1.1 and 1.15 s.
pub fn completed() -> RequestRecord {
    RequestRecord {
        index: 0,
        tenant: 0,
        scheduled_ns: 999_000_000,
        sent_ns: Some(1_000_000_000),
        end_ns: 1_200_000_000,
        outcome: Outcome::Completed,
        status: Some(200),
        code: None,
        message: None,
        attempts: 1,
        last_sent_ns: Some(1_000_000_000),
        headers_ns: Some(1_050_000_000),
        chunks_ns: vec![1_100_000_000, 1_150_000_000],
        prompt_tokens: Some(11),
        cached_tokens: None,
        output_tokens: Some(2),
        prompt_tokens_wanted: Some(10),
        output_tokens_wanted: 2,
        body_bytes: 812,
        finish_reason: Some("length".into()),
    }
}

/// A refused request.
pub fn refused() -> RequestRecord {
    RequestRecord {
        index: 1,
        outcome: Outcome::Refused,
        status: Some(429),
        code: Some("queue_full".into()),
        message: Some("the queue is full".into()),
        chunks_ns: vec![],
        output_tokens: None,
        prompt_tokens: None,
        finish_reason: None,
        ..completed()
    }
}

fn tick(second: u32) -> Tick {
    let stalled = (30..33).contains(&second);
    let running = second < 60;
    Tick {
        second,
        scheduled: u32::from(running) * (8 + second * 7 % 5),
        sent: u32::from(running) * (8 + second * 7 % 5),
        completed: if stalled { 0 } else { 9 + second * 3 % 4 },
        failed: u32::from(second % 9 == 4),
        chunks: if stalled { 0 } else { 1200 + second * 37 % 150 },
        in_flight: if stalled { 12 + (second - 29) * 10 } else { 11 + second % 4 },
        ttft_p50_ms: (!stalled).then_some(30.0 + f64::from(second % 5)),
        ttft_p99_ms: (!stalled).then_some(if second == 33 { 2900.0 } else { 80.0 }),
    }
}
