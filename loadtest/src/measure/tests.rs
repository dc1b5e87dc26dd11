//! Figures against records that were computed by hand.

use super::*;
use crate::client::planned;
use crate::plan::{Behaviour, PlannedRequest, Prompt, PromptPiece, Tenant};

const MS: u64 = 1_000_000;
const S: u64 = 1_000_000_000;

fn plan(pacing: Pacing, warmup_ns: u64, cooldown_ns: u64) -> Plan {
    let tenant = |name: &str, abusive: bool| Tenant {
        name: name.to_owned(),
        api_key: None,
        class: None,
        share: 1.0,
        abusive,
    };
    Plan {
        seed: 1,
        pacing,
        tenants: vec![tenant("a", false), tenant("b", true)],
        requests: Vec::new(),
        warmup_ns,
        cooldown_ns,
        duration_ns: None,
    }
}

/// A completed request: due at `at_ms`, sent 1 ms late, headers 4 ms after that, first of `tokens`
/// tokens `ttft_ms` after it was due, then one each `gap_ms`, and the end 2 ms after the last.
fn completed(index: u32, at_ms: u64, ttft_ms: u64, gap_ms: u64, tokens: u32) -> RequestRecord {
    let request = PlannedRequest {
        index,
        tenant: (index % 2) as u16,
        scheduled_ns: at_ms * MS,
        prompt: Prompt::Synthetic(vec![PromptPiece { seed: 1, tokens: 50 }]),
        output_tokens: tokens,
        behaviour: Behaviour::default(),
    };
    let first_ms = at_ms + ttft_ms;
    let chunks_ns: Vec<u64> =
        (0..u64::from(tokens)).map(|n| (first_ms + n * gap_ms) * MS).collect();
    RequestRecord {
        sent_ns: Some((at_ms + 1) * MS),
        last_sent_ns: Some((at_ms + 1) * MS),
        headers_ns: Some((at_ms + 5) * MS),
        end_ns: chunks_ns.last().copied().unwrap_or(first_ms * MS) + 2 * MS,
        chunks_ns,
        outcome: Outcome::Completed,
        status: Some(200),
        attempts: 1,
        prompt_tokens: Some(50),
        cached_tokens: Some(16),
        output_tokens: Some(tokens),
        ..planned(&request, at_ms * MS)
    }
}

fn failed(index: u32, at_ms: u64, outcome: Outcome, status: Option<u16>) -> RequestRecord {
    RequestRecord {
        outcome,
        status,
        code: Some("queue_full".to_owned()),
        attempts: 3,
        output_tokens: None,
        chunks_ns: Vec::new(),
        ..completed(index, at_ms, 5, 1, 1)
    }
}

fn facts() -> RunFacts {
    serde_json::from_value(serde_json::json!({
        "name": "t", "command": "", "started_at": "", "base_url": "", "endpoint": "", "model": "",
        "seed": 1, "pacing": "open", "request_rate": null, "elapsed_s": 10.0, "measured_s": 0.0,
        "warmup_s": 0.0, "cooldown_s": 0.0, "interrupted": false, "peak_concurrency": 0,
        "peak_memory_bytes": 0,
    }))
    .unwrap()
}

fn figures(plan: &Plan, records: &[RequestRecord], objectives: Objectives) -> Summary {
    let lateness_ns: Vec<u64> = vec![MS; records.len()];
    let measured = Measured {
        plan,
        records,
        lateness_ns: &lateness_ns,
        interrupted_ns: None,
        objectives,
        percentiles: &[],
        send_delay_ms_max: 5.0,
    };
    measure(&measured, facts())
}

fn close(value: f64, truth: f64) {
    assert!((value - truth).abs() <= truth.abs() * 0.001, "{value} is not {truth}");
}

#[test]
fn latencies_are_from_the_times_that_their_definitions_say() {
    let records = [completed(0, 0, 100, 10, 11), completed(1, 500, 300, 20, 21)];
    let summary = figures(&plan(Pacing::Open, 0, 0), &records, Objectives::default());
    let total = &summary.total;
    close(total.ttft.mean_ms, 200.0);
    close(total.ttft_from_sent.mean_ms, 199.0);
    close(total.tpot.mean_ms, 15.0);
    // 10 gaps of 10 ms and 20 gaps of 20 ms, pooled.
    assert_eq!(total.itl.count, 30);
    close(total.itl.mean_ms, 500.0 / 30.0);
    close(total.itl.percentile(50.0).unwrap(), 20.0);
    close(total.e2el.min_ms, 202.0);
    close(total.e2el.max_ms, 702.0);
    close(total.e2el_from_sent.max_ms, 701.0);
    close(total.queue.mean_ms, 4.0);
    close(total.send_delay.mean_ms, 1.0);
    close(summary.run.measured_s, 1.202);
    close(total.requests_per_s, 2.0 / 1.202);
    close(total.output_tokens_per_s, 32.0 / 1.202);
    close(total.prompt_tokens_per_s, 100.0 / 1.202);
    assert_eq!((total.output_tokens, total.prompt_tokens, total.cached_tokens), (32, 100, 32));
    assert_eq!(summary.tenants[1].requests, 1);
    assert!(summary.tenants[1].abusive);
    close(summary.tenants[1].ttft.mean_ms, 300.0);
}

#[test]
fn goodput_counts_failures_against_the_server() {
    let mut records = vec![
        completed(0, 0, 100, 10, 11),
        completed(1, 100, 300, 10, 11),
        completed(2, 200, 100, 30, 11),
        failed(3, 300, Outcome::Refused, Some(429)),
    ];
    records[0].output_tokens = Some(11);
    let objectives =
        Objectives { ttft_ms: Some(200.0), tpot_ms: Some(20.0), e2el_ms: Some(5000.0) };
    let summary = figures(&plan(Pacing::Open, 0, 0), &records, objectives);
    let total = &summary.total;
    close(total.goodput_fraction, 0.25);
    close(total.goodput_per_s, 1.0 / summary.run.measured_s);
    assert_eq!(total.failures["429 queue_full"], 1);
    assert_eq!(total.outcomes["completed"], 3);
    assert_eq!(total.attempts, 6);
    // Who leaves as planned says nothing of the server.
    let mut left = records.to_vec();
    left[3].outcome = Outcome::Disconnected;
    let without = figures(&plan(Pacing::Open, 0, 0), &left, objectives);
    close(without.total.goodput_fraction, 1.0 / 3.0);
    // A single token meets any time between tokens; an answer without a token meets no TTFT.
    let limits = Objectives { tpot_ms: Some(0.001), ..Objectives::default() };
    assert!(is_good(&completed(0, 0, 5, 0, 1), &limits));
    let limits = Objectives { ttft_ms: Some(1e9), ..Objectives::default() };
    assert!(!is_good(&completed(0, 0, 5, 0, 0), &limits));
}

#[test]
fn warm_up_and_cool_down_are_cut_and_rates_are_of_what_happened_between() {
    // One request each 100 ms for 10 s, each an answer of 11 tokens within 200 ms.
    let records: Vec<RequestRecord> =
        (0..100).map(|n| completed(n, u64::from(n) * 100, 100, 10, 11)).collect();
    let cut = figures(&plan(Pacing::Open, 2 * S, 3 * S), &records, Objectives::default());
    close(cut.run.measured_s, 9.9 - 3.0 - 2.0);
    // Due at 2.0 s to 6.9 s, both included.
    assert_eq!(cut.total.requests, 50);
    close(cut.total.requests_per_s, 10.0);
    assert!((cut.total.output_tokens_per_s - 110.0).abs() < 1.2, "{cut:?}");
    assert_eq!(cut.timeline.len(), 11);
    assert_eq!(cut.timeline[0].scheduled, 10);
    assert_eq!(cut.timeline[4].in_flight, 2);
    close(cut.timeline[4].ttft_p50_ms.unwrap(), 100.0);
}

/// An open loop asks for 10 requests a second and the server does 5: counting the requests that
/// were due in the window would say 10.
#[test]
fn an_overloaded_server_gets_the_rate_that_it_did() {
    let records: Vec<RequestRecord> =
        (0..100).map(|n| completed(n, u64::from(n) * 100, u64::from(n) * 100 + 50, 1, 2)).collect();
    let summary = figures(&plan(Pacing::Open, 2 * S, S), &records, Objectives::default());
    assert!((summary.total.requests_per_s - 5.0).abs() < 0.2, "{}", summary.total.requests_per_s);
}

#[test]
fn a_late_generator_and_an_empty_window_make_a_run_invalid() {
    let records = [completed(0, 0, 50, 10, 11)];
    let open = plan(Pacing::Open, 0, 0);
    let late = Measured {
        plan: &open,
        records: &records,
        lateness_ns: &[6 * MS; 2],
        interrupted_ns: None,
        objectives: Objectives::default(),
        percentiles: &[],
        send_delay_ms_max: 5.0,
    };
    let summary = measure(&late, facts());
    assert!(!summary.validity.valid);
    assert!(summary.validity.reasons[0].contains("p99 send delay 6.0 ms, limit 5.0 ms"));
    // In a short run one hiccup of the machine is no reason, and in a long one 1 % are none.
    let one = Measured { lateness_ns: &[6 * MS, 0, 0], ..late };
    assert!(measure(&one, facts()).validity.valid);
    let mut few = vec![0; 1000];
    few[..10].fill(6 * MS);
    assert!(measure(&Measured { lateness_ns: &few, ..late }, facts()).validity.valid);
    few[10] = 6 * MS;
    assert!(!measure(&Measured { lateness_ns: &few, ..late }, facts()).validity.valid);
    // 6 ms do no harm where the first token takes 200 ms.
    let slow = [completed(0, 0, 200, 10, 11)];
    assert!(measure(&Measured { records: &slow, ..late }, facts()).validity.valid);
    let warm = plan(Pacing::Open, S, 0);
    let empty = Measured { plan: &warm, records: &slow, lateness_ns: &[], ..late };
    let reasons = measure(&empty, facts()).validity;
    assert!(!reasons.valid && reasons.reasons[0].contains("--warmup"), "{reasons:?}");
    let refused = [failed(0, 0, Outcome::Refused, Some(503))];
    let none = measure(&Measured { records: &refused, ..late }, facts()).validity;
    assert!(none.reasons.iter().any(|reason| reason.contains("503 queue_full")), "{none:?}");
}

#[test]
fn what_was_never_sent_because_of_an_interrupt_is_not_the_servers_fault() {
    let mut unsent = failed(1, 5_000, Outcome::NotSent, None);
    unsent.sent_ns = None;
    let records = [completed(0, 0, 50, 10, 11), unsent];
    let open = plan(Pacing::Open, 0, 0);
    let stopped = Measured {
        plan: &open,
        records: &records,
        lateness_ns: &[0],
        interrupted_ns: Some(S),
        objectives: Objectives::default(),
        percentiles: &[],
        send_delay_ms_max: 5.0,
    };
    let summary = measure(&stopped, facts());
    assert_eq!(summary.total.requests, 1);
    close(summary.total.goodput_fraction, 1.0);
    assert!(summary.validity.valid && summary.run.interrupted);
}

/// Two profiles ran one after the other with the same seed, and the second one's TTFT was that of
/// the server's cache.
#[test]
fn a_cache_that_knows_more_than_the_plan_shares_is_told() {
    let mut open = plan(Pacing::Open, 0, 0);
    let piece = |seed, tokens| PromptPiece { seed, tokens };
    open.requests = (0..4)
        .map(|index| PlannedRequest {
            index,
            tenant: 0,
            scheduled_ns: 0,
            prompt: Prompt::Synthetic(vec![piece(1, 30), piece(100 + u64::from(index), 20)]),
            output_tokens: 4,
            behaviour: Behaviour::default(),
        })
        .collect();
    let told = |cached_tokens: u32| {
        let records = (0..4).map(|index| RequestRecord {
            cached_tokens: Some(cached_tokens),
            ..completed(index, 0, 50, 10, 4)
        });
        let records: Vec<RequestRecord> = records.collect();
        let reasons = figures(&open, &records, Objectives::default()).validity.reasons;
        reasons.into_iter().find(|reason| reason.contains("cache"))
    };
    // 90 of the 200 tokens of the plan are shared.
    assert_eq!(told(30), None);
    let note = told(40).unwrap();
    assert!(note.contains("80 % of the prompt tokens") && note.contains("only 45 %"), "{note}");
}
