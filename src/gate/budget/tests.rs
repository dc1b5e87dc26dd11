//! Budgets against a model that keeps every request and recomputes everything.

use super::*;

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// A request as the model remembers it, for ever.
struct Request {
    id: HoldId,
    tenant: usize,
    unix_s: u64,
    worst: WorstCase,
    permille: u64,
    /// What it was charged, once it has ended.
    charged: Option<u64>,
}

struct World {
    rng: Rng,
    budgets: Budgets,
    /// Follows `budgets` by its entries alone.
    replica: Budgets,
    requests: Vec<Request>,
    limits: Vec<Limits>,
    names: Vec<Arc<str>>,
    unix_s: u64,
    given: u32,
    refused: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        let names: Vec<Arc<str>> = (0..3).map(|n| Arc::from(format!("tenant-{n}"))).collect();
        let mut world = Self {
            rng: Rng(seed),
            budgets: Budgets::default(),
            replica: Budgets::default(),
            requests: Vec::new(),
            limits: vec![Limits::default(); 3],
            names,
            // Near the end of a month, a day and an hour.
            unix_s: 1_582_934_400 + 86_390,
            given: 0,
            refused: 0,
        };
        (0..3).for_each(|tenant| world.change_limits(tenant));
        world
    }

    fn change_limits(&mut self, tenant: usize) {
        let mut limit = |most: u64| (self.rng.below(4) > 0).then(|| self.rng.below(most));
        let tokens = [limit(600), limit(1500), limit(4000)];
        let cached_token_permille = [0, 100, 333, 1000][self.rng.below(4) as usize];
        self.limits[tenant] = Limits { tokens, cached_token_permille };
    }

    fn sums(&self, tenant: usize, window: Window, start: u64) -> (u64, u64) {
        let of = |r: &&Request| r.tenant == tenant && window.start(r.unix_s) == start;
        self.requests.iter().filter(of).fold((0, 0), |(settled, held), r| match r.charged {
            Some(charged) => (settled + charged, held),
            None => (settled, held + r.worst.tokens()),
        })
    }

    fn hold(&mut self) {
        let tenant = self.rng.below(3) as usize;
        let worst_cases: Vec<WorstCase> = (0..1 + self.rng.below(3))
            .map(|_| WorstCase {
                prompt_tokens: 1 + self.rng.below(80) as u32,
                output_tokens: self.rng.below(120),
            })
            .collect();
        let asked: u64 = worst_cases.iter().map(|w| w.tokens()).sum();
        let newest = self.requests.iter().filter(|r| r.tenant == tenant).map(|r| r.unix_s).max();
        // A clock that went back by more than an hour stays in the newest hour.
        let unix_s = self.unix_s.max(newest.map_or(0, |newest| Window::Hour.start(newest)));
        let fits =
            Window::ALL.into_iter().zip(self.limits[tenant].tokens).all(|(window, limit)| {
                let (settled, held) = self.sums(tenant, window, window.start(unix_s));
                limit.is_none_or(|limit| settled + held + asked <= limit)
            });
        let mut log = Vec::new();
        let (name, limits) = (Arc::clone(&self.names[tenant]), self.limits[tenant]);
        match self.budgets.hold(&name, &limits, &worst_cases, self.unix_s, &mut log) {
            Ok(ids) => {
                assert!(fits, "a hold was given without room");
                self.given += 1;
                for (id, worst) in ids.into_iter().zip(worst_cases) {
                    let permille = u64::from(limits.cached_token_permille);
                    let charged = None;
                    let request = Request { id, tenant, unix_s, worst, permille, charged };
                    self.requests.push(request);
                }
            }
            Err(NoHold::Shortage(shortage)) => {
                assert!(!fits, "refused with room: {shortage}");
                assert!(log.is_empty(), "a refused request changes nothing");
                self.refused += 1;
                self.check_shortage(tenant, &shortage, asked, unix_s);
            }
            Err(NoHold::Accounts) => unreachable!("three tenants"),
        }
        self.replicate(&log);
    }

    fn check_shortage(&self, tenant: usize, shortage: &Shortage, asked: u64, unix_s: u64) {
        let start = shortage.window.start(unix_s);
        let (settled, held) = self.sums(tenant, shortage.window, start);
        assert_eq!((shortage.used, shortage.held, shortage.asked), (settled, held, asked));
        assert_eq!(shortage.resets_unix_s, shortage.window.end(unix_s));
        // When the named one is not final, no window is: a retry can succeed.
        if !shortage.is_final() {
            for (window, limit) in Window::ALL.into_iter().zip(self.limits[tenant].tokens) {
                let (settled, _) = self.sums(tenant, window, window.start(unix_s));
                assert!(limit.is_none_or(|limit| settled + asked <= limit));
            }
        }
    }

    fn settle(&mut self) {
        let open: Vec<usize> =
            (0..self.requests.len()).filter(|at| self.requests[*at].charged.is_none()).collect();
        if open.is_empty() {
            return;
        }
        let at = open[self.rng.below(open.len() as u64) as usize];
        let WorstCase { prompt_tokens, output_tokens } = self.requests[at].worst;
        let mut used = Used::default();
        if self.rng.below(4) > 0 {
            used = Used {
                prompt_tokens,
                cached_tokens: self.rng.below(u64::from(prompt_tokens) + 1) as u32,
                output_tokens: self.rng.below(output_tokens + 1) as u32,
            };
        }
        let mut log = Vec::new();
        let request = &mut self.requests[at];
        assert!(self.budgets.settle(request.id, used, &mut log));
        let cached = u64::from(used.cached_tokens);
        let cost = u64::from(used.prompt_tokens - used.cached_tokens)
            + (cached * request.permille).div_ceil(1000)
            + u64::from(used.output_tokens);
        assert!(cost <= request.worst.tokens());
        request.charged = Some(cost);
        assert!(!self.budgets.settle(request.id, used, &mut log), "settled twice");
        assert_eq!(log.len(), 1);
        self.replicate(&log);
    }

    fn replicate(&mut self, log: &[Entry]) {
        for entry in log {
            self.replica.apply(entry).expect("its own entries");
        }
    }

    fn check(&self) {
        self.budgets.check().expect("held tokens are those of the open holds");
        for (tenant, name) in self.names.iter().enumerate() {
            for balance in self.budgets.balances(name, self.unix_s) {
                let expected = self.sums(tenant, balance.window, balance.start);
                assert_eq!((balance.settled, balance.held), expected, "{name} {balance:?}");
            }
        }
    }
}

fn snapshot(budgets: &Budgets) -> Vec<Entry> {
    let mut entries = Vec::new();
    budgets.snapshot(|entry| entries.push(entry));
    entries
}

#[test]
fn no_budget_is_overspent_and_no_hold_is_leaked() {
    let (mut given, mut refused) = (0, 0);
    for seed in 0..150 {
        let mut world = World::new(seed);
        for _ in 0..200 {
            match world.rng.below(20) {
                0 => world.unix_s += world.rng.below(4000),
                1 => world.unix_s -= world.rng.below(100),
                2 => world.change_limits((seed % 3) as usize),
                3..=11 => world.hold(),
                _ => world.settle(),
            }
            world.check();
        }
        assert_eq!(snapshot(&world.budgets), snapshot(&world.replica), "seed {seed}");
        let mut restored = Budgets::default();
        for entry in snapshot(&world.budgets) {
            restored.apply(&entry).expect("a snapshot fits an empty state");
        }
        assert_eq!(snapshot(&restored), snapshot(&world.budgets), "seed {seed}");
        restored.check().expect("the same holds");
        let mut log = Vec::new();
        world.budgets.settle_open(&mut log);
        assert_eq!(world.budgets.open_holds(), 0);
        assert_eq!(world.budgets.totals().held, 0, "nothing is held without a request");
        world.budgets.check().expect("nothing is held");
        given += world.given;
        refused += world.refused;
    }
    assert!(
        given > 4000 && refused > 2000,
        "both ways are taken: {given} given, {refused} refused"
    );
}

#[test]
fn a_request_that_spans_midnight_settles_where_it_was_held() {
    let (mut budgets, mut log) = (Budgets::default(), Vec::new());
    let limits = Limits { tokens: [None, Some(100), None], cached_token_permille: 1000 };
    let worst = [WorstCase { prompt_tokens: 40, output_tokens: 60 }];
    let (evening, morning) = (86_400 * 365 - 5, 86_400 * 365 + 5);
    let name = Arc::from("acme");
    let id = budgets.hold(&name, &limits, &worst, evening, &mut log).expect("room")[0];
    let full = budgets.hold(&name, &limits, &worst, evening, &mut log).expect_err("it is full");
    let NoHold::Shortage(shortage) = full else { panic!("{full:?}") };
    assert!(!shortage.is_final(), "the running request may give back");
    assert!(shortage.to_string().contains("held by running requests (0 tokens used, 100 held)"));
    budgets.hold(&name, &limits, &worst, morning, &mut log).expect("a new day has room");
    let used = Used { prompt_tokens: 40, cached_tokens: 0, output_tokens: 20 };
    budgets.settle(id, used, &mut log);
    let [_, day, month] = budgets.balances("acme", morning);
    assert_eq!((day.settled, day.held), (0, 100), "the evening's tokens are not the morning's");
    assert_eq!((month.settled, month.held), (0, 100), "1971 began");
    let days: Vec<_> = budgets.days("acme").collect();
    assert_eq!(days.len(), 1);
    assert_eq!((days[0].0.to_string().as_str(), days[0].1.charged_tokens), ("1970-12-31", 60));
}

#[test]
fn the_message_of_a_shortage_says_what_to_do() {
    let shortage = |limit, used, held, asked| Shortage {
        window: Window::Day,
        limit,
        used,
        held,
        asked,
        resets_unix_s: 1_795_219_200,
    };
    let large = shortage(100, 0, 0, 101);
    assert!(large.is_final() && large.to_string().contains("lower max_tokens"), "{large}");
    let used_up = shortage(100, 100, 0, 1);
    assert_eq!(
        used_up.to_string(),
        "the budget of 100 tokens a day is used up (100 tokens used, 0 held by running requests); \
         it resets at 2026-11-21T00:00:00Z"
    );
    assert!(used_up.is_final());
    let little = shortage(100, 60, 10, 50);
    assert!(little.is_final() && little.to_string().contains("has 30 tokens left"), "{little}");
    assert!(!shortage(100, 40, 20, 50).is_final());
    assert!(shortage(u64::MAX, u64::MAX, 0, 1).is_final());
}

#[test]
fn entries_that_do_not_follow_are_refused_and_change_nothing() {
    let mut budgets = Budgets::default();
    let settle = Entry::Settle { hold: HoldId(0), used: Used::default() };
    let hold = |hold, tokens| Entry::Hold {
        hold: HoldId(hold),
        account: 0,
        unix_s: 0,
        tokens,
        prompt_tokens: 1,
        cached_token_permille: 0,
    };
    assert!(budgets.apply(&settle).is_err(), "nothing was held");
    assert!(budgets.apply(&hold(0, 1)).is_err(), "no tenant");
    let tenant = |number| Entry::Tenant { number, name: Arc::from("a") };
    assert!(budgets.apply(&tenant(1)).is_err());
    budgets.apply(&tenant(0)).expect("the first");
    assert!(budgets.apply(&tenant(1)).is_err(), "the same name again");
    assert!(budgets.apply(&hold(0, u64::MAX)).is_err(), "no such budget");
    budgets.apply(&hold(7, 5)).expect("ids may leave gaps");
    assert!(budgets.apply(&hold(7, 5)).is_err(), "the id was used");
    let settle = Entry::Settle { hold: HoldId(7), used: Used::default() };
    budgets.apply(&settle).expect("it is open");
    assert!(budgets.apply(&settle).is_err(), "it is settled");
    budgets.check().expect("refused entries changed nothing");
}

#[test]
fn tenants_that_left_long_ago_are_forgotten_at_a_restart() {
    let (mut budgets, mut log) = (Budgets::default(), Vec::new());
    let worst = [WorstCase { prompt_tokens: 10, output_tokens: 10 }];
    let used = Used { prompt_tokens: 10, cached_tokens: 0, output_tokens: 1 };
    let limits = Limits::default();
    let mut hold = |name: &str, day: u64| {
        let id = budgets.hold(&Arc::from(name), &limits, &worst, day * 86_400, &mut log);
        id.expect("no limits")[0]
    };
    let (old, holder, recent) = (hold("old", 1000), hold("holder", 1000), hold("recent", 1100));
    budgets.settle(old, used, &mut log);
    budgets.settle(recent, used, &mut log);
    assert!(budgets.pruned(1000 * 86_400).is_none(), "nothing is old yet");
    let mut kept = budgets.pruned(1101 * 86_400).expect("one is idle");
    assert_eq!(kept.tenants().map(|t| &**t).collect::<Vec<_>>(), ["holder", "recent"]);
    kept.check().expect("the hold kept its account");
    assert!(kept.settle(holder, used, &mut log));
    assert_eq!(kept.days("holder").count(), 1);
}
