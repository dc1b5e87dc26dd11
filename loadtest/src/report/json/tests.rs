use super::*;
use crate::report::fixture;

fn report(summary: &Summary, records: &[RequestRecord], facts: &BenchFacts) -> serde_json::Value {
    let mut text = Vec::new();
    write(&mut text, summary, records, facts).expect("memory can be written to");
    serde_json::from_slice(&text).expect("the report is JSON")
}

#[test]
fn a_summary_comes_back_whole_from_its_report() {
    for summary in
        [fixture::summary(), fixture::many_tenants(), fixture::all_failed(), fixture::single()]
    {
        let mut text = Vec::new();
        write(&mut text, &summary, &[], &BenchFacts::default()).expect("memory can be written to");
        let text = String::from_utf8(text).expect("JSON is UTF-8");
        assert_eq!(read(&text).expect("our own report"), summary);
    }
}

#[test]
fn the_keys_are_those_of_vllm_bench_serve() {
    let facts = BenchFacts { num_prompts: 600, burstiness: Some(1.0), ..BenchFacts::default() };
    let report = report(&fixture::summary(), &[], &facts);
    assert_eq!(report["date"], "20261120-170405");
    assert_eq!(report["model_id"], "demo");
    assert_eq!(report["num_prompts"], 600);
    assert_eq!(report["request_rate"], 10.0);
    assert_eq!(report["max_concurrency"], serde_json::Value::Null);
    assert_eq!(report["completed"], 480);
    assert_eq!(report["failed"], 20);
    assert_eq!(report["total_output_tokens"], 480 * 128);
    assert_eq!(report["output_throughput"], 480.0 * 128.0 / 50.0);
    let all_tokens = 480.0 * 256.0 / 50.0 + 480.0 * 128.0 / 50.0;
    assert_eq!(report["total_token_throughput"], all_tokens);
    let ttft = &fixture::summary().total.ttft;
    assert_eq!(report["mean_ttft_ms"], ttft.mean_ms);
    assert_eq!(report["median_ttft_ms"].as_f64(), ttft.percentile(50.0));
    assert_eq!(report["p99.9_ttft_ms"].as_f64(), ttft.percentile(99.9));
    for metric in ["ttft", "tpot", "itl", "e2el"] {
        for figure in ["mean", "median", "std", "p50", "p90", "p95", "p99", "p99.9"] {
            assert!(report[format!("{figure}_{metric}_ms")].is_number(), "{figure} of {metric}");
        }
    }
    assert!(report.get("ttfts").is_none(), "only with --save-detailed");
}

#[test]
fn metrics_and_percentiles_are_chosen() {
    let facts = BenchFacts {
        metrics: vec!["ttft".parse().expect("a metric")],
        percentiles: vec![99.0],
        ..BenchFacts::default()
    };
    let report = report(&fixture::summary(), &[], &facts);
    let keys = report.as_object().expect("an object").keys();
    let mut chosen: Vec<&String> = keys.filter(|key| key.ends_with("_ms")).collect();
    // Their order depends on a feature of serde_json that other members of the workspace turn on.
    chosen.sort();
    assert_eq!(chosen, ["mean_ttft_ms", "median_ttft_ms", "p99_ttft_ms", "std_ttft_ms"]);
    assert!("tttf".parse::<Metric>().unwrap_err().to_string().contains("ttft, tpot, itl and e2el"));
}

#[test]
fn closed_loop_and_missing_figures_are_said_so() {
    let closed = report(&fixture::single(), &[], &BenchFacts::default());
    assert_eq!(closed["request_rate"], "inf");
    assert_eq!(closed["max_concurrency"], 1);
    assert_eq!(closed["request_goodput"], serde_json::Value::Null);
    let failed = report(&fixture::all_failed(), &[], &BenchFacts::default());
    assert_eq!(failed["mean_ttft_ms"], serde_json::Value::Null);
    assert_eq!(failed["failed"], 500);
}

#[test]
fn details_have_an_entry_for_each_request() {
    let records = [fixture::completed(), fixture::refused()];
    let facts = BenchFacts { detailed: true, ..BenchFacts::default() };
    let report = report(&fixture::summary(), &records, &facts);
    assert_eq!(report["input_lens"], serde_json::json!([11, 10]));
    assert_eq!(report["output_lens"], serde_json::json!([2, 0]));
    assert_eq!(report["ttfts"], serde_json::json!([0.101, 0.0]));
    assert_eq!(report["itls"], serde_json::json!([[0.05], []]));
    assert_eq!(report["start_times"], serde_json::json!([1.0, 1.0]));
    assert_eq!(report["errors"], serde_json::json!(["", "429 queue_full: the queue is full"]));
}
