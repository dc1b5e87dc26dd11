//! The real gate and the real engine on a simulated device, with clients that behave as the stock
//! SDKs do, in one thread on one clock that moves by itself.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use weir::clock::{Clock, ManualClock, Moment, Time};
use weir::config::{QueueLimits, Tenancy, TenantSettings};
use weir::device::sim::{Pace, SimConfig, SimDevice};
use weir::device::{DeviceLimits, SamplingParams};
use weir::engine::{
    Engine, EngineConfig, EngineHandle, Event, FinishReason, ReplyStream, Share, Stops, Submission,
    reply_channel,
};
use weir::gate::{Demand, Gate, Permit, Refusal, Rosters, Tenant, Terms};
use weir::ids::{RequestId, TenantId, TokenId};

use super::chance::Chance;
use super::tally::{Ending, Tally};
use super::traffic::{Traffic, Wish};

pub const EOS: TokenId = TokenId(7);
const UNIX_START_S: u64 = 1_800_000_000;

/// What a run is made of.
#[derive(Clone)]
pub struct Setup {
    pub seed: u64,
    pub engine: EngineConfig,
    pub sim: SimConfig,
    pub queue: QueueLimits,
    pub tenants: Vec<TenantSettings>,
    pub traffic: Traffic,
    pub client: Client,
    /// All requests enter as one tenant without objectives: plain first come, first served.
    pub fifo: bool,
    /// What the tally holds answers against.
    pub ttft_objective: Duration,
    pub tpot_objective: Duration,
}

/// How clients behave; the stock SDKs' numbers.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    pub retries_max: u32,
    /// A client that has no first token by then leaves, and tries again as after an error.
    pub patience: Duration,
}

pub struct World {
    pub setup: Setup,
    pub engine: Engine,
    pub handle: EngineHandle,
    pub gate: Arc<Gate>,
    pub clock: Arc<ManualClock>,
    pub tally: Tally,
    pub steps: u64,
    tenants: Vec<Arc<Tenant>>,
    chance: Chance,
    events: BinaryHeap<Reverse<(Time, u64, What)>>,
    next_event: u64,
    next_request: u64,
    jobs: Vec<Option<Job>>,
    free_jobs: Vec<u32>,
    live: Vec<u32>,
    arrived_s: f64,
    upcoming: Option<Wish>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Arrival,
    Attempt { job: u32 },
    Impatience { job: u32, request: RequestId },
}

struct Job {
    wish: Wish,
    attempts: u32,
    attempt: Option<Attempt>,
}

struct Attempt {
    request: RequestId,
    permit: Permit,
    stream: ReplyStream,
    began: Time,
    first: Option<Time>,
    last: Time,
    tokens: u32,
}

impl Default for Client {
    fn default() -> Self {
        Self { retries_max: 2, patience: Duration::from_secs(10) }
    }
}

/// The device of the scheduling study.
pub fn device() -> SimConfig {
    let limits = DeviceLimits {
        block_size_tokens: 16,
        blocks_total: 25_000,
        step_rows_max: 2048,
        slots_total: 512,
        context_tokens_max: 8192,
        vocab_size: 1000,
        steps_in_flight_max: 1,
        computes_in_submit: false,
    };
    SimConfig { eos: Some((EOS, 1.0 / 200.0)), ..SimConfig::new(limits) }
}

impl World {
    pub fn new(setup: Setup) -> Self {
        let clock = Arc::new(ManualClock::default());
        let device = SimDevice::new(setup.sim.clone(), Pace::Virtual(Arc::clone(&clock)));
        let (engine, handle) = Engine::new(setup.engine.clone(), Box::new(device));
        let tenants = setup.tenants.iter().enumerate().map(|(id, settings)| {
            let id = if setup.fifo { 0 } else { id as u32 };
            let settings = if setup.fifo { TenantSettings::default() } else { settings.clone() };
            Arc::new(Tenant { id: TenantId(id), settings })
        });
        let rosters = Rosters::new(&Tenancy::default(), &[], None);
        let mut world = Self {
            tenants: tenants.collect(),
            gate: Arc::new(Gate::new(rosters, setup.queue)),
            chance: Chance::new(setup.seed),
            tally: Tally::new(setup.traffic.phases.len(), setup.tenants.len()),
            engine,
            handle,
            clock,
            steps: 0,
            events: BinaryHeap::new(),
            next_event: 0,
            next_request: 0,
            jobs: Vec::new(),
            free_jobs: Vec::new(),
            live: Vec::new(),
            arrived_s: 0.0,
            upcoming: None,
            setup,
        };
        world.plan_arrival();
        world
    }

    /// Runs until everybody has been answered.
    pub fn run(&mut self) {
        loop {
            self.events_until_now();
            if !self.engine.is_idle() || !self.live.is_empty() {
                self.turn();
            } else if let Some(&Reverse((at, _, _))) = self.events.peek() {
                self.clock.advance(at.since(self.clock.now()));
            } else {
                break;
            }
        }
    }

    fn turn(&mut self) {
        let before = self.clock.now();
        let report = self.engine.turn(self.clock.as_ref());
        self.steps += u64::from(report.step.is_some());
        let mut at = 0;
        while at < self.live.len() {
            let job = self.live[at];
            if self.read(job) {
                self.live.swap_remove(at);
            } else {
                at += 1;
            }
        }
        // A turn that only submitted lets the device work until something else happens.
        if self.clock.now() == before && self.engine.steps_in_flight() == 0 {
            let next = self.events.peek().map(|Reverse((at, _, _))| *at);
            let next = next.unwrap_or(before.plus(Duration::from_millis(1)));
            let pause = next.since(before).min(Duration::from_millis(1));
            self.clock.advance(pause);
        }
    }

    fn moment(&self) -> Moment {
        let at = self.clock.now();
        Moment { at, unix_s: UNIX_START_S + at.0 / 1_000_000_000 }
    }

    fn at(&mut self, at: Time, what: What) {
        self.next_event += 1;
        self.events.push(Reverse((at, self.next_event, what)));
    }

    fn plan_arrival(&mut self) {
        if let Some((at_s, wish)) = self.setup.traffic.next(self.arrived_s, &mut self.chance) {
            self.arrived_s = at_s;
            self.upcoming = Some(wish);
            self.at(Time((at_s * 1e9) as u64), What::Arrival);
        }
    }

    fn events_until_now(&mut self) {
        while let Some(&Reverse((at, _, what))) = self.events.peek() {
            if at > self.clock.now() {
                break;
            }
            self.events.pop();
            match what {
                What::Arrival => self.arrive(),
                What::Attempt { job } => self.attempt(job),
                What::Impatience { job, request } => self.lose_patience(job, request),
            }
        }
    }

    fn arrive(&mut self) {
        let wish = self.upcoming.take().expect("an arrival was planned");
        self.tally.offered(&wish);
        let job = Job { wish, attempts: 0, attempt: None };
        let index = match self.free_jobs.pop() {
            Some(index) => {
                self.jobs[index as usize] = Some(job);
                index
            }
            None => {
                self.jobs.push(Some(job));
                self.jobs.len() as u32 - 1
            }
        };
        self.plan_arrival();
        self.attempt(index);
    }

    fn attempt(&mut self, index: u32) {
        let now = self.moment();
        let Some(job) = &mut self.jobs[index as usize] else { return };
        job.attempts += 1;
        let wish = job.wish;
        self.tally.attempts += 1;
        match self.enter(&wish, now) {
            Ok(attempt) => {
                self.tally.admitted(&wish);
                let request = attempt.request;
                if let Some(job) = &mut self.jobs[index as usize] {
                    job.attempt = Some(attempt);
                }
                self.live.push(index);
                let patience = now.at.plus(self.setup.client.patience);
                self.at(patience, What::Impatience { job: index, request });
            }
            Err(refusal) => {
                self.tally.refused(&wish);
                // The server varies what it says by a quarter.
                let said = refusal.retry_after_ms().map(|ms| {
                    let varied = ms as f64 * (0.75 + 0.5 * self.chance.unit());
                    Duration::from_secs_f64(varied / 1e3)
                });
                self.retry(index, said);
            }
        }
    }

    fn enter(&mut self, wish: &Wish, now: Moment) -> Result<Attempt, Refusal> {
        let tenant = Arc::clone(&self.tenants[wish.tenant as usize]);
        let load = self.handle.load();
        self.gate.precheck(&tenant, &load, now)?;
        self.gate.foresee(&tenant, Terms::default(), &load, now)?;
        let demand = Demand {
            prompt_tokens: wish.prompt_tokens,
            output_tokens_max: u64::from(wish.output_max),
        };
        let entry = self.gate.admit(&tenant, &[demand], Terms::default(), &load, now)?;
        self.next_request += 1;
        let id = RequestId(self.next_request);
        let (tokens, choices) = (wish.prompt_tokens as usize, 1);
        let (reply, stream) =
            reply_channel(id, tokens, choices, wish.output_max, self.handle.cancels());
        let salt = self.chance.bits();
        let prompt: Vec<TokenId> = (0..u64::from(wish.prompt_tokens))
            .map(|at| TokenId(((salt ^ at.wrapping_mul(0x9e37_79b9)) % 990) as u32))
            .collect();
        let settings = &tenant.settings;
        let submission = Submission {
            id,
            tenant: tenant.id,
            share: Share {
                class: settings.class,
                weight: settings.weight,
                kv_share: settings.kv_share,
            },
            cache_salt: Arc::from(""),
            prompt: Arc::from(prompt),
            params: vec![Arc::new(SamplingParams::greedy())],
            max_tokens: wish.output_max,
            stops: Stops { eos: Arc::from([EOS]), ..Stops::default() },
            score_prompt: None,
            priority: 0,
            arrived: now.at,
            promise: entry.promise,
            deadline: None,
            tpot: settings.tpot,
            reply,
        };
        self.handle.submit(submission).expect("what the gate admits the mailbox holds");
        let permit = entry.permits.into_iter().next().expect("one for the demand");
        Ok(Attempt {
            request: id,
            permit,
            stream,
            began: now.at,
            first: None,
            last: now.at,
            tokens: 0,
        })
    }

    /// Reads what came for a job; true when its attempt has ended.
    fn read(&mut self, index: u32) -> bool {
        let now = self.clock.now();
        let Some(job) = &mut self.jobs[index as usize] else { return true };
        let Some(attempt) = &mut job.attempt else { return true };
        while let Some(event) = attempt.stream.try_next() {
            match event {
                Event::Started { cached_tokens } => attempt.permit.started(cached_tokens, now),
                Event::Token { .. } => {
                    attempt.permit.generated();
                    if attempt.first.is_none() {
                        attempt.permit.first_token(now);
                        attempt.first = Some(now);
                    }
                    attempt.last = now;
                    attempt.tokens += 1;
                }
                Event::Finished { reason: FinishReason::Late | FinishReason::Deadline, .. }
                | Event::Failed { .. } => {
                    attempt.permit.late();
                    let wish = job.wish;
                    job.attempt = None;
                    self.tally.late(&wish);
                    self.retry(index, Some(Duration::from_secs(1)));
                    return true;
                }
                Event::Finished { .. } | Event::PromptScores(_) => {}
                Event::Done(_) => {
                    self.served(index);
                    return true;
                }
            }
        }
        false
    }

    fn served(&mut self, index: u32) {
        let job = self.jobs[index as usize].take().expect("a live job");
        let attempt = job.attempt.expect("it was answered");
        self.free_jobs.push(index);
        let first = attempt.first.unwrap_or(attempt.last);
        let ttft = first.since(attempt.began);
        let gaps = attempt.tokens.saturating_sub(1);
        let tpot = if gaps > 0 { attempt.last.since(first) / gaps } else { Duration::ZERO };
        let settings = &self.setup.tenants[job.wish.tenant as usize];
        let per_1k = settings.ttft_per_1k_tokens.unwrap_or(Duration::from_millis(24));
        let allowed =
            self.setup.ttft_objective + per_1k.mul_f64(f64::from(job.wish.prompt_tokens) / 1000.0);
        let ending = Ending {
            ttft,
            tpot,
            in_time: ttft <= allowed,
            good: ttft <= allowed && tpot <= self.setup.tpot_objective,
            tokens: job.wish.prompt_tokens + attempt.tokens,
            at: self.clock.now(),
        };
        self.tally.served(&job.wish, ending);
    }

    fn lose_patience(&mut self, index: u32, request: RequestId) {
        let Some(job) = &mut self.jobs[index as usize] else { return };
        let waits = |attempt: &Attempt| attempt.request == request && attempt.first.is_none();
        if job.attempt.as_ref().is_some_and(waits) {
            let wish = job.wish;
            if let Some(attempt) = &mut job.attempt {
                attempt.permit.late();
            }
            job.attempt = None;
            self.live.retain(|live| *live != index);
            self.tally.late(&wish);
            self.retry(index, None);
        }
    }

    /// As the stock SDKs: what the server says, else half a second, doubled, up to eight seconds,
    /// less up to a quarter.
    fn retry(&mut self, index: u32, said: Option<Duration>) {
        let Some(job) = &self.jobs[index as usize] else { return };
        if job.attempts > self.setup.client.retries_max {
            let wish = job.wish;
            self.jobs[index as usize] = None;
            self.free_jobs.push(index);
            self.tally.lost(&wish);
            return;
        }
        let own = (0.5 * f64::from(1u32 << (job.attempts - 1).min(8))).min(8.0)
            * (1.0 - 0.25 * self.chance.unit());
        let wait = said.unwrap_or(Duration::from_secs_f64(own));
        let at = self.clock.now().plus(wait);
        self.at(at, What::Attempt { job: index });
    }
}
