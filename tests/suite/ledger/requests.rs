//! Whole requests: the real gate, engine and ledger on a simulated device and a simulated disk, in
//! one thread, with clients that leave, preemptions, kills and restarts. No token is overspent, no
//! hold outlives its request, and what is charged is what was streamed (I5, I6, I7, I12).
//! `WEIR_BUDGET_REQUESTS` sets how many requests enter: 100,000 in every run, 1,000,000 for the
//! long form (`WEIR_BUDGET_REQUESTS=1000000 cargo test --test suite ledger::requests`).

use std::sync::Arc;
use std::time::Duration;

use weir::clock::{Clock, ManualClock, Moment};
use weir::config::{LedgerLimits, QueueLimits, Tenancy, TenantSettings};
use weir::device::sim::{Pace, SimConfig, SimDevice};
use weir::device::{DeviceLimits, SamplingParams};
use weir::engine::{
    Engine, EngineConfig, EngineHandle, Event, ReplyStream, Share, Stops, Submission, reply_channel,
};
use weir::gate::ledger::{DiskFaults, Ledger, SimDisk};
use weir::gate::{Demand, Gate, Permit, Refusal, Rosters, Tenant, Terms, Used};
use weir::ids::{RequestId, TokenId};

use crate::rng::Rng;

const REQUESTS: u64 = 100_000;
/// 1235: with two steps in flight, a preempted request was started again before the token that it
/// had been sampling came back.
const SEEDS_THAT_FAILED: [u64; 1] = [1235];
const TENANTS: usize = 5;
const EOS: TokenId = TokenId(7);
/// Two minutes before a day and a month end.
const UNIX_START_S: u64 = 1_795_996_680;
/// Calendar seconds for each second of the device, so that windows come and go.
const HASTE: u64 = 60;

/// One prompt that runs.
struct Run {
    tenant: usize,
    permit: Permit,
    stream: ReplyStream,
    /// What its client has seen.
    seen: Used,
    prompt_tokens: u32,
    worst: u64,
}

/// One process: lost at a kill, but for the disk.
struct Process {
    engine: Engine,
    handle: EngineHandle,
    gate: Arc<Gate>,
    tenants: Vec<Arc<Tenant>>,
    runs: Vec<Run>,
}

#[derive(Default)]
struct Counts {
    entered: u64,
    refused: u64,
    left: u64,
    ended: u64,
    preempted: u64,
    kills: u64,
}

struct World {
    seed: u64,
    rng: Rng,
    clock: Arc<ManualClock>,
    disk: SimDisk,
    settings: Vec<TenantSettings>,
    /// What every request of each tenant cost, by what its client saw: at most this is charged.
    cost: [u64; TENANTS],
    /// What the last report told.
    told: [u64; TENANTS],
    counts: Counts,
    next_request: u64,
}

/// Names the seed of a case that panics, in whatever room.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {} fails", self.0);
        }
    }
}

fn settings(rng: &mut Rng) -> Vec<TenantSettings> {
    (0..TENANTS)
        .map(|n| TenantSettings {
            name: Arc::from(format!("tenant-{n}")),
            tokens_per_hour: (n > 0).then(|| 400 + rng.below(4000)),
            tokens_per_day: (n > 1).then(|| 20_000 + rng.below(100_000)),
            tokens_per_min: (n == 3).then_some(200_000),
            cached_token_permille: [1000, 500, 0, 250, 1000][n],
            ..TenantSettings::default()
        })
        .collect()
}

fn device(seed: u64) -> SimConfig {
    let limits = DeviceLimits {
        block_size_tokens: 8,
        // Few enough that sequences push each other out.
        blocks_total: 24,
        step_rows_max: 64,
        slots_total: 8,
        context_tokens_max: 128,
        vocab_size: 300,
        steps_in_flight_max: 1 + (seed % 2) as u32,
        computes_in_submit: false,
    };
    SimConfig { eos: Some((EOS, 1.0 / 40.0)), ..SimConfig::new(limits) }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        Self {
            seed,
            settings: settings(&mut rng),
            disk: SimDisk::new(rng.next(), DiskFaults::default()),
            rng,
            clock: Arc::new(ManualClock::default()),
            cost: [0; TENANTS],
            told: [0; TENANTS],
            counts: Counts::default(),
            next_request: 0,
        }
    }

    fn now(&self) -> Moment {
        let at = self.clock.now();
        Moment { at, unix_s: UNIX_START_S + at.0 * HASTE / 1_000_000_000 }
    }

    fn start(&mut self) -> Process {
        let pace = Pace::Virtual(Arc::clone(&self.clock));
        let device = SimDevice::new(device(self.rng.next()), pace);
        let config = EngineConfig { running_max: 6, ..EngineConfig::new([9; 32]) };
        let (engine, handle) = Engine::new(config, Box::new(device));
        let limits = LedgerLimits { snapshot_after_bytes: 20_000, ..LedgerLimits::default() };
        let (ledger, _) =
            Ledger::open(Box::new(self.disk.clone()), limits, self.now().unix_s).unwrap();
        self.check_recovered(&ledger);
        let tenancy = Tenancy { tenants: self.settings.clone(), ..Tenancy::default() };
        let rosters = Rosters::new(&tenancy, &[], None);
        let tenants = rosters.current().tenants()[1..].to_vec();
        let gate = Gate::new(rosters, QueueLimits::default()).with_ledger(Arc::new(ledger));
        Process { engine, handle, gate: Arc::new(gate), tenants, runs: Vec::new() }
    }

    /// Charged at least what was told, and at most what all requests cost.
    fn check_recovered(&mut self, ledger: &Ledger) {
        for (tenant, settings) in self.settings.iter().enumerate() {
            let charged = charged(ledger, settings, self.now().unix_s);
            let (told, cost) = (self.told[tenant], self.cost[tenant]);
            assert!(charged >= told, "seed {}: told {told}, left {charged}", self.seed);
            assert!(charged <= cost, "seed {}: cost {cost}, charged {charged}", self.seed);
            // What a kill has left uncharged is forgiven.
            self.cost[tenant] = charged;
            self.told[tenant] = charged;
        }
        assert!(ledger.holds().is_empty(), "seed {}: a hold outlived its process", self.seed);
    }

    /// A life: requests come until `requests` have entered, and end or are killed.
    fn live(&mut self, requests: u64, is_killed: bool) {
        let mut process = self.start();
        let goal = self.counts.entered + requests;
        let mut idle_turns = 0;
        while self.counts.entered < goal && idle_turns < 2000 {
            idle_turns += 1;
            for _ in 0..self.rng.below(3) {
                if self.enter(&mut process) {
                    idle_turns = 0;
                }
            }
            self.turn(&mut process);
        }
        if is_killed {
            self.counts.kills += 1;
            for run in &process.runs {
                self.cost[run.tenant] += self.charge(run);
            }
            // What the permits settle while they are dropped goes to a disk without power.
            self.disk.restart(DiskFaults { power_off_at: Some(0), ..DiskFaults::default() });
            drop(process);
            self.disk.restart(DiskFaults::default());
            return;
        }
        while !process.runs.is_empty() {
            self.turn(&mut process);
        }
        self.check_drained(&process);
    }

    fn enter(&mut self, process: &mut Process) -> bool {
        let tenant = self.rng.below(TENANTS as u64) as usize;
        let (choices, max_tokens) = (1 + self.rng.below(2) as u32, 1 + self.rng.below(60) as u32);
        let demands: Vec<Demand> = (0..1 + self.rng.below(2))
            .map(|_| Demand {
                prompt_tokens: 1 + self.rng.below(50) as u32,
                output_tokens_max: u64::from(max_tokens) * u64::from(choices),
            })
            .collect();
        let now = self.now();
        let (load, account) = (process.handle.load(), Arc::clone(&process.tenants[tenant]));
        let checked = process.gate.precheck(&account, &load, now);
        let admitted = checked
            .and_then(|()| process.gate.admit(&account, &demands, Terms::default(), &load, now));
        match admitted {
            Ok(entry) => {
                self.counts.entered += 1;
                self.check_balances(&process.gate, tenant);
                for (demand, permit) in demands.iter().zip(entry.permits) {
                    let run = self.submit(process, tenant, *demand, choices, max_tokens, permit);
                    process.runs.push(run);
                }
                true
            }
            Err(Refusal::Budget(_) | Refusal::Rate(_)) => {
                self.counts.refused += 1;
                false
            }
            Err(other) => panic!("seed {}: {other}", self.seed),
        }
    }

    /// I5.
    fn check_balances(&self, gate: &Gate, tenant: usize) {
        let settings = &self.settings[tenant];
        let limits = [settings.tokens_per_hour, settings.tokens_per_day, None];
        let balances = gate.ledger().balances(&settings.name, self.now().unix_s);
        for (balance, limit) in balances.iter().zip(limits) {
            let taken = balance.settled + balance.held;
            assert!(limit.is_none_or(|limit| taken <= limit), "seed {}: overspent", self.seed);
        }
    }

    fn submit(
        &mut self,
        process: &Process,
        tenant: usize,
        demand: Demand,
        choices: u32,
        max_tokens: u32,
        permit: Permit,
    ) -> Run {
        self.next_request += 1;
        let id = RequestId(self.next_request);
        let length = demand.prompt_tokens as usize;
        let (reply, stream) =
            reply_channel(id, length, choices, max_tokens, process.handle.cancels());
        // Few different prompts, so that the prefix cache is hit.
        let salt = self.rng.below(3) as usize;
        let prompt: Vec<TokenId> =
            (0..length).map(|at| TokenId((10 + (at * 7 + salt * 31) % 200) as u32)).collect();
        let submission = Submission {
            id,
            tenant: process.tenants[tenant].id,
            share: Share::default(),
            cache_salt: Arc::from(""),
            prompt: Arc::from(prompt),
            params: (0..choices).map(|_| Arc::new(SamplingParams::greedy())).collect(),
            max_tokens,
            stops: Stops { eos: Arc::from([EOS]), ..Stops::default() },
            score_prompt: None,
            priority: 0,
            arrived: self.clock.now(),
            promise: None,
            deadline: None,
            tpot: None,
            reply,
        };
        process.handle.submit(submission).expect("what the gate admits the mailbox holds");
        Run {
            tenant,
            permit,
            stream,
            seen: Used::default(),
            prompt_tokens: demand.prompt_tokens,
            worst: u64::from(demand.prompt_tokens) + demand.output_tokens_max,
        }
    }

    fn turn(&mut self, process: &mut Process) {
        let before = self.clock.now();
        let report = process.engine.turn(self.clock.as_ref());
        self.counts.preempted += u64::from(report.preemptions);
        if self.clock.now() == before && process.engine.steps_in_flight() == 0 {
            self.clock.advance(Duration::from_millis(5));
        }
        let mut at = 0;
        while at < process.runs.len() {
            let is_done = self.read(&mut process.runs[at]);
            let leaves = self.rng.below(400) == 0;
            if is_done || leaves {
                let run = process.runs.swap_remove(at);
                assert_eq!(run.permit.used(), run.seen, "seed {}: not what was seen", self.seed);
                self.cost[run.tenant] += self.charge(&run);
                self.counts.ended += u64::from(is_done);
                self.counts.left += u64::from(!is_done);
            } else {
                at += 1;
            }
        }
        let ledger = process.gate.ledger();
        let held: u64 = process.runs.iter().map(|run| run.worst).sum();
        assert_eq!(ledger.facts().held_tokens, held, "seed {}: I6", self.seed);
        if self.rng.below(8) == 0 {
            ledger.check().unwrap();
            ledger.commit(self.now().unix_s).unwrap();
            for (tenant, settings) in self.settings.iter().enumerate() {
                self.told[tenant] = charged(ledger, settings, self.now().unix_s);
            }
        }
    }

    /// True when it has ended.
    fn read(&mut self, run: &mut Run) -> bool {
        while let Some(event) = run.stream.try_next() {
            match event {
                // A preempted request starts again, and is charged once.
                Event::Started { cached_tokens } => {
                    run.permit.started(cached_tokens, self.clock.now());
                    if run.seen.prompt_tokens == 0 {
                        run.seen.prompt_tokens = run.prompt_tokens;
                        run.seen.cached_tokens = cached_tokens;
                    }
                }
                Event::Token { .. } => {
                    run.permit.generated();
                    run.seen.output_tokens += 1;
                }
                Event::Finished { .. } | Event::PromptScores(_) => {}
                Event::Done(_) => return true,
                Event::Failed { message } => panic!("seed {}: {message}", self.seed),
            }
        }
        false
    }

    fn charge(&self, run: &Run) -> u64 {
        let permille = u64::from(self.settings[run.tenant].cached_token_permille);
        let cached = u64::from(run.seen.cached_tokens);
        let cost = u64::from(run.seen.prompt_tokens) - cached
            + (cached * permille).div_ceil(1000)
            + u64::from(run.seen.output_tokens);
        assert!(cost <= run.worst, "seed {}: more than was held", self.seed);
        cost
    }

    /// I7 and I12 at rest: nothing is held, and what is charged is exactly what was streamed.
    fn check_drained(&mut self, process: &Process) {
        let ledger = process.gate.ledger();
        ledger.commit(self.now().unix_s).unwrap();
        ledger.check().unwrap();
        let facts = ledger.facts();
        assert_eq!((facts.holds_open, facts.held_tokens), (0, 0), "seed {}: leaked", self.seed);
        assert_eq!(process.gate.open_requests(), 0);
        for (tenant, settings) in self.settings.iter().enumerate() {
            let charged = charged(ledger, settings, self.now().unix_s);
            assert_eq!(charged, self.cost[tenant], "seed {}: {}", self.seed, settings.name);
            self.told[tenant] = charged;
        }
    }
}

fn charged(ledger: &Ledger, settings: &TenantSettings, unix_s: u64) -> u64 {
    ledger.report(settings, unix_s).days.iter().map(|(_, used)| used.charged_tokens).sum()
}

#[allow(clippy::disallowed_methods, reason = "the long form is asked for by the environment")]
fn requests() -> u64 {
    let given = std::env::var("WEIR_BUDGET_REQUESTS").ok();
    given.map_or(REQUESTS, |text| text.parse().expect("WEIR_BUDGET_REQUESTS is a number"))
}

#[test]
fn no_token_is_overspent_and_no_hold_is_leaked_over_kills_and_restarts() {
    let mut sum = Counts::default();
    for seed in SEEDS_THAT_FAILED.into_iter().chain(0..) {
        if sum.entered >= requests() {
            break;
        }
        let _named = Named(seed);
        let mut world = World::new(seed);
        for life in 0..4 {
            let requests = 20 + world.rng.below(200);
            world.live(requests, life % 2 == 0);
        }
        let Counts { entered, refused, left, ended, preempted, kills } = world.counts;
        sum.entered += entered;
        sum.refused += refused;
        sum.left += left;
        sum.ended += ended;
        sum.preempted += preempted;
        sum.kills += kills;
    }
    let Counts { entered, refused, left, ended, preempted, kills } = sum;
    eprintln!(
        "{entered} requests entered, {refused} were refused; of their prompts {ended} ended and \
         {left} left; {preempted} preemptions, {kills} kills"
    );
    assert!(refused > 0 && left > 0 && ended > 0 && preempted > 0 && kills > 0);
}
