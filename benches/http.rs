//! What the HTTP room costs a request: parsing, refusing, streaming, over the simulated device
//! with steps that take no time. `cargo bench --bench http`
#![allow(missing_docs, reason = "criterion's macros make functions without documentation")]
#![allow(dead_code, unreachable_pub, reason = "the rig serves the tests first")]
#![allow(clippy::unwrap_used, reason = "a bench may end with a panic")]

#[path = "../tests/suite/http/rig.rs"]
mod rig;

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Bencher, Criterion, Throughput, criterion_group, criterion_main};
use futures_util::future::join_all;
use rig::{Options, Rig, chat, completion};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use weir::config::ListenerLimits;
use weir::device::SamplingParams;
use weir::engine::{Event, Share, Stops, Submission, reply_channel};
use weir::ids::{RequestId, TenantId, TokenId};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Posts a body again and again; each answer has this status.
fn ask(b: &mut Bencher<'_>, rt: &Runtime, rig: &Rig, path: &str, body: &str, status: u16) {
    b.iter(|| {
        let answered = rt.block_on(rig.post_text(path, body.to_owned()));
        assert_eq!(answered.status, status);
        black_box(answered)
    });
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
            ask(b, &rt, &rig, CHAT, &body, 400);
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
        ask(b, &rt, &rig, CHAT, &body, 503);
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
            ask(b, &rt, &rig, path, &body, 200);
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
        ask(b, &rt, &rig, CHAT, &body, 200);
    });
}

/// The same 256 tokens from the engine alone, without text and HTTP. What `stream` of
/// `generate_256_tokens` takes beyond this is detokenising, SSE writing and the router; what
/// `whole` takes beyond it is all that without SSE.
fn engine_alone(c: &mut Criterion) {
    let rt = runtime();
    let _guard = rt.enter();
    let rig = Options::default().start();
    let mut group = c.benchmark_group("generate_256_tokens");
    group.throughput(Throughput::Elements(256));
    group.sample_size(20);
    let mut id = 0;
    group.bench_function("engine_alone", |b| {
        b.iter(|| {
            id += 1;
            rt.block_on(engine_tokens(&rig, id, 256))
        });
    });
    group.finish();
}

async fn engine_tokens(rig: &Rig, id: u64, max_tokens: u32) {
    let engine = &rig.state.engine;
    let prompt: Arc<[TokenId]> = (0..20).map(TokenId).collect();
    let (reply, mut stream) =
        reply_channel(RequestId(id), prompt.len(), 1, max_tokens, engine.cancels());
    let submission = Submission {
        id: RequestId(id),
        tenant: TenantId(1),
        share: Share::default(),
        cache_salt: Arc::from(""),
        prompt,
        params: vec![Arc::new(SamplingParams::greedy())],
        max_tokens,
        stops: Stops::default(),
        score_prompt: None,
        priority: 0,
        arrived: rig.state.clock.now(),
        promise: None,
        deadline: None,
        tpot: None,
        reply,
    };
    engine.submit(submission).unwrap();
    loop {
        match stream.next().await {
            Some(Event::Done(_)) | None => break,
            Some(event) => drop(black_box(event)),
        }
    }
}

/// Streams side by side: 64 tokens each, through the router, on a device that takes no time. The
/// rate is that of all of them together, which bounds the server's output on one core.
fn side_by_side(c: &mut Criterion) {
    let rt = runtime();
    let _guard = rt.enter();
    let mut options = Options::default();
    options.sim.limits.blocks_total = 4096;
    options.sim.limits.slots_total = 256;
    let rig = options.start();
    let body = chat(json!({"stream": true, "max_tokens": 64})).to_string();
    let mut group = c.benchmark_group("side_by_side_64_tokens");
    group.sample_size(20);
    for streams in [1_u64, 64, 256] {
        group.throughput(Throughput::Elements(64 * streams));
        group.bench_function(format!("{streams}_streams"), |b| {
            b.iter(|| {
                let requests = (0..streams).map(|_| rig.post_text(CHAT, body.clone()));
                for answered in rt.block_on(join_all(requests)) {
                    assert_eq!(answered.status, 200);
                    black_box(answered);
                }
            });
        });
    }
    group.finish();
}

/// One connection, request after request: with the listener, hyper and the loopback socket.
fn over_a_socket(c: &mut Criterion) {
    let rt = runtime();
    let _guard = rt.enter();
    let rig = Options::default().start();
    let mut stream = rt.block_on(async {
        let address = rig.listen(ListenerLimits::default()).await;
        TcpStream::connect(address).await.unwrap()
    });
    stream.set_nodelay(true).unwrap();
    let mut group = c.benchmark_group("over_a_socket");
    group.sample_size(20);
    for tokens in [1_u64, 256] {
        let body = chat(json!({"stream": true, "max_tokens": tokens})).to_string();
        let request = format!(
            "POST {CHAT} HTTP/1.1\r\nhost: weir\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        group.throughput(Throughput::Elements(tokens));
        group.bench_function(format!("stream_{tokens}_tokens"), |b| {
            b.iter(|| rt.block_on(exchange(&mut stream, &request)));
        });
    }
    group.finish();
}

/// Sends a request and reads to the end of its chunked answer.
async fn exchange(stream: &mut TcpStream, request: &str) {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut buffer = vec![0; 16 << 10];
    let mut end = Vec::new();
    while !end.ends_with(b"\r\n0\r\n\r\n") {
        let count = stream.read(&mut buffer).await.unwrap();
        assert_ne!(count, 0, "the server keeps the connection open");
        end.extend_from_slice(&buffer[..count]);
        end.drain(..end.len().saturating_sub(16));
    }
}

criterion_group!(
    benches,
    parsing,
    refusing,
    generating,
    engine_alone,
    short,
    side_by_side,
    over_a_socket
);
criterion_main!(benches);
