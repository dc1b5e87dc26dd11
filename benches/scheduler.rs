//! What one engine turn costs with 100 to 4,000 sequences running and 10,000 requests waiting.
//!
//! *Step* is the time between the device's answer and its next plan, during which a GPU without
//! look-ahead would wait: taking in the results, mail, deadlines, admission, blocks, the plan.
//! *Beside it* is what the engine does while the device computes: events to callers, publishing
//! blocks, evicting. Left out are turns in which the operating system gave the core to
//! somebody else (counted as involuntary context switches), since they measure the neighbours.
//! Run with `cargo bench --bench scheduler`, or `... -- 1000` for one size.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use weir::clock::{Clock, ManualClock};
use weir::device::sim::{Pace, SimConfig, SimDevice};
use weir::device::{Device, DeviceError, DeviceLimits, SamplingParams, StepOutput, StepPlan};
use weir::engine::{
    Engine, EngineConfig, EngineHandle, ReplyStream, Share, Stops, Submission, reply_channel,
};
use weir::ids::{RequestId, TenantId, TokenId};

const WAITING: usize = 10_000;
const TURNS: usize = 2000;
const WARM_UP_TURNS: usize = 100;
/// Between two rounds of the callers' thread, which reads all streams and submits requests.
const CALLERS_PAUSE: Duration = Duration::from_micros(500);

struct CountingAllocator;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// This thread's so far.
fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

fn count_allocation() {
    ALLOCATIONS.with(|count| count.set(count.get() + 1));
}

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

// SAFETY: every call is passed on to the system's allocator unchanged.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count_allocation();
        // SAFETY: the caller keeps the system allocator's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count_allocation();
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Notes when the engine calls the device, and what happened to the clock and the heap inside.
#[derive(Clone, Copy, Default)]
struct Marks {
    submit: Option<(Instant, Instant)>,
    wait: Option<(Instant, Instant)>,
    allocations: u64,
}

struct MarkedDevice {
    inner: SimDevice,
    marks: Arc<Mutex<Marks>>,
}

impl Device for MarkedDevice {
    fn limits(&self) -> &DeviceLimits {
        self.inner.limits()
    }

    fn submit(&mut self, plan: &StepPlan) -> Result<(), DeviceError> {
        let (start, before) = (Instant::now(), allocations());
        let result = self.inner.submit(plan);
        let mut marks = self.marks.lock().unwrap();
        marks.allocations += allocations() - before;
        marks.submit = Some((start, Instant::now()));
        result
    }

    fn wait(&mut self, output: &mut StepOutput) -> Result<(), DeviceError> {
        let (start, before) = (Instant::now(), allocations());
        let result = self.inner.wait(output);
        let mut marks = self.marks.lock().unwrap();
        marks.allocations += allocations() - before;
        marks.wait = Some((start, Instant::now()));
        result
    }
}

#[derive(Clone, Copy)]
struct Load {
    name: &'static str,
    running: u32,
    tenants: u32,
    prompt_tokens: u32,
    /// Tokens that a request generates: from this ...
    output_tokens_min: u32,
    /// ... to this.
    output_tokens_max: u32,
    steps_in_flight: u32,
}

struct Bench {
    load: Load,
    engine: Engine,
    clock: Arc<ManualClock>,
    marks: Arc<Mutex<Marks>>,
    callers: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
}

/// Everybody who asks. They have a thread of their own, as in the server.
struct Callers {
    load: Load,
    handle: EngineHandle,
    clock: Arc<ManualClock>,
    streams: Vec<ReplyStream>,
    eos: Arc<[TokenId]>,
    next_id: u64,
}

#[derive(Default)]
struct Samples {
    step: Vec<Duration>,
    beside: Vec<Duration>,
    allocations: u64,
    turns: u64,
    interrupted: u64,
    started: u64,
    rows: u64,
    cached_tokens: u64,
}

fn main() {
    // Every output so long that nothing ends while it is measured.
    let steady = Load {
        name: "steady decode",
        running: 1000,
        tenants: 200,
        prompt_tokens: 128,
        output_tokens_min: 8000,
        output_tokens_max: 8000,
        steps_in_flight: 1,
    };
    let churn = Load {
        name: "requests come and go",
        output_tokens_min: 40,
        output_tokens_max: 280,
        ..steady
    };
    println!("{WAITING} waiting, {TURNS} turns\n");
    let loads = [
        steady,
        Load { steps_in_flight: 2, ..steady },
        churn,
        Load { tenants: 5000, ..steady },
        Load { tenants: 5000, ..churn },
        Load { running: 100, ..steady },
        Load { running: 100, ..churn },
        Load { running: 4000, ..steady },
        Load { running: 4000, ..churn },
    ];
    let wanted: Option<u32> = std::env::args().filter_map(|arg| arg.parse().ok()).next();
    for load in loads.iter().filter(|load| wanted.is_none_or(|running| load.running == running)) {
        Bench::new(*load).run();
    }
}

impl Bench {
    fn new(load: Load) -> Self {
        let limits = DeviceLimits {
            block_size_tokens: 16,
            blocks_total: 600 * load.running,
            step_rows_max: 8192,
            slots_total: load.running,
            context_tokens_max: 32_768,
            vocab_size: 32_000,
            steps_in_flight_max: load.steps_in_flight,
            computes_in_submit: false,
        };
        let config = EngineConfig {
            step_rows_max: 8192,
            running_max: load.running,
            mailbox_max: 16_384,
            check_every_steps: 0,
            ..EngineConfig::new([3; 32])
        };
        let clock = Arc::new(ManualClock::default());
        let marks = Arc::new(Mutex::new(Marks::default()));
        let inner = SimDevice::new(SimConfig::new(limits), Pace::Virtual(Arc::clone(&clock)));
        let device = MarkedDevice { inner, marks: Arc::clone(&marks) };
        let (engine, handle) = Engine::new(config, Box::new(device));
        let mut callers = Callers {
            load,
            handle,
            clock: Arc::clone(&clock),
            streams: Vec::new(),
            eos: Arc::from([TokenId(40_000)]),
            next_id: 0,
        };
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let callers = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                callers.refill();
                std::thread::sleep(CALLERS_PAUSE);
            }
        });
        let mut bench = Self { load, engine, clock, marks, callers: Some(callers), stop };
        loop {
            let now = bench.engine.turn(bench.clock.as_ref()).load;
            if now.waiting >= WAITING as u32 * 9 / 10 && now.running >= load.running {
                return bench;
            }
        }
    }

    fn run(mut self) {
        let mut samples = Samples::default();
        for turn in 0..WARM_UP_TURNS + TURNS {
            let measured = self.turn();
            if turn >= WARM_UP_TURNS {
                samples.add(measured);
            }
        }
        self.stop.store(true, Ordering::Relaxed);
        if let Some(callers) = self.callers.take() {
            callers.join().unwrap();
        }
        samples.print(&self.load);
    }

    fn turn(&mut self) -> Measured {
        *self.marks.lock().unwrap() = Marks::default();
        let switches = involuntary_switches();
        let before = allocations();
        let start = Instant::now();
        let report = self.engine.turn(self.clock.as_ref());
        let end = Instant::now();
        let allocations = allocations() - before;
        let interrupted = involuntary_switches() != switches;
        let marks = *self.marks.lock().unwrap();
        Measured { start, end, marks, allocations, interrupted, report }
    }
}

impl Callers {
    /// Reads what came and keeps the queue at its length.
    fn refill(&mut self) {
        self.streams.retain_mut(|stream| {
            loop {
                match stream.try_next() {
                    Some(weir::engine::Event::Done(_)) => break false,
                    Some(_) => {}
                    None => break true,
                }
            }
        });
        let load = self.handle.load();
        let missing = WAITING.saturating_sub(load.waiting as usize).min(256);
        for _ in 0..missing {
            self.submit();
        }
    }

    fn submit(&mut self) {
        self.next_id += 1;
        let id = self.next_id;
        let load = self.load;
        let spread = load.output_tokens_max - load.output_tokens_min + 1;
        let max_tokens = load.output_tokens_min + (id * 7919 % u64::from(spread)) as u32;
        let prompt: Arc<[TokenId]> = (0..load.prompt_tokens)
            .map(|i| TokenId((id as u32).wrapping_mul(31).wrapping_add(i * 7) % 32_000))
            .collect();
        let cancels = self.handle.cancels();
        let (reply, stream) = reply_channel(RequestId(id), prompt.len(), 1, max_tokens, cancels);
        let submission = Submission {
            id: RequestId(id),
            tenant: TenantId(id as u32 % load.tenants),
            share: Share::default(),
            cache_salt: Arc::from(""),
            prompt,
            params: vec![Arc::new(SamplingParams::greedy())],
            max_tokens,
            stops: Stops { eos: Arc::clone(&self.eos), ..Stops::default() },
            score_prompt: None,
            priority: 0,
            arrived: self.clock.now(),
            promise: None,
            deadline: Some(self.clock.now().plus(Duration::from_secs(3600))),
            tpot: None,
            reply,
        };
        self.handle.submit(submission).unwrap();
        self.streams.push(stream);
    }
}

struct Measured {
    start: Instant,
    end: Instant,
    marks: Marks,
    allocations: u64,
    interrupted: bool,
    report: weir::engine::TurnReport,
}

impl Samples {
    fn add(&mut self, measured: Measured) {
        let Measured { start, end, marks, .. } = measured;
        self.turns += 1;
        self.allocations += measured.allocations - marks.allocations;
        self.started += u64::from(measured.report.started);
        self.rows += measured.report.step.map_or(0, |step| u64::from(step.rows));
        self.cached_tokens += measured.report.prefix_hit_tokens;
        if measured.interrupted {
            self.interrupted += 1;
            return;
        }
        let (Some(submit), Some(wait)) = (marks.submit, marks.wait) else { return };
        self.step.push(submit.0 - wait.1);
        self.beside.push((wait.0 - start) + (end - submit.1));
    }

    fn print(&mut self, load: &Load) {
        let turns = self.turns as f64;
        println!(
            "{} running, {} tenants, {}, {} in flight: {:.0} rows a step, {:.2} starts and {:.0} cached tokens \
             a turn, {:.2} allocations, {} turns interrupted",
            load.running,
            load.tenants,
            load.name,
            load.steps_in_flight,
            self.rows as f64 / turns,
            self.started as f64 / turns,
            self.cached_tokens as f64 / turns,
            self.allocations as f64 / turns,
            self.interrupted
        );
        for (name, values) in [
            ("step (results, mail, admission, blocks, plan)", &mut self.step),
            ("beside it (events, publishing, evicting)", &mut self.beside),
        ] {
            values.sort();
            let at = |q: f64| values[((values.len() - 1) as f64 * q) as usize].as_nanos() as f64;
            println!(
                "  {name:<46} p50 {:6.1} us  p90 {:6.1} us  p99 {:6.1} us",
                at(0.5) / 1e3,
                at(0.9) / 1e3,
                at(0.99) / 1e3
            );
        }
    }
}

/// Times that this thread lost its core although it wanted to go on.
fn involuntary_switches() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("nonvoluntary_ctxt_switches"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}
