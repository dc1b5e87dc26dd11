//! Two servers behind a balancer are replaced one after the other under load, and clients that
//! retry as the SDKs do see no failure (T17). One roll of both;
//! `WEIR_ROLLS=20 cargo test --release --test suite live::drain` is the long form.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::client::{self, Retrying};
use super::process::{Live, StopAtEnd, rounds, scratch};

const GRACE: Duration = Duration::from_secs(10);
const CLIENTS: usize = 8;
/// A balancer asks each server this often whether it is ready.
const HEALTH_INTERVAL: Duration = Duration::from_millis(50);

/// A server as the balancer knows it.
struct Backend {
    address: Mutex<SocketAddr>,
    ready: AtomicBool,
}

/// Gives each connection to the next ready server, and copies bytes.
struct Balancer {
    address: SocketAddr,
    backends: Vec<Backend>,
    next: AtomicUsize,
    stop: AtomicBool,
}

#[derive(Default)]
struct Seen {
    stop: AtomicBool,
    answered: AtomicU32,
    retried: AtomicU32,
    failures: Mutex<Vec<String>>,
}

impl Balancer {
    fn start(backends: &[SocketAddr]) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let backend = |address: &SocketAddr| Backend {
            address: Mutex::new(*address),
            ready: AtomicBool::new(true),
        };
        let balancer = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            backends: backends.iter().map(backend).collect(),
            next: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let (accepting, watching) = (Arc::clone(&balancer), Arc::clone(&balancer));
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let Ok(socket) = socket else { return };
                if let Some(server) = accepting.choose() {
                    let _ = (socket.set_nodelay(true), server.set_nodelay(true));
                    let back = (server.try_clone().unwrap(), socket.try_clone().unwrap());
                    std::thread::spawn(move || copy(socket, server));
                    std::thread::spawn(move || copy(back.0, back.1));
                }
            }
        });
        std::thread::spawn(move || {
            while !watching.stop.load(Ordering::Relaxed) {
                for backend in &watching.backends {
                    let address = *backend.address.lock().unwrap();
                    backend.ready.store(is_ready(address), Ordering::Relaxed);
                }
                std::thread::sleep(HEALTH_INTERVAL);
            }
        });
        balancer
    }

    fn choose(&self) -> Option<TcpStream> {
        let count = self.backends.len();
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        // Ready ones in turn; when none is, whichever takes the connection.
        for must_be_ready in [true, false] {
            for turn in 0..count {
                let backend = &self.backends[(first + turn) % count];
                if !must_be_ready || backend.ready.load(Ordering::Relaxed) {
                    let address = *backend.address.lock().unwrap();
                    if let Ok(stream) = TcpStream::connect(address) {
                        return Some(stream);
                    }
                }
            }
        }
        None
    }
}

/// Copies until the sender closes, and passes the end on.
fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut bytes = [0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

fn is_ready(address: SocketAddr) -> bool {
    let ask = || -> io::Result<u16> {
        let mut connection = client::Connection::open(address)?;
        Ok(connection.exchange(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n", false)?.status)
    };
    ask().is_ok_and(|status| status == 200)
}

fn client(address: SocketAddr, number: usize, seen: &Seen) {
    let mut client = Retrying::new(address);
    let mut turn = number;
    while !seen.stop.load(Ordering::Relaxed) {
        turn += 1;
        let stream = turn.is_multiple_of(2);
        let tokens = 1 + turn * 7 % 60;
        let body = format!(
            "{{\"prompt\": \"hello\", \"max_tokens\": {tokens}, \"stream\": {stream}, \
             \"ignore_eos\": true, \"stream_options\": {}}}",
            if stream { "{\"include_usage\": true}" } else { "null" }
        );
        let request = client::post_bytes("/v1/completions", "none", "", &body);
        let attempted = client.send(request.as_bytes());
        seen.answered.fetch_add(1, Ordering::Relaxed);
        seen.retried.fetch_add(attempted.attempts - 1, Ordering::Relaxed);
        let complete = format!("\"completion_tokens\":{tokens}");
        let failure = match attempted.last {
            Ok(reply) if reply.status != 200 => format!("{} {}", reply.status, reply.body),
            Ok(reply) if !reply.body.contains(&complete) => format!("not whole: {}", reply.body),
            Ok(reply) if stream && !reply.body.ends_with("data: [DONE]\n\n") => reply.body,
            Ok(_) => continue,
            Err(error) => error,
        };
        seen.failures.lock().unwrap().push(format!("after {}: {failure}", attempted.attempts));
    }
}

fn start(folder: &Path, name: &str) -> Live {
    let grace = GRACE.as_secs().to_string();
    let args = ["--device", "sim", "--sim-step-us", "1500", "--drain-timeout", &grace];
    Live::start(folder, name, &args)
}

/// Ends a server as an orchestrator does, and returns how long it said ready and how long it lived.
fn end(server: &mut Live) -> (Duration, Duration) {
    server.signal("-TERM");
    let since = Instant::now();
    while is_ready(server.address) {
        assert!(since.elapsed() < GRACE, "it stays ready");
    }
    let ready_for = since.elapsed();
    let status = server.ended();
    assert!(status.success(), "{status}: {}", server.log());
    (ready_for, since.elapsed())
}

#[test]
fn a_roll_under_load_fails_no_request() {
    let folder = scratch("drain");
    let mut servers = [start(&folder, "a0"), start(&folder, "b0")];
    let balancer = Balancer::start(&servers.each_ref().map(|server| server.address));
    let (seen, rolls) = (Seen::default(), rounds("WEIR_ROLLS", 1));
    let (mut ready_for, mut lived) = (Duration::ZERO, Duration::ZERO);
    std::thread::scope(|scope| {
        let _stop = StopAtEnd(&seen.stop);
        for number in 0..CLIENTS {
            let (address, seen) = (balancer.address, &seen);
            scope.spawn(move || client(address, number, seen));
        }
        for roll in 1..=rolls {
            for (index, server) in servers.iter_mut().enumerate() {
                std::thread::sleep(Duration::from_millis(500));
                let (was_ready, took) = end(server);
                (ready_for, lived) = (ready_for.max(was_ready), lived.max(took));
                *server = start(&folder, &format!("{index}{roll}"));
                *balancer.backends[index].address.lock().unwrap() = server.address;
                while !balancer.backends[index].ready.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        }
        std::thread::sleep(Duration::from_millis(500));
    });
    balancer.stop.store(true, Ordering::Relaxed);
    let (answered, retried) =
        (seen.answered.load(Ordering::Relaxed), seen.retried.load(Ordering::Relaxed));
    eprintln!(
        "{rolls} rolls: {answered} requests, {retried} retries; not ready after {ready_for:?}, \
         ended after {lived:?}"
    );
    assert_eq!(*seen.failures.lock().unwrap(), Vec::<String>::new());
    assert!(answered > 50, "there was load: {answered}");
    assert!(ready_for <= Duration::from_millis(100), "ready for {ready_for:?}");
    assert!(lived <= GRACE + Duration::from_secs(1), "lived for {lived:?}");
}

#[test]
fn a_stream_that_outlives_the_grace_ends_with_an_error_in_time() {
    let folder = scratch("grace");
    let args = ["--device", "sim", "--sim-step-us", "50000", "--drain-timeout", "0.3"];
    let mut server = Live::start(&folder, "server", &args);
    let body = "{\"prompt\": \"x\", \"max_tokens\": 4000, \"stream\": true, \"ignore_eos\": true}";
    let request = client::post_bytes("/v1/completions", "none", "", body);
    let mut connection = client::Connection::open(server.address).unwrap();
    let reader = std::thread::spawn(move || connection.exchange(request.as_bytes(), false));
    while !client::get(server.address, "/load", "").body.contains("\"running\":1") {
        std::thread::sleep(Duration::from_millis(5));
    }
    let (_, took) = end(&mut server);
    assert!(took <= Duration::from_millis(1300), "it took {took:?}");
    let reply = reader.join().unwrap().expect("the answer is whole");
    assert!(reply.body.contains("data: {\"error\":"), "{}", reply.body);
    assert!(!reply.body.contains("[DONE]"), "{}", reply.body);
}
