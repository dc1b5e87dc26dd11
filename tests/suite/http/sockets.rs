//! The listener, through real sockets: limits, timeouts, both protocols, shutdown.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir::config::ListenerLimits;

use super::rig::{Options, Rig, chat};

const PATIENCE: Duration = Duration::from_secs(20);

/// Short timeouts, so that tests wait for little.
fn quick() -> ListenerLimits {
    ListenerLimits {
        header_timeout: Duration::from_millis(150),
        idle_timeout: Duration::from_millis(600),
        body_grace: Duration::from_millis(150),
        write_stall_timeout: Duration::from_millis(300),
        ..ListenerLimits::default()
    }
}

fn post(path: &str, body: &Value, more: &str) -> String {
    let body = body.to_string();
    format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n{more}\r\n{body}",
        body.len()
    )
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

/// Everything until the server closes the connection.
async fn rest(socket: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = socket.read_to_end(&mut bytes);
    // A reset also is an end.
    let _ = tokio::time::timeout(PATIENCE, read).await.expect("the server closes the connection");
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn read_until(socket: &mut TcpStream, needle: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains(needle) {
        let read = tokio::time::timeout(PATIENCE, socket.read(&mut buffer)).await;
        let count = read.expect("something comes").unwrap();
        assert!(count > 0, "{needle} never came: {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    text
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..4000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{what}");
}

#[tokio::test]
async fn a_connection_serves_one_request_after_the_other() {
    let rig = Options::default().start();
    let address = rig.listen(ListenerLimits::default()).await;
    let mut socket = connect(address).await;
    for _ in 0..3 {
        socket
            .write_all(post("/v1/chat/completions", &chat(json!({})), "").as_bytes())
            .await
            .unwrap();
        let answer = read_until(&mut socket, "\"rejected_prediction_tokens\":0}}}").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    }
    let streamed = post("/v1/chat/completions", &chat(json!({"stream": true})), "");
    socket.write_all(streamed.as_bytes()).await.unwrap();
    let answer = read_until(&mut socket, "[DONE]").await;
    assert!(answer.contains("transfer-encoding: chunked"), "{answer}");
    assert_eq!(rig.state.connections.open(), 1);
    drop(socket);
    until("the place is given back", || rig.state.connections.open() == 0).await;
}

#[tokio::test]
async fn http2_without_tls_works_by_prior_knowledge() {
    let rig = Options::default().start();
    let address = rig.listen(ListenerLimits::default()).await;
    let mut socket = connect(address).await;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend_from_slice(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
    // HEADERS of stream 1 with END_STREAM and END_HEADERS (RFC 9113, RFC 7541): GET, http,
    // path "/livez", authority "x".
    let mut block = vec![0x82, 0x86, 0x44, 6];
    block.extend_from_slice(b"/livez");
    block.extend_from_slice(&[0x41, 1, b'x']);
    bytes.extend_from_slice(&[0, 0, block.len() as u8, 1, 5, 0, 0, 0, 1]);
    bytes.extend_from_slice(&block);
    socket.write_all(&bytes).await.unwrap();
    let answer = read_until(&mut socket, "{\"status\":\"alive\"}").await;
    assert!(!answer.contains("HTTP/1.1"));
}

#[tokio::test]
async fn slow_heads_and_idle_connections_are_closed() {
    let rig = Options::default().start();
    let address = rig.listen(quick()).await;
    // Nothing at all; the start of HTTP/2's preface; half a head.
    for start in ["", "PRI * HT", "GET /livez HTTP/1.1\r\nhost: x\r\nx-slow: "] {
        let mut socket = connect(address).await;
        socket.write_all(start.as_bytes()).await.unwrap();
        assert_eq!(rest(&mut socket).await, "", "{start}");
    }
    // A kept-alive connection may be idle for longer than a head may take.
    let mut socket = connect(address).await;
    for _ in 0..2 {
        socket.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        read_until(&mut socket, "alive").await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert_eq!(rest(&mut socket).await, "");
    // Half a head on a kept-alive connection.
    let mut socket = connect(address).await;
    socket.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\nGET /li").await.unwrap();
    assert!(rest(&mut socket).await.ends_with("{\"status\":\"alive\"}"));
    until("all places are given back", || rig.state.connections.open() == 0).await;
}

#[tokio::test]
async fn a_running_stream_is_neither_idle_nor_slow() {
    let rig = Options::default().step(Duration::from_millis(20)).start();
    let address = rig.listen(quick()).await;
    let mut socket = connect(address).await;
    let body = chat(json!({"stream": true, "max_tokens": 60}));
    socket.write_all(post("/v1/chat/completions", &body, "").as_bytes()).await.unwrap();
    let answer = read_until(&mut socket, "[DONE]").await;
    assert_eq!(answer.matches("\"finish_reason\":\"length\"").count(), 1);
}

#[tokio::test]
async fn a_body_has_to_keep_its_pace() {
    let rig = Options::default().start();
    let address = rig.listen(quick()).await;
    let mut socket = connect(address).await;
    let head = "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                content-length: 1000\r\n\r\n{\"prompt\":";
    socket.write_all(head.as_bytes()).await.unwrap();
    let answer = rest(&mut socket).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("\"code\":\"body_too_slow\""), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn what_is_too_large_is_refused_at_the_door() {
    let rig = Options::default().start();
    let address = rig.listen(ListenerLimits::default()).await;
    let mut socket = connect(address).await;
    let head = "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                content-length: 99999999999\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    let answer = rest(&mut socket).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");

    let many: String = (0..100).map(|i| format!("x-{i}: y\r\n")).collect();
    let long = format!("x-long: {}\r\n", "y".repeat(40 << 10));
    for more in [many, long] {
        let mut socket = connect(address).await;
        let head = format!("GET /livez HTTP/1.1\r\nhost: x\r\n{more}\r\n");
        socket.write_all(head.as_bytes()).await.unwrap();
        let answer = rest(&mut socket).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
    // Messages whose length two readers may see differently are refused.
    for framing in [
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: 5\r\ntransfer-encoding: identity\r\n",
        "transfer-encoding: chunked, identity\r\n",
        " content-length: 5\r\n",
        "content-length : 5\r\n",
    ] {
        let mut socket = connect(address).await;
        let head = format!("POST /tokenize HTTP/1.1\r\nhost: x\r\n{framing}\r\nhello");
        socket.write_all(head.as_bytes()).await.unwrap();
        let answer = rest(&mut socket).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{framing}: {answer}");
    }
}

#[tokio::test]
async fn connections_are_capped() {
    let rig = Options::default().start();
    let limits = ListenerLimits {
        connections_max: 3,
        connections_per_address_max: 2,
        ..ListenerLimits::default()
    };
    let address = rig.listen(limits).await;
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut socket = connect(address).await;
        socket.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        read_until(&mut socket, "alive").await;
        kept.push(socket);
    }
    let mut third = connect(address).await;
    assert_eq!(rest(&mut third).await, "");
    let metrics = rig.get("/metrics").await.body;
    let line = "weir_connections_refused_total{limit=\"connections_per_address_max\"} 1";
    assert!(metrics.contains(line), "{metrics}");
    assert!(metrics.contains("weir_connections_open 2"));
    kept.pop();
    until("a place is given back", || rig.state.connections.open() == 1).await;
    let mut fourth = connect(address).await;
    fourth.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    read_until(&mut fourth, "alive").await;
}

#[tokio::test]
async fn a_client_that_closes_its_socket_frees_its_blocks() {
    let rig = Options::default().step(Duration::from_millis(10)).start();
    let address = rig.listen(ListenerLimits::default()).await;
    for stream in [true, false] {
        let mut socket = connect(address).await;
        let body = chat(json!({"stream": stream, "max_tokens": 480}));
        socket.write_all(post("/v1/chat/completions", &body, "").as_bytes()).await.unwrap();
        until("it runs", || rig.state.engine.load().running == 1).await;
        let steps = rig.state.engine.load().steps;
        drop(socket);
        until("its blocks are free", || rig.state.engine.load().blocks_used == 0).await;
        // Ten milliseconds a step: the socket's end was noticed within a few of them.
        let taken = rig.state.engine.load().steps - steps;
        assert!(taken < 40, "stream {stream}: {taken} steps");
        until("its permit is back", || rig.state.gate.open_requests() == 0).await;
    }
}

#[tokio::test]
async fn a_stalled_reader_is_cut_off_and_slows_nobody() {
    let mut options = Options::default();
    options.sim.limits.context_tokens_max = 1 << 16;
    options.sim.limits.blocks_total = 8192;
    let mut rig = options.start();
    let state = std::sync::Arc::get_mut(&mut rig.state);
    assert!(state.is_none(), "the router holds it too");
    let address = rig.listen(quick()).await;
    // Never reads, and asks for far more than sockets hold: 20 log-probabilities for each token.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stalled = socket.connect(address).await.unwrap();
    let body = chat(json!({
        "stream": true, "max_tokens": 480, "n": 8, "logprobs": true, "top_logprobs": 20
    }));
    stalled.write_all(post("/v1/chat/completions", &body, "").as_bytes()).await.unwrap();
    until("it runs", || rig.state.gate.open_requests() == 1).await;
    let healthy = rig.post("/v1/chat/completions", &chat(json!({}))).await;
    assert_eq!(healthy.status, 200);
    until("the stalled reader is cut off", || rig.state.connections.open() == 0).await;
    until("its permit is back", || rig.state.gate.open_requests() == 0).await;
    drop(stalled);
}

#[tokio::test]
async fn a_drain_lets_streams_finish_and_refuses_the_rest() {
    let rig = Options::default().step(Duration::from_millis(5)).start();
    let address = rig.listen(ListenerLimits::default()).await;
    let mut idle = connect(address).await;
    idle.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    read_until(&mut idle, "alive").await;
    let mut running = connect(address).await;
    let body = chat(json!({"stream": true, "max_tokens": 60}));
    running.write_all(post("/v1/chat/completions", &body, "").as_bytes()).await.unwrap();
    read_until(&mut running, "data: ").await;
    rig.state.gate.drain();
    rig.state.shutdown.drain();
    assert_eq!(rest(&mut idle).await, "", "an idle connection is closed");
    let answer = rest(&mut running).await;
    assert!(answer.contains("[DONE]"), "{answer}");
    assert!(!answer.contains("error"), "{answer}");
    until("nobody is left", || rig.state.connections.open() == 0).await;
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn an_abort_ends_what_the_drain_has_not() {
    let rig: Rig = Options::default().step(Duration::from_millis(20)).start();
    let address = rig.listen(ListenerLimits::default()).await;
    let mut running = connect(address).await;
    let body = chat(json!({"stream": true, "max_tokens": 480}));
    running.write_all(post("/v1/chat/completions", &body, "").as_bytes()).await.unwrap();
    read_until(&mut running, "data: ").await;
    rig.state.shutdown.drain();
    rig.state.shutdown.abort();
    let answer = rest(&mut running).await;
    assert!(answer.contains("data: {\"error\":"), "{answer}");
    assert!(!answer.contains("[DONE]"), "{answer}");
    until("nobody is left", || rig.state.connections.open() == 0).await;
}
