//! What the HTTP room costs a request: parsing, refusing, streaming, over the simulated device
//! with steps that take no time. `cargo bench --bench http`
#![allow(missing_docs, reason = "criterion's macros make functions without documentation")]
#![allow(dead_code, unreachable_pub, reason = "the rig serves the tests first")]
#![allow(clippy::unwrap_used, reason = "a bench may end with a panic")]

#[path = "../tests/suite/http/rig.rs"]
mod rig;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rig::{Options, chat, completion};
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Bodies that are read in full and then not scheduled: the cost of reading alone.
fn parsing(c: &mut Criterion) {
    let (rt, rig) = (runtime(), Options::default());
    let _guard = rt.enter();
    let rig = rig.start();
    let mut group = c.benchmark_group("parse");
    let long = "word ".repeat(12_000);
    for (name, content) in [("chat_1_KiB", &long[..700]), ("chat_60_KiB", &long[..])] {
        // The last field that is read is the one that is wrong.
        let body = chat(json!({
            "messages": [{"role": "user", "content": content}], "temperature": 0.7, "top_p": 0.9,
            "stop": ["a", "b"], "stream": true, "stream_options": {"include_usage": true},
            "safety_identifier": 7
        }));
        let body = body.to_string();
        group.throughput(Throughput::Bytes(body.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                let answered = rt.block_on(rig.post_text(CHAT, body.clone()));
                assert_eq!(answered.status, 400);
                black_box(answered)
            });
        });
    }
    group.finish();
}

/// Refusals of a server that takes no requests: at least 10,000 a second and core are wanted.
fn refusing(c: &mut Criterion) {
    let rt = runtime();
    let _guard = rt.enter();
    let rig = Options::default().start();
    rig.state.gate.drain();
    let body = chat(json!({})).to_string();
    c.bench_function("refuse/draining", |b| {
        b.iter(|| {
            let answered = rt.block_on(rig.post_text(CHAT, body.clone()));
            assert_eq!(answered.status, 503);
            black_box(answered)
        });
    });
}

/// Whole requests, a chunk for each token.
fn generating(c: &mut Criterion) {
    let rt = runtime();
    let _guard = rt.enter();
    let rig = Options::default().start();
    let mut group = c.benchmark_group("generate_256_tokens");
    group.throughput(Throughput::Elements(256));
    group.sample_size(20);
    let logprobs = json!({"stream": true, "logprobs": 5});
    let cases: [(&str, &str, Value); 3] = [
        ("stream", CHAT, chat(json!({"stream": true}))),
        ("whole", CHAT, chat(json!({}))),
        ("stream_with_logprobs", COMPLETIONS, completion(logprobs)),
    ];
    for (name, path, mut body) in cases {
        body["max_tokens"] = json!(256);
        let body = body.to_string();
        group.bench_function(name, |b| {
            b.iter(|| {
                let answered = rt.block_on(rig.post_text(path, body.clone()));
                assert_eq!(answered.status, 200);
                black_box(answered)
            });
        });
    }
    group.finish();
}

/// Requests that end with their first token: the fixed cost of one.
fn short(c: &mut Criterion) {
    let rt = runtime();
    let _guard = rt.enter();
    let rig = Options::default().start();
    let body = chat(json!({"max_tokens": 1})).to_string();
    c.bench_function("generate_1_token", |b| {
        b.iter(|| {
            let answered = rt.block_on(rig.post_text(CHAT, body.clone()));
            assert_eq!(answered.status, 200);
            black_box(answered)
        });
    });
}

criterion_group!(benches, parsing, refusing, generating, short);
criterion_main!(benches);
