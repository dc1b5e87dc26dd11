//! The real gate, ledger and engine on a simulated device and disk, with clients that behave as
//! the stock SDKs do, in one thread on one clock that moves by itself.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use weir::clock::{Clock, ManualClock, Moment, Time};
use weir::config::{Tenancy, TenantSettings};
use weir::device::sim::{Pace, SimDevice};
use weir::engine::{Engine, EngineHandle};
use weir::gate::ledger::{DiskFaults, Ledger, SimDisk};
use weir::gate::{Gate, Rosters, Tenant};
use weir::ids::TenantId;

use super::books::Books;
use super::chance::Chance;
use super::client::{Attempt, Job};
use super::setup::Setup;
use super::tally::Tally;
use super::traffic::Wish;

/// In the middle of a month, a day and an hour.
const UNIX_START_S: u64 = 1_800_016_200;

pub struct World {
    pub setup: Setup,
    pub engine: Engine,
    pub handle: EngineHandle,
    pub gate: Arc<Gate>,
    pub clock: Arc<ManualClock>,
    pub tally: Tally,
    pub books: Books,
    pub steps: u64,
    /// Of everything that clients saw, in order.
    pub hash: u64,
    pub(super) tenants: Vec<Arc<Tenant>>,
    pub(super) chance: Chance,
    pub(super) jobs: Vec<Option<Job>>,
    pub(super) free_jobs: Vec<u32>,
    /// Jobs with an attempt that was admitted.
    pub(super) live: Vec<u32>,
    pub(super) next_request: u64,
    disk: SimDisk,
    events: BinaryHeap<Reverse<(Time, u64, What)>>,
    next_event: u64,
    arrived_s: f64,
    upcoming: Option<Wish>,
    turns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    Arrival,
    Attempt { job: u32, serial: u64 },
    Impatience { job: u32, request: u64 },
    Leaving { job: u32, serial: u64 },
    Commit,
    Kill,
    Reload,
}

impl World {
    pub fn new(setup: Setup) -> Self {
        let clock = Arc::new(ManualClock::default());
        let disk = SimDisk::new(setup.seed, DiskFaults::default());
        let (engine, handle, gate) = start(&setup, &clock, &disk);
        let tenants = setup.tenants.iter().enumerate();
        let tenants = tenants.map(|(id, settings)| tenant(&setup, id as u32, settings.clone()));
        let mut world = Self {
            tenants: tenants.collect(),
            chance: Chance::new(setup.seed),
            tally: Tally::new(setup.traffic.phases.len(), setup.tenants.len()),
            books: Books::new(setup.tenants.len()),
            engine,
            handle,
            gate,
            clock,
            disk,
            steps: 0,
            hash: 0xcbf2_9ce4_8422_2325,
            events: BinaryHeap::new(),
            next_event: 0,
            next_request: 0,
            jobs: Vec::new(),
            free_jobs: Vec::new(),
            live: Vec::new(),
            arrived_s: 0.0,
            upcoming: None,
            turns: 0,
            setup,
        };
        world.plan_arrival();
        world.at(Time(0), What::Commit);
        world.plan_mishaps();
        world
    }

    /// Runs until everybody has been answered, then looks for leaks.
    pub fn run(&mut self) {
        loop {
            self.events_until_now();
            let ended = self.is_over();
            if !self.engine.is_idle() || !self.live.is_empty() {
                self.turn();
            } else if ended {
                break;
            } else if let Some(&Reverse((at, _, _))) = self.events.peek() {
                self.clock.advance(at.since(self.clock.now()));
            }
        }
        self.assert_empty();
    }

    /// Nobody comes any more and nobody waits to try again.
    fn is_over(&self) -> bool {
        self.upcoming.is_none() && self.jobs.len() == self.free_jobs.len()
    }

    fn turn(&mut self) {
        let before = self.clock.now();
        let (engine, clock) = (&mut self.engine, self.clock.as_ref());
        let turned = catch_unwind(AssertUnwindSafe(|| engine.turn(clock)));
        match turned {
            Ok(report) => {
                self.steps += u64::from(report.step.is_some());
                assert!(
                    report.step.is_none() || report.load.alive,
                    "an engine that steps is alive"
                );
            }
            Err(payload) => {
                let simulated = payload
                    .downcast_ref::<String>()
                    .is_some_and(|text| text.contains("simulated panic"))
                    || payload.downcast_ref::<&str>().is_some_and(|t| t.contains("simulated"));
                if !simulated {
                    std::panic::resume_unwind(payload);
                }
                self.engine.recover("a simulated panic");
            }
        }
        let mut at = 0;
        while at < self.live.len() {
            let job = self.live[at];
            if self.read(job) {
                self.live.swap_remove(at);
            } else {
                at += 1;
            }
        }
        self.turns += 1;
        let every = self.setup.check_every;
        if every > 0 && self.turns.is_multiple_of(every) {
            self.check();
        }
        // A turn in which no step ended lets time pass until something else happens.
        if self.clock.now() == before && self.engine.steps_in_flight() == 0 {
            let next = self.events.peek().map(|Reverse((at, _, _))| *at);
            let next = next.unwrap_or(before.plus(Duration::from_millis(1)));
            self.clock.advance(next.since(before).min(Duration::from_millis(1)));
        }
    }

    /// The invariants that hold after every turn (I1, I2, I5 to I7, R41).
    fn check(&mut self) {
        self.engine.check();
        self.gate.ledger().check().expect("holds are counted");
        let permits = self.live.len() as u32;
        assert_eq!(self.gate.open_requests(), permits, "each open request has a permit");
    }

    /// Everything was given back (T2).
    fn assert_empty(&mut self) {
        self.engine.check();
        let load = self.handle.load();
        assert_eq!((load.running, load.waiting, load.blocks_used), (0, 0, 0), "{load:?}");
        assert_eq!(load.waiting_prompt_tokens, 0, "{load:?}");
        assert_eq!((self.gate.open_requests(), self.gate.waiting_requests()), (0, 0));
        let ledger = self.gate.ledger();
        assert!(ledger.holds().is_empty(), "no hold outlives its request");
        ledger.check().expect("holds are counted");
        self.commit();
        self.books.close(self.gate.ledger(), &self.tenants, self.moment().unix_s);
    }

    pub(super) fn moment(&self) -> Moment {
        let at = self.clock.now();
        Moment { at, unix_s: UNIX_START_S + at.0 / 1_000_000_000 }
    }

    pub(super) fn at(&mut self, at: Time, what: What) {
        self.next_event += 1;
        self.events.push(Reverse((at, self.next_event, what)));
    }

    pub(super) fn after(&mut self, wait: Duration, what: What) {
        let at = self.clock.now().plus(wait);
        self.at(at, what);
    }

    /// Takes something that a client saw into the hash (FNV-1a).
    pub(super) fn note(&mut self, value: u64) {
        self.hash = (self.hash ^ value).wrapping_mul(0x0100_0000_01b3);
    }

    fn plan_arrival(&mut self) {
        if let Some((at_s, wish)) = self.setup.traffic.next(self.arrived_s, &mut self.chance) {
            self.arrived_s = at_s;
            self.upcoming = Some(wish);
            self.at(Time((at_s * 1e9) as u64), What::Arrival);
        }
    }

    fn plan_mishaps(&mut self) {
        let mishaps = self.setup.mishaps;
        for (every, what) in
            [(mishaps.kill_every, What::Kill), (mishaps.reload_every, What::Reload)]
        {
            self.plan_mishap(every, what);
        }
    }

    fn plan_mishap(&mut self, every: Option<Duration>, what: What) {
        if let Some(every) = every {
            let wait = self.chance.exponential(every.as_secs_f64());
            self.after(Duration::from_secs_f64(wait), what);
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
                What::Attempt { job, serial } => self.attempt(job, serial),
                What::Impatience { job, request } => self.lose_patience(job, request),
                What::Leaving { job, serial } => self.leave(job, serial),
                What::Commit => {
                    self.commit();
                    if !self.is_over() {
                        self.after(self.setup.mishaps.commit_every, What::Commit);
                    }
                }
                // After the last arrival nothing bad happens any more: the liveness phase.
                What::Kill if self.upcoming.is_some() => {
                    self.kill();
                    self.plan_mishap(self.setup.mishaps.kill_every, What::Kill);
                }
                What::Reload if self.upcoming.is_some() => {
                    self.reload();
                    self.plan_mishap(self.setup.mishaps.reload_every, What::Reload);
                }
                What::Kill | What::Reload => {}
            }
        }
    }

    fn arrive(&mut self) {
        let wish = self.upcoming.take().expect("an arrival was planned");
        self.plan_arrival();
        self.tally.offered(&wish);
        self.begin(wish);
    }

    fn commit(&mut self) {
        let unix_s = self.moment().unix_s;
        self.gate.ledger().commit(unix_s).expect("the disk keeps what it is given");
        self.books.committed();
    }

    /// The process dies: streams break, the disk keeps what was synced, another process starts.
    fn kill(&mut self) {
        for job in std::mem::take(&mut self.live) {
            let attempt = self.jobs[job as usize].as_mut().and_then(|job| job.attempt.take());
            let Some(Attempt { mut permits, .. }) = attempt else { continue };
            let tenant = self.jobs[job as usize].as_ref().map_or(0, |job| job.wish.tenant);
            for permit in permits.drain(..) {
                self.books.broken(tenant, permit.used());
            }
            self.retry(job, None);
        }
        self.disk.restart(DiskFaults::default());
        let (engine, handle, gate) = start(&self.setup, &self.clock, &self.disk);
        (self.engine, self.handle, self.gate) = (engine, handle, gate);
        self.books.reopened(self.gate.ledger(), &self.tenants, self.moment().unix_s);
    }

    /// Other weights and budgets for some tenants.
    fn reload(&mut self) {
        for id in 0..self.tenants.len() {
            if !self.chance.happens(0.3) {
                continue;
            }
            let mut settings = self.tenants[id].settings.clone();
            settings.weight = self.chance.between(1, 8) as u32;
            let factor = 0.5 + self.chance.unit();
            let scale = |limit: u64| ((limit as f64 * factor) as u64).max(1);
            settings.tokens_per_hour = settings.tokens_per_hour.map(scale);
            settings.tokens_per_day = settings.tokens_per_day.map(scale);
            self.tenants[id] = tenant(&self.setup, id as u32, settings);
        }
    }
}

fn tenant(setup: &Setup, id: u32, settings: TenantSettings) -> Arc<Tenant> {
    let id = if setup.fifo { 0 } else { id };
    let name = Arc::from(format!("tenant-{id}"));
    let settings = if setup.fifo { TenantSettings::default() } else { settings };
    Arc::new(Tenant { id: TenantId(id), settings: TenantSettings { name, ..settings } })
}

fn start(
    setup: &Setup,
    clock: &Arc<ManualClock>,
    disk: &SimDisk,
) -> (Engine, EngineHandle, Arc<Gate>) {
    let device = SimDevice::new(setup.sim.clone(), Pace::Virtual(Arc::clone(clock)));
    let (engine, handle) = Engine::new(setup.engine.clone(), Box::new(device));
    let unix_s = UNIX_START_S + clock.now().0 / 1_000_000_000;
    let (ledger, _) = Ledger::open(Box::new(disk.clone()), setup.ledger, unix_s)
        .expect("a log that was cut off is read up to there");
    let rosters = Rosters::new(&Tenancy::default(), &[], None);
    let gate = Gate::new(rosters, setup.queue).with_ledger(Arc::new(ledger));
    (engine, handle, Arc::new(gate))
}
