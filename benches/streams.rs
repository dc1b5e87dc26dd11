//! Do idle streams and slow readers slow healthy ones down? Starts `weir --device sim`, measures
//! the gaps between tokens of healthy streams alone, beside slow readers, and beside idle streams
//! as well, and prints the server's memory for each idle stream.
//!
//! `cargo bench --bench streams`, or with `-- --healthy 100 --slow 1000 --idle 10000 --seconds 10
//! --step-ms 100` and other numbers.
//! Needs as many open files as streams, on both sides (`ulimit -n`). The slow readers' answers are
//! generated at full pace, so that healthy and slow streams together must stay below what the
//! machine can send: choose a longer step where it cannot.

#![allow(missing_docs, clippy::print_stdout, reason = "a program that prints a table")]
#![allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// What is measured.
struct Plan {
    healthy: usize,
    slow: usize,
    idle: usize,
    phase: Duration,
    step_ms: usize,
}

/// The server under test; killed when dropped.
struct Server {
    process: Child,
    address: SocketAddr,
}

/// Gaps between reads that brought a token, of all healthy streams, while recording.
#[derive(Default)]
struct Gaps {
    recording: AtomicBool,
    seconds: Mutex<Vec<f64>>,
}

impl Plan {
    fn from_args() -> Result<Self> {
        let phase = Duration::from_secs(10);
        let mut plan = Plan { healthy: 100, slow: 1000, idle: 10_000, phase, step_ms: 100 };
        let mut args = std::env::args().skip(1).filter(|arg| arg != "--bench");
        while let Some(name) = args.next() {
            let value: usize = args.next().context("a value after each flag")?.parse()?;
            match name.as_str() {
                "--healthy" => plan.healthy = value,
                "--slow" => plan.slow = value,
                "--idle" => plan.idle = value,
                "--seconds" => plan.phase = Duration::from_secs(value as u64),
                "--step-ms" => plan.step_ms = value,
                _ => bail!("unknown flag {name}"),
            }
        }
        Ok(plan)
    }
}

impl Server {
    fn start(plan: &Plan) -> Result<Self> {
        let running = (plan.healthy + plan.slow).to_string();
        let step_us = (plan.step_ms * 1000).to_string();
        let mut process = Command::new(env!("CARGO_BIN_EXE_weir"))
            .args(["--device", "sim", "--port", "0", "--max-num-seqs", &running])
            .args(["--sim-step-us", &step_us, "--sim-sequence-us", "0"])
            .args(["--sim-prefill-token-us", "0", "--sim-context-token-ns", "0"])
            .args(["--max-num-batched-tokens", "8192"])
            .args(["--sim-blocks", "400000", "--max-model-len", "32K"])
            .args(["--max-num-queued-reqs", "100000", "--max-num-queued-tokens", "1G"])
            .args(["--write-stall-timeout", "600", "--log-level", "error"])
            .stdout(Stdio::piped())
            .spawn()
            .context("the server starts")?;
        let output = process.stdout.take().context("its output is piped")?;
        let mut lines = BufReader::new(output).lines();
        while let Some(line) = lines.next().transpose()? {
            if let Some((_, rest)) = line.split_once("http://") {
                let end = rest.find(|c: char| c == '/' || c.is_whitespace()).unwrap_or(rest.len());
                let address = rest[..end].parse()?;
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(Self { process, address });
            }
        }
        bail!("the server ended before it listened")
    }

    /// Resident memory in KiB.
    fn resident_kib(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).context("VmRSS")?;
        Ok(line.split_whitespace().nth(1).context("a number")?.parse()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a slow reader's system keeps for it: little, so that the server soon cannot write on.
const SLOW_BUFFER_BYTES: u32 = 4096;

async fn open(address: SocketAddr, max_tokens: usize, slow: bool) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if slow {
        socket.set_recv_buffer_size(SLOW_BUFFER_BYTES)?;
    }
    let mut stream = socket.connect(address).await?;
    let body = format!(
        "{{\"model\":\"demo\",\"prompt\":\"a b c\",\"max_tokens\":{max_tokens},\"stream\":true,\
         \"ignore_eos\":true}}"
    );
    let request = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: weir\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    Ok(stream)
}

async fn read_healthy(mut stream: TcpStream, gaps: Arc<Gaps>, started: Arc<AtomicUsize>) {
    let mut buffer = vec![0; 16 << 10];
    let mut last: Option<Instant> = None;
    while let Ok(count) = stream.read(&mut buffer).await {
        if count == 0 {
            break;
        }
        if !buffer[..count].windows(5).any(|w| w == b"data:") {
            continue;
        }
        let now = Instant::now();
        match last {
            None => drop(started.fetch_add(1, Ordering::SeqCst)),
            Some(last) if gaps.recording.load(Ordering::Relaxed) => {
                let mut seconds = gaps.seconds.lock().expect("no reader panics");
                seconds.push((now - last).as_secs_f64());
            }
            Some(_) => {}
        }
        last = Some(now);
    }
}

/// Takes one byte a second.
async fn read_slowly(mut stream: TcpStream) {
    let mut byte = [0; 1];
    while stream.read_exact(&mut byte).await.is_ok() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn measure(gaps: &Gaps, phase: Duration, name: &str, base: Option<(f64, f64)>) -> (f64, f64) {
    tokio::time::sleep(Duration::from_secs(2)).await;
    gaps.seconds.lock().expect("no reader panics").clear();
    gaps.recording.store(true, Ordering::SeqCst);
    tokio::time::sleep(phase).await;
    gaps.recording.store(false, Ordering::SeqCst);
    let mut seconds = std::mem::take(&mut *gaps.seconds.lock().expect("no reader panics"));
    seconds.sort_by(f64::total_cmp);
    let at = |share: f64| seconds[((seconds.len() - 1) as f64 * share) as usize] * 1e3;
    let (p50, p99) = (at(0.5), at(0.99));
    let mean = seconds.iter().sum::<f64>() / seconds.len() as f64 * 1e3;
    let (r50, r99) = base.map_or((1.0, 1.0), |(b50, b99)| (p50 / b50, p99 / b99));
    println!(
        "| {name} | {} | {mean:.2} | {p50:.2} | {p99:.2} | {r50:.3} | {r99:.3} |",
        seconds.len()
    );
    (p50, p99)
}

async fn run(plan: Plan) -> Result<()> {
    let server = Server::start(&plan)?;
    let gaps = Arc::new(Gaps::default());
    let started = Arc::new(AtomicUsize::new(0));
    for _ in 0..plan.healthy {
        let stream = open(server.address, 20_000, false).await?;
        tokio::spawn(read_healthy(stream, Arc::clone(&gaps), Arc::clone(&started)));
    }
    while started.load(Ordering::SeqCst) < plan.healthy {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("| healthy streams | gaps | mean ms | p50 ms | p99 ms | p50 ratio | p99 ratio |");
    println!("|---|---|---|---|---|---|---|");
    let base = measure(&gaps, plan.phase, "alone", None).await;
    for _ in 0..plan.slow {
        tokio::spawn(read_slowly(open(server.address, 2000, true).await?));
    }
    let name = format!("beside {} slow readers", plan.slow);
    measure(&gaps, plan.phase, &name, Some(base)).await;
    let before_kib = server.resident_kib()?;
    let mut idle = Vec::with_capacity(plan.idle);
    for _ in 0..plan.idle {
        idle.push(open(server.address, 16, false).await?);
    }
    let name = format!("and {} idle streams", plan.idle);
    measure(&gaps, plan.phase, &name, Some(base)).await;
    let after_kib = server.resident_kib()?;
    println!(
        "\nmemory: {:.0} MiB with {} idle streams; {:.1} KiB for each",
        after_kib / 1024.0,
        plan.idle,
        (after_kib - before_kib) / plan.idle.max(1) as f64
    );
    drop(idle);
    Ok(())
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(Plan::from_args()?))
}
