//! A server that is killed again and again while clients generate and ask for their usage (T11):
//! what usage had told is never lost, and nothing is counted twice. `WEIR_KILL_RUNS` sets how many
//! runs: 20 in every run of the tests, 500 for the long form (`WEIR_KILL_RUNS=500 cargo test --test
//! suite ledger::kill`).

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

const RUNS: u64 = 20;
const CLIENTS: usize = 6;
const MAX_TOKENS: u64 = 160;
/// Tokens that the server had counted and that did not reach its socket any more.
const IN_FLIGHT_TOKENS: u64 = 32;

/// A real server on the simulated device, with a state folder.
struct Server {
    process: Child,
    address: SocketAddr,
}

/// One request, as its client saw it.
#[derive(Default)]
struct Seen {
    prompt_tokens: u64,
    output_tokens: u64,
    done: bool,
}

impl Server {
    fn start(folder: &Path) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_weir"))
            .args(["--device", "sim", "--port", "0", "--log-level", "error"])
            .args(["--sim-step-us", "1000", "--sim-sequence-us", "0", "--state-dir"])
            .arg(folder)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("the server ended before it listened").unwrap();
            if let Some((_, rest)) = line.split_once("http://") {
                break rest[..rest.find('/').unwrap()].parse().unwrap();
            }
        };
        thread::spawn(move || lines.for_each(drop));
        Self { process, address }
    }

    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Tokens charged on all days; `None` when the server has gone.
    fn told(address: SocketAddr) -> Option<u64> {
        let mut socket = TcpStream::connect(address).ok()?;
        let request = "GET /v1/usage HTTP/1.1\r\nhost: weir\r\nconnection: close\r\n\r\n";
        socket.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        let usage: Value = serde_json::from_str(body).ok()?;
        assert_eq!(usage["as_of"]["durable"], true);
        let days = usage["days"].as_array()?;
        Some(days.iter().map(|day| day["charged_tokens"].as_u64().unwrap()).sum())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended already, unless a test failed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Sends a request and reads its stream until it ends or breaks.
fn generate(address: SocketAddr, prompt: &str) -> Seen {
    let mut seen = Seen::default();
    let body = format!(
        "{{\"model\":\"demo\",\"prompt\":\"{prompt}\",\"max_tokens\":{MAX_TOKENS},\
         \"ignore_eos\":true,\"stream\":true,\
         \"stream_options\":{{\"include_usage\":true,\"continuous_usage_stats\":true}}}}"
    );
    let request = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: weir\r\ncontent-type: application/json\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let Ok(mut socket) = TcpStream::connect(address) else { return seen };
    if socket.write_all(request.as_bytes()).is_err() {
        return seen;
    }
    let number = |line: &str, name: &str| {
        let rest = &line[line.find(name)? + name.len()..];
        rest[..rest.find(|c: char| !c.is_ascii_digit())?].parse::<u64>().ok()
    };
    for line in BufReader::new(socket).lines() {
        let Ok(line) = line else { break };
        if let Some(tokens) = number(&line, "\"prompt_tokens\":") {
            seen.prompt_tokens = tokens;
        }
        if let Some(tokens) = number(&line, "\"completion_tokens\":") {
            seen.output_tokens = tokens;
        }
        seen.done |= line == "data: [DONE]";
    }
    seen
}

/// Clients that ask until the server has gone, and one that asks for usage; kills the server after
/// `life`. Returns what the clients saw and the most that usage told.
fn run(server: Server, life: Duration, base: u64) -> (Vec<Seen>, u64) {
    let (address, ended) = (server.address, AtomicBool::new(false));
    thread::scope(|scope| {
        let ended = &ended;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                scope.spawn(move || {
                    let mut seen = Vec::new();
                    while !ended.load(Ordering::Relaxed) {
                        seen.push(generate(address, &"count ".repeat(1 + client)));
                    }
                    seen
                })
            })
            .collect();
        let asking = scope.spawn(move || {
            let mut told = base;
            while let Some(now) = Server::told(address) {
                assert!(now >= told, "usage went back from {told} to {now}");
                told = now;
                thread::sleep(Duration::from_millis(2));
            }
            told
        });
        thread::sleep(life);
        server.kill();
        ended.store(true, Ordering::Relaxed);
        let seen = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        (seen, asking.join().unwrap())
    })
}

fn state_folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kill");
    let _ = std::fs::remove_dir_all(&folder);
    folder
}

#[allow(clippy::disallowed_methods, reason = "the long form is asked for by the environment")]
fn runs() -> u64 {
    let given = std::env::var("WEIR_KILL_RUNS").ok();
    given.map_or(RUNS, |text| text.parse().expect("WEIR_KILL_RUNS is a number"))
}

#[test]
fn a_killed_server_loses_no_reported_usage_and_counts_none_twice() {
    let folder = state_folder();
    let (mut base, mut done, mut cut) = (0, 0, 0);
    for life in 0..runs() {
        let server = Server::start(&folder);
        // Lives of 60 to 360 ms, so that kills fall into every phase of the requests.
        let (seen, told) = run(server, Duration::from_millis(60 + life * 97 % 300), base);
        let prompt_tokens_max = seen.iter().map(|seen| seen.prompt_tokens).max().unwrap_or(0);
        let upper: u64 = seen
            .iter()
            .map(|seen| match seen {
                Seen { done: true, prompt_tokens, output_tokens } => prompt_tokens + output_tokens,
                // Nothing came: it may have run, as long as its answer's head was held back.
                Seen { output_tokens: 0, .. } => prompt_tokens_max.max(10) + IN_FLIGHT_TOKENS,
                Seen { prompt_tokens, output_tokens, .. } => {
                    prompt_tokens + (output_tokens + IN_FLIGHT_TOKENS).min(MAX_TOKENS)
                }
            })
            .sum();
        done += seen.iter().filter(|seen| seen.done).count();
        cut += seen.iter().filter(|seen| !seen.done && seen.output_tokens > 0).count();
        let server = Server::start(&folder);
        let recovered = Server::told(server.address).expect("it answers");
        server.kill();
        assert!(recovered >= told, "life {life}: {told} was told, {recovered} is left");
        let most = base + upper;
        assert!(recovered <= most, "life {life}: clients used at most {most}, not {recovered}");
        base = recovered;
    }
    eprintln!("{done} requests ended, {cut} were cut; {base} tokens charged");
    assert!(done > CLIENTS && cut > CLIENTS, "kills must meet running requests: {done}, {cut}");
    stop_and_compare(&folder, base);
}

/// A server that is stopped as one should loses nothing at all.
fn stop_and_compare(folder: &Path, base: u64) {
    let mut server = Server::start(folder);
    let seen: Vec<Seen> = (0..3).map(|_| generate(server.address, "count")).collect();
    assert!(seen.iter().all(|seen| seen.done && seen.output_tokens == MAX_TOKENS));
    let used: u64 = seen.iter().map(|seen| seen.prompt_tokens + seen.output_tokens).sum();
    let id = server.process.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    assert!(server.process.wait().unwrap().success());
    let server = Server::start(folder);
    assert_eq!(Server::told(server.address), Some(base + used));
    server.kill();
    std::fs::remove_dir_all(folder).unwrap();
}
