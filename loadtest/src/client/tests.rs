//! One request against a server that follows a script, byte for byte.

use std::time::Duration;

use http::HeaderMap;
use serde_json::Map;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::*;
use crate::plan::{Behaviour, Pacing, Prompt, PromptPiece, Tenant};
use crate::prompt::TokenFit;
use crate::target::{Limits, address, shape_of};

/// What the server does with a request on a connection.
#[derive(Clone)]
enum Act {
    /// Answers with these bytes.
    Answer(Vec<u8>),
    /// Answers with these bytes, then says nothing more.
    Hang(Vec<u8>),
    /// Closes the connection.
    Close,
}

/// A chunk with content.
const CHUNK: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";

fn head() -> String {
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        .to_owned()
}

/// A stream of events, each in an HTTP chunk of its own.
fn stream(events: &[&str], ended: bool) -> Vec<u8> {
    let mut text = head();
    for event in events {
        text.push_str(&format!("{:x}\r\n{event}\r\n", event.len()));
    }
    if ended {
        text.push_str("0\r\n\r\n");
    }
    text.into_bytes()
}

/// Serves connections in turn, each by its script; says when a client has closed one.
async fn serve(scripts: Vec<Vec<Act>>) -> (String, mpsc::UnboundedReceiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (closed, closings) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for (number, script) in scripts.into_iter().enumerate() {
            let (stream, _) = listener.accept().await.unwrap();
            let closed = closed.clone();
            tokio::spawn(async move {
                if follow(stream, script).await {
                    let _ = closed.send(number);
                }
            });
        }
    });
    (url, closings)
}

/// Whether the client closed the connection.
async fn follow(mut stream: TcpStream, script: Vec<Act>) -> bool {
    let mut buffer = vec![0; 64 << 10];
    for act in script {
        // Each request here is smaller than the buffer and comes whole.
        if stream.read(&mut buffer).await.unwrap_or(0) == 0 {
            return true;
        }
        match act {
            Act::Answer(bytes) => stream.write_all(&bytes).await.unwrap(),
            Act::Hang(bytes) => {
                // Fails when the client has left, which is then seen below.
                drop(stream.write_all(&bytes).await);
                break;
            }
            Act::Close => return false,
        }
    }
    stream.read(&mut buffer).await.unwrap_or(0) == 0
}

async fn client(url: &str) -> Client {
    let (base, endpoint) = address(url, "/v1/chat/completions").unwrap();
    let second = Duration::from_secs(1);
    let target = Target {
        shape: shape_of(&endpoint).unwrap(),
        base,
        endpoint,
        model: "m".to_owned(),
        headers: HeaderMap::new(),
        fields: Map::new(),
        send_class: false,
        fit: TokenFit::ONE_TO_ONE,
        limits: Limits { whole: 20 * second, idle: 10 * second },
        cacert: None,
    };
    let plan = Plan {
        seed: 1,
        pacing: Pacing::Open,
        tenants: vec![Tenant {
            name: "t".to_owned(),
            api_key: None,
            class: None,
            share: 1.0,
            abusive: false,
        }],
        requests: Vec::new(),
        warmup_ns: 0,
        cooldown_ns: 0,
        duration_ns: None,
    };
    Client {
        dialer: Dialer::new(&target.base, None).await.unwrap(),
        target,
        clock: Clock::start(),
        plan: Arc::new(plan),
        progress: Arc::new(Progress::new(1, None)),
    }
}

async fn send(client: &Client, behaviour: Behaviour) -> RequestRecord {
    let request = PlannedRequest {
        index: 3,
        tenant: 0,
        scheduled_ns: client.clock.now_ns(),
        prompt: Prompt::Synthetic(vec![PromptPiece { seed: 1, tokens: 4 }]),
        output_tokens: 4,
        behaviour,
    };
    let (_keep, cut) = watch::channel(false);
    client.run(&request, request.scheduled_ns, cut).await
}

fn code(record: &RequestRecord) -> &str {
    record.code.as_deref().unwrap_or_default()
}

#[tokio::test]
async fn a_connection_that_the_server_closed_while_idle_is_not_its_failure() {
    let whole = stream(&[CHUNK, CHUNK, DONE], true);
    let again = vec![Act::Answer(whole.clone()), Act::Close];
    let (url, _) = serve(vec![again, vec![Act::Answer(whole)]]).await;
    let mut client = client(&url).await;
    let first = send(&client, Behaviour::default()).await;
    assert_eq!((first.outcome, first.chunks_ns.len()), (Outcome::Completed, 2), "{first:?}");
    // Five seconds later the server closes just when the next request is on its way.
    client.clock = client.clock.started_before(Duration::from_secs(5));
    let second = send(&client, Behaviour::default()).await;
    assert_eq!((second.outcome, second.attempts), (Outcome::Completed, 1), "{second:?}");
}

#[tokio::test]
async fn a_connection_that_breaks_in_use_is_the_servers_failure() {
    let whole = stream(&[CHUNK, DONE], true);
    let again = vec![Act::Answer(whole.clone()), Act::Close];
    let (url, _) = serve(vec![again, vec![Act::Close], vec![Act::Answer(whole)]]).await;
    let client = client(&url).await;
    assert_eq!(send(&client, Behaviour::default()).await.outcome, Outcome::Completed);
    let broken = send(&client, Behaviour::default()).await;
    assert_eq!((broken.outcome, code(&broken)), (Outcome::Broken, "reset"), "{broken:?}");
    // On a new connection, and with a retry as the SDKs do.
    let retries = Behaviour { retries_max: 2, ..Behaviour::default() };
    let retried = send(&client, retries).await;
    assert_eq!((retried.outcome, retried.attempts), (Outcome::Completed, 2), "{retried:?}");
    assert!(retried.last_sent_ns > retried.sent_ns);
}

#[tokio::test]
async fn a_client_that_leaves_closes_its_connection() {
    let (url, mut closings) =
        serve(vec![vec![Act::Hang(stream(&[CHUNK, CHUNK, CHUNK, CHUNK], false))]]).await;
    let client = client(&url).await;
    let leaves = Behaviour { disconnect_after_chunks: Some(3), ..Behaviour::default() };
    let record = send(&client, leaves).await;
    assert_eq!((record.outcome, code(&record)), (Outcome::Disconnected, "client_left"));
    assert!(record.chunks_ns.len() >= 3, "{record:?}");
    assert_eq!(closings.recv().await, Some(0));
}

#[tokio::test]
async fn a_client_that_gives_up_keeps_what_it_saw() {
    let (url, mut closings) = serve(vec![vec![Act::Hang(stream(&[CHUNK], false))]]).await;
    let client = client(&url).await;
    let gives_up = Behaviour { give_up_after_ms: Some(80), ..Behaviour::default() };
    let record = send(&client, gives_up).await;
    assert_eq!((record.outcome, code(&record)), (Outcome::TimedOut, "gave_up"));
    assert_eq!((record.chunks_ns.len(), record.status), (1, Some(200)));
    assert!(record.end_ns - record.sent_ns.unwrap() >= 79_000_000);
    assert_eq!(closings.recv().await, Some(0));
}

#[tokio::test]
async fn a_slow_reader_takes_its_time() {
    let events = [CHUNK; 40];
    let mut all = events.to_vec();
    all.push(DONE);
    let (url, _) = serve(vec![vec![Act::Answer(stream(&all, true))]]).await;
    let client = client(&url).await;
    let bytes = all.iter().map(|event| event.len()).sum::<usize>() as u64;
    let slow = Behaviour { read_bytes_per_s: Some(10 * bytes as u32), ..Behaviour::default() };
    let record = send(&client, slow).await;
    assert_eq!((record.outcome, record.body_bytes), (Outcome::Completed, bytes), "{record:?}");
    let took_ns = record.end_ns - record.headers_ns.unwrap();
    // The whole in a tenth of a second, less the last event, which needs no waiting after it.
    assert!(took_ns >= 95_000_000, "{took_ns}");
}

#[tokio::test]
async fn what_is_no_whole_answer_is_broken_by_name() {
    let error = "data: {\"error\":{\"message\":\"out of blocks\",\"code\":\"kv_full\"}}\n\n";
    for (events, ended, expected) in [
        (vec![CHUNK, CHUNK], true, "unfinished_stream"),
        (vec![CHUNK, error], true, "kv_full"),
        (vec![CHUNK, "data: {nonsense\n\n"], true, "malformed_stream"),
        (vec![CHUNK; 70_000], false, "endless_stream"),
    ] {
        let (url, _) = serve(vec![vec![Act::Hang(stream(&events, ended))]]).await;
        let client = client(&url).await;
        let retries = Behaviour { retries_max: 2, ..Behaviour::default() };
        let record = send(&client, retries).await;
        assert_eq!((record.outcome, code(&record)), (Outcome::Broken, expected));
        assert_eq!(record.attempts, 1, "an answer that began is not retried");
        assert!(!record.chunks_ns.is_empty());
    }
}
