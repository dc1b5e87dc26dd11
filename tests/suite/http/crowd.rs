//! Many streams at once: what one costs, and that nobody waits for a slow reader.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weir::config::ListenerLimits;

use super::rig::{Options, chat};

/// T14 of the reliability plan: resident memory of a stream without TLS.
const STREAM_BYTES_MAX: u64 = 32 << 10;

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

/// Opens streams that wait for an engine that never comes to them.
async fn open(address: std::net::SocketAddr, count: usize) -> Vec<TcpStream> {
    let body = chat(json!({"stream": true})).to_string();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        sockets.push(socket);
    }
    for socket in &mut sockets {
        let mut head = [0; 12];
        socket.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
    }
    sockets
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_stream_is_small() {
    let keep_alive_interval = Duration::from_millis(200);
    let mut options = Options { keep_alive_interval, ..Options::default() };
    options.queue.requests_max = 100_000;
    let stepped = options.stepped();
    let address = stepped.rig.listen(ListenerLimits::default()).await;
    // The first ones pay for tables and threads.
    let first = open(address, 100).await;
    let Some(before) = resident_bytes() else { return };
    // Within the engine's mailbox, which nobody empties here.
    let count = 800;
    let streams = open(address, count).await;
    let after = resident_bytes().unwrap();
    let each = after.saturating_sub(before) / count as u64;
    eprintln!("an idle stream takes {each} bytes, both ends of its socket included");
    assert!(each <= STREAM_BYTES_MAX, "{each} bytes");
    assert_eq!(stepped.rig.state.connections.open(), count + first.len());
    drop(streams);
}
