//! The judge is judged first: does the paced server keep its timetable, and its word?

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::paced::{Damage, Fault, PacedServer, Settings, Stall};

/// A response, read to its end; `cut` when the connection broke inside it.
struct Response {
    head: String,
    body: String,
    cut: bool,
}

fn post(server: &PacedServer, path: &str, headers: &str, body: &Value) -> Response {
    let body = body.to_string();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: paced\r\nconnection: close\r\n{headers}\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    exchange(server, &request)
}

fn get(server: &PacedServer, path: &str) -> Response {
    exchange(server, &format!("GET {path} HTTP/1.1\r\nhost: paced\r\nconnection: close\r\n\r\n"))
}

fn exchange(server: &PacedServer, request: &str) -> Response {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    let result = stream.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let chunked = head.contains("chunked");
    let cut = result.is_err() || chunked && !body.ends_with("0\r\n\r\n");
    Response { head: head.to_lowercase(), body: body.to_owned(), cut }
}

fn chat(content: &str) -> Value {
    json!({
        "model": "paced", "messages": [{"role": "user", "content": content}], "stream": true,
        "stream_options": {"include_usage": true}
    })
}

const CHAT: &str = "/v1/chat/completions";

fn quick() -> Settings {
    Settings { ttft_ms: 20.0, gap_ms: 10.0, tokens: 10, ..Settings::default() }
}

#[test]
fn chunks_leave_on_the_timetable_and_not_before() {
    let server = PacedServer::start(quick());
    let response = post(&server, CHAT, "", &chat("one two three"));
    assert!(response.head.starts_with("http/1.1 200"), "{}", response.head);
    assert_eq!(response.body.matches(" word").count(), 10);
    assert!(response.body.contains("\"finish_reason\":\"stop\""));
    assert!(response.body.contains("\"prompt_tokens\":11"), "{}", response.body);
    assert!(response.body.contains("\"completion_tokens\":10"));
    assert!(response.body.contains("data: [DONE]"));

    let truth = server.truth().remove(0);
    assert!(truth.completed);
    assert_eq!((truth.output_tokens, truth.chunks_ns.len()), (10, 10));
    for (index, &chunk_ns) in truth.chunks_ns.iter().enumerate() {
        let due_ns = truth.arrived_ns + 20_000_000 + index as u64 * 10_000_000;
        assert!(chunk_ns >= due_ns, "chunk {index} left early");
    }
    // Lateness does not add up: the mean gap is that of the timetable unless the last chunk
    // alone was late, and then the summary says by how much.
    let late_ms = truth.ttft_ms().unwrap() - 20.0;
    let mean_gap_ms = truth.tpot_ms().unwrap();
    assert!(late_ms >= 0.0 && mean_gap_ms > 10.0 - late_ms / 9.0 - 1e-6);
}

#[test]
fn a_stall_holds_everything_back_and_returns_it() {
    let mut settings = quick();
    settings.stalls = vec!["0.05:0.3".parse().unwrap()];
    assert_eq!(settings.stalls, [Stall { at_ns: 50_000_000, for_ns: 300_000_000 }]);
    let server = PacedServer::start(settings);
    post(&server, CHAT, "", &chat("a"));
    let truth = server.truth().remove(0);
    let since_ms: Vec<u64> =
        truth.chunks_ns.iter().map(|ns| (ns - truth.arrived_ns) / 1_000_000).collect();
    // Due at 20, 30, 40 ms: before it. Due at 50 to 110 ms: at its end, and not before.
    assert!(since_ms[3..].iter().all(|ms| *ms >= 350), "{since_ms:?}");
}

#[test]
fn stalls_that_touch_are_one() {
    let stalls = ["2:1", "1:1", "7:1"].map(|stall| stall.parse().unwrap()).to_vec();
    let settings = Settings { stalls, ..Settings::default() };
    let second = 1_000_000_000;
    let delivered = |due| settings.delivered_ns(due * second) / second;
    assert_eq!([0, 1, 2, 3, 7, 8].map(delivered), [0, 3, 3, 3, 8, 8]);
}

#[test]
fn faults_fall_by_count_on_tries_of_a_request() {
    let mut settings = quick();
    settings.faults =
        vec!["every=3,first=1,tries=2,status=503,code=busy,retry-after-ms=1500".parse().unwrap()];
    let server = PacedServer::start(settings);
    let status = |content: &str| post(&server, CHAT, "", &chat(content)).head[9..12].to_owned();
    let seen = ["a", "b", "b", "c", "b", "d", "e"].map(status);
    assert_eq!(seen, ["200", "503", "503", "200", "200", "200", "503"]);
    let refused = post(&server, CHAT, "", &chat("e"));
    assert!(refused.head.contains("retry-after-ms: 1500"), "{}", refused.head);
    assert!(refused.head.contains("retry-after: 2"), "{}", refused.head);
    assert!(refused.body.contains("\"code\":\"busy\""), "{}", refused.body);
    let tries: Vec<(u64, u32, u16)> =
        server.truth().iter().map(|t| (t.request, t.attempt, t.status)).collect();
    assert_eq!(tries[1..5], [(1, 0, 503), (1, 1, 503), (2, 0, 200), (1, 2, 200)]);
}

#[test]
fn every_damage_is_what_it_says() {
    let server = PacedServer::start(quick());
    let with = |spec: &str| post(&server, CHAT, &format!("x-paced-fault: {spec}\r\n"), &chat("a"));
    let dropped = with("drop-after=3");
    assert!(dropped.cut && dropped.body.matches(" word").count() == 3, "{}", dropped.body);
    let ended = with("end-after=3");
    assert!(!ended.cut && ended.body.matches(" word").count() == 3, "{}", ended.body);
    assert!(!ended.body.contains("[DONE]"));
    let malformed = with("malformed-at=3");
    assert!(malformed.body.contains("{\"del\n") && malformed.body.contains("[DONE]"));
    let error = with("error-event-at=2,code=lost");
    assert!(error.body.contains("\"code\":\"lost\"") && !error.body.contains("[DONE]"));
    let wrong = with("explode=1");
    assert!(wrong.head.starts_with("http/1.1 400"), "{}", wrong.head);
    let completed: Vec<bool> = server.truth().iter().map(|truth| truth.completed).collect();
    assert_eq!(completed, [false; 5]);
}

#[test]
fn a_hanging_answer_ends_when_its_client_leaves() {
    let mut settings = quick();
    settings.faults = vec![Fault::always(Damage::HangAfter(2))];
    let server = PacedServer::start(settings);
    let mut stream = TcpStream::connect(server.address()).unwrap();
    let body = chat("a").to_string();
    let length = body.len();
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: paced\r\ncontent-length: {length}\r\n\r\n");
    stream.write_all((head + &body).as_bytes()).unwrap();
    let mut seen = String::new();
    while seen.matches(" word").count() < 2 {
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).unwrap();
        assert_ne!(count, 0, "the connection stays open: {seen}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    assert_eq!(server.running(), 1);
    drop(stream);
    while server.running() > 0 {
        std::thread::yield_now();
    }
    let truth = server.truth().remove(0);
    assert!(!truth.completed && truth.chunks_ns.len() == 2);
}

#[test]
fn keys_models_places_and_shapes() {
    let settings = Settings {
        api_key: Some("secret".to_owned()),
        no_usage: true,
        whole_only: true,
        tokens_per_chunk: 3,
        ..quick()
    };
    let server = PacedServer::start(settings);
    let key = "authorization: Bearer secret\r\n";
    assert!(post(&server, CHAT, "", &chat("a")).head.starts_with("http/1.1 401"));
    let mut other = chat("a");
    other["model"] = json!("other");
    assert!(post(&server, CHAT, key, &other).head.starts_with("http/1.1 404"));
    let whole = post(&server, CHAT, key, &chat("a"));
    let answer: Value = serde_json::from_str(&whole.body).unwrap();
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer.get("usage"), None);
    let ids = json!({"model": "paced", "prompt": [1, 2, 3], "max_tokens": 4});
    let response = post(&server, "/v1/completions", key, &ids);
    let answer: Value = serde_json::from_str(&response.body).unwrap();
    assert_eq!(answer["choices"][0]["text"], " word word word word");
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(server.truth().last().unwrap().prompt_tokens, 11);
    assert!(get(&server, "/health").head.starts_with("http/1.1 200"));
    let truth: Value = serde_json::from_str(&get(&server, "/truth/summary").body).unwrap();
    assert_eq!(truth["attempts"], 4);
    assert_eq!(truth["statuses"], json!({"200": 2, "401": 1, "404": 1}));
}

#[test]
fn a_full_server_queues_or_refuses() {
    for refuse_when_full in [false, true] {
        let settings = Settings { capacity: Some(1), refuse_when_full, ..quick() };
        let server = PacedServer::start(settings);
        std::thread::scope(|scope| {
            for content in ["a", "b", "c"] {
                let server = &server;
                scope.spawn(move || post(server, CHAT, "", &chat(content)));
            }
        });
        let truth = server.truth();
        let mut places: Vec<(u64, u64)> = truth
            .iter()
            .filter(|truth| truth.completed)
            .map(|truth| (truth.admitted_ns, truth.end_ns))
            .collect();
        places.sort_unstable();
        assert!(places.is_sorted_by(|a, b| a.1 <= b.0), "one at a time: {places:?}");
        let refused = truth.iter().filter(|truth| truth.status == 429).count();
        assert_eq!(places.len() + refused, 3);
        assert_eq!(refused == 0, !refuse_when_full || places.len() == 3);
    }
}
