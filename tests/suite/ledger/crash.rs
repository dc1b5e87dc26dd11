//! Crash consistency (T11): a ledger on a disk that loses power in any operation and keeps any
//! part of what was not synced, or that fails a sync. `WEIR_LEDGER_CASES` sets how many cases:
//! 2,000 in every run, 100,000 for the long form (`WEIR_LEDGER_CASES=100000 cargo test --test suite
//! ledger::crash`).

use std::collections::BTreeMap;
use std::sync::Arc;

use weir::config::{LedgerLimits, TenantSettings};
use weir::gate::Refusal;
use weir::gate::Used;
use weir::gate::budget::{HoldId, Progress, WorstCase};
use weir::gate::calendar::Day;
use weir::gate::ledger::{CHECKPOINT_TOKENS, DiskFaults, Ledger, SimDisk};

use crate::rng::Rng;

const CASES: u64 = 2000;
const LIVES: u32 = 3;
const TENANTS: usize = 4;
/// Tokens that a crash may leave uncharged of a request that had started before the last commit.
const TAIL_TOKENS: u64 = 32;

/// A request, as only its client and this test know it.
struct Request {
    hold: HoldId,
    tenant: usize,
    day: Day,
    worst: WorstCase,
    permille: u64,
    cached_tokens: u32,
    output_tokens: u32,
    started: bool,
    ended: bool,
    /// What it costs by what it had noted when the last commit succeeded.
    committed: u64,
    /// What it had cost when the disk failed; after that nothing is promised.
    at_failure: Option<u64>,
    /// What the last noted state costs.
    noted: u64,
}

impl Request {
    fn used(&self) -> Used {
        if !self.started {
            return Used::default();
        }
        Used {
            prompt_tokens: self.worst.prompt_tokens,
            cached_tokens: self.cached_tokens,
            output_tokens: self.output_tokens,
        }
    }

    fn cost(&self) -> u64 {
        let used = self.used();
        let cached = u64::from(used.cached_tokens);
        u64::from(used.prompt_tokens - used.cached_tokens)
            + (cached * self.permille).div_ceil(1000)
            + u64::from(used.output_tokens)
    }
}

struct World {
    seed: u64,
    rng: Rng,
    disk: SimDisk,
    limits: LedgerLimits,
    tenants: Vec<TenantSettings>,
    unix_s: u64,
    /// What was charged by the end of the life before, by tenant and day: known exactly.
    base: BTreeMap<(usize, Day), u64>,
    /// The most that a report has told.
    reported: BTreeMap<(usize, Day), u64>,
    requests: Vec<Request>,
    /// Tokens that one request generated since the last commit, at most.
    since_commit: u32,
    crashes: u64,
    torn: u64,
    failures: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let tenants = (0..TENANTS)
            .map(|n| TenantSettings {
                name: Arc::from(format!("tenant-{n}")),
                tokens_per_hour: (n != 3).then(|| 300 + rng.below(3000)),
                tokens_per_month: (n == 1).then(|| 2000 + rng.below(5000)),
                cached_token_permille: [1000, 100, 0, 333][n],
                ..TenantSettings::default()
            })
            .collect();
        let limits =
            LedgerLimits { snapshot_after_bytes: 200 + rng.below(6000), ..LedgerLimits::default() };
        Self {
            seed,
            disk: SimDisk::new(rng.next(), DiskFaults::default()),
            limits,
            tenants,
            // Near the end of a day and a month.
            unix_s: 1_795_996_800 - 60 + rng.below(120),
            rng,
            base: BTreeMap::new(),
            reported: BTreeMap::new(),
            requests: Vec::new(),
            since_commit: 0,
            crashes: 0,
            torn: 0,
            failures: 0,
        }
    }

    /// One life of a server: from its start to its crash.
    fn live(&mut self) {
        let faults = match self.rng.below(4) {
            0 => DiskFaults::default(),
            1 => DiskFaults { failing_sync: Some(self.rng.below(20)), ..DiskFaults::default() },
            _ => DiskFaults { power_off_at: Some(self.rng.below(60)), ..DiskFaults::default() },
        };
        self.disk.restart(faults);
        if let Some(ledger) = self.open() {
            self.check_recovered(&ledger);
            for _ in 0..40 + self.rng.below(60) {
                self.act(&ledger);
                ledger.check().unwrap_or_else(|e| panic!("seed {}: {e}", self.seed));
            }
        }
        self.crashes += 1;
        self.disk.restart(DiskFaults::default());
        let ledger = self.open().expect("the disk is well");
        self.check_recovered(&ledger);
    }

    /// `None`: the disk failed while the log was read or replaced.
    fn open(&mut self) -> Option<Ledger> {
        match Ledger::open(Box::new(self.disk.clone()), self.limits, self.unix_s) {
            Ok((ledger, recovery)) => {
                self.torn += u64::from(recovery.torn_bytes > 0);
                Some(ledger)
            }
            Err(weir::gate::ledger::LedgerError::Damaged { .. }) => {
                panic!("seed {}: a crash is taken for damage", self.seed)
            }
            Err(_) => None,
        }
    }

    fn act(&mut self, ledger: &Ledger) {
        match self.rng.below(12) {
            0 => self.unix_s += self.rng.below(40),
            1..=3 => self.enter(ledger),
            4 | 5 => self.end(ledger),
            6..=9 => self.generate(ledger),
            _ => self.commit(ledger),
        }
        // What stands for the 5 ms of the committing thread.
        if self.since_commit + 8 > CHECKPOINT_TOKENS {
            self.commit(ledger);
        }
    }

    fn enter(&mut self, ledger: &Ledger) {
        let tenant = self.rng.below(TENANTS as u64) as usize;
        let prompts = 1 + self.rng.below(2) as usize;
        let worst_cases: Vec<WorstCase> = (0..prompts)
            .map(|_| WorstCase {
                prompt_tokens: 1 + self.rng.below(60) as u32,
                output_tokens: 1 + self.rng.below(200),
            })
            .collect();
        let settings = &self.tenants[tenant];
        match ledger.hold(settings, &worst_cases, self.unix_s) {
            Ok(holds) => {
                assert!(!ledger.is_read_only() || tenant == 3, "seed {}", self.seed);
                for (hold, worst) in holds.into_iter().zip(worst_cases) {
                    self.requests.push(Request {
                        hold,
                        tenant,
                        day: Day::of(self.unix_s),
                        worst,
                        permille: u64::from(settings.cached_token_permille),
                        cached_tokens: self.rng.below(u64::from(worst.prompt_tokens) + 1) as u32,
                        output_tokens: 0,
                        started: false,
                        ended: false,
                        committed: 0,
                        at_failure: ledger.is_read_only().then_some(0),
                        noted: 0,
                    });
                }
                let limits = [settings.tokens_per_hour, None, settings.tokens_per_month];
                let balances = ledger.balances(&settings.name, self.unix_s);
                for (balance, limit) in balances.iter().zip(limits) {
                    let sum = balance.settled + balance.held;
                    assert!(limit.is_none_or(|l| sum <= l), "seed {}: overspent", self.seed);
                }
            }
            Err(Refusal::LedgerReadOnly) => assert!(ledger.is_read_only()),
            Err(Refusal::Budget(_)) => {}
            Err(other) => panic!("seed {}: {other}", self.seed),
        }
    }

    fn any_open(&mut self) -> Option<usize> {
        let open: Vec<usize> =
            (0..self.requests.len()).filter(|at| !self.requests[*at].ended).collect();
        (!open.is_empty()).then(|| open[self.rng.below(open.len() as u64) as usize])
    }

    /// As a permit does: a note at the start and after each 16 tokens.
    fn generate(&mut self, ledger: &Ledger) {
        let Some(at) = self.any_open() else { return };
        let tokens = self.rng.below(9) as u32;
        let request = &mut self.requests[at];
        let mut is_noted = !request.started;
        request.started = true;
        for _ in 0..tokens {
            if u64::from(request.output_tokens) < request.worst.output_tokens {
                request.output_tokens += 1;
                is_noted |= request.output_tokens.is_multiple_of(CHECKPOINT_TOKENS);
            }
            if is_noted {
                let Request { cached_tokens, output_tokens, .. } = *request;
                ledger.checkpoint(request.hold, Progress { cached_tokens, output_tokens });
                request.noted = request.cost();
                is_noted = false;
            }
        }
        if is_noted {
            let Request { cached_tokens, output_tokens, .. } = *request;
            ledger.checkpoint(request.hold, Progress { cached_tokens, output_tokens });
            request.noted = request.cost();
        }
        self.since_commit += tokens;
    }

    fn end(&mut self, ledger: &Ledger) {
        let Some(at) = self.any_open() else { return };
        let request = &mut self.requests[at];
        ledger.settle(request.hold, request.used());
        // A permit is dropped once; a second settlement must be nothing all the same.
        ledger.settle(request.hold, Used { prompt_tokens: 1, ..Used::default() });
        request.ended = true;
        request.noted = request.cost();
    }

    fn commit(&mut self, ledger: &Ledger) {
        self.since_commit = 0;
        let was_read_only = ledger.is_read_only();
        match ledger.commit(self.unix_s) {
            Ok(_) if !was_read_only => {
                for request in &mut self.requests {
                    request.committed = request.noted;
                }
            }
            Ok(_) => {}
            Err(_) => {
                assert!(!was_read_only && ledger.is_read_only(), "seed {}", self.seed);
                self.failures += 1;
                for request in &mut self.requests {
                    request.at_failure = Some(request.cost());
                }
            }
        }
        for (tenant, settings) in self.tenants.iter().enumerate() {
            for (day, used) in ledger.report(settings, self.unix_s).days {
                self.reported.insert((tenant, day), used.charged_tokens);
            }
        }
    }

    /// After a restart: what was told is there, nothing is there twice, and what is missing is the
    /// tail that may be.
    fn check_recovered(&mut self, ledger: &Ledger) {
        let seed = self.seed;
        let (mut least, mut most) = (self.base.clone(), self.base.clone());
        for request in self.requests.drain(..) {
            let key = (request.tenant, request.day);
            *least.entry(key).or_default() += request.committed;
            *most.entry(key).or_default() += request.cost();
            let at_end = request.at_failure.unwrap_or(request.cost());
            // Before its first commit not even the request's start is written down.
            if request.committed > 0 {
                let tail = at_end - request.committed;
                assert!(tail <= TAIL_TOKENS, "seed {seed}: {tail} tokens of a request are lost");
            }
        }
        let mut recovered = BTreeMap::new();
        for (tenant, settings) in self.tenants.iter().enumerate() {
            let report = ledger.report(settings, self.unix_s);
            for (day, used) in report.days {
                recovered.insert((tenant, day), used.charged_tokens);
            }
            for window in report.windows {
                assert_eq!(window.held, 0, "seed {seed}: a hold outlived its process");
            }
        }
        for (key, charged) in &recovered {
            let upper = most.get(key).copied().unwrap_or(0);
            assert!(*charged <= upper, "seed {seed}: {key:?} charged {charged}, used {upper}");
        }
        for (key, committed) in &least {
            let charged = recovered.get(key).copied().unwrap_or(0);
            assert!(charged >= *committed, "seed {seed}: {key:?} lost {charged} < {committed}");
        }
        for (key, told) in &self.reported {
            let charged = recovered.get(key).copied().unwrap_or(0);
            assert!(charged >= *told, "seed {seed}: {key:?} was told {told}, is {charged}");
        }
        self.base.clone_from(&recovered);
        self.reported = recovered;
        self.since_commit = 0;
    }
}

#[allow(clippy::disallowed_methods, reason = "the long form is asked for by the environment")]
fn cases() -> u64 {
    let given = std::env::var("WEIR_LEDGER_CASES").ok();
    given.map_or(CASES, |text| text.parse().expect("WEIR_LEDGER_CASES is a number"))
}

#[test]
fn no_crash_loses_a_reported_settlement_or_counts_one_twice() {
    let (mut crashes, mut torn, mut failures) = (0, 0, 0);
    for seed in 0..cases() {
        let mut world = World::new(seed);
        for _ in 0..LIVES {
            world.live();
        }
        crashes += world.crashes;
        torn += world.torn;
        failures += world.failures;
    }
    eprintln!("{crashes} crashes, {torn} torn ends, {failures} failed commits");
    assert!(torn * 20 > crashes && failures * 4 > crashes, "the faults must come");
}
