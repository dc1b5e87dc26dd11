//! Random traffic on tiny devices: whatever happens, blocks are conserved, every request ends
//! once, and every token is the one that its caller would have got alone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use weir::device::SamplingParams;
use weir::device::sim::SimFaults;
use weir::engine::Stops;
use weir::ids::TokenId;

use super::world::{Ask, EOS, NAN, POISON, SAMPLED, World, config, limits, prompt, sim};

const CASES_PER_TEST: u64 = 2600;

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u32) -> u32 {
        (self.next() % u64::from(bound)) as u32
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.below(n) == 0
    }
}

/// What a caller does besides asking.
#[derive(Clone, Copy, Default)]
struct Manner {
    /// Leaves when this turn comes.
    leaves: Option<u32>,
    stops: Option<(u32, u32)>,
}

#[test]
fn random_traffic_with_one_step_in_flight() {
    cases(0, 1, false);
}

#[test]
fn random_traffic_with_two_steps_in_flight() {
    cases(1_000_000, 2, false);
}

#[test]
fn random_traffic_with_faults_and_one_step_in_flight() {
    cases(2_000_000, 1, true);
}

#[test]
fn random_traffic_with_faults_and_two_steps_in_flight() {
    cases(3_000_000, 2, true);
}

fn cases(first_seed: u64, steps_in_flight: u32, faults: bool) {
    for seed in first_seed..first_seed + CASES_PER_TEST {
        let run = catch_unwind(AssertUnwindSafe(|| case(seed, steps_in_flight, faults)));
        if let Err(payload) = run {
            let text = payload.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
            panic!("SEED={seed} in flight {steps_in_flight}: {}", text.unwrap_or("a panic"));
        }
    }
}

fn case(seed: u64, steps_in_flight: u32, faults: bool) {
    let mut rng = Rng(seed);
    let mut world = world(&mut rng, steps_in_flight, faults);
    let count = 1 + rng.below(12);
    let mut manners: Vec<Manner> = Vec::new();
    let mut turn = 0;
    while (manners.len() as u32) < count || !world.engine.is_idle() {
        while (manners.len() as u32) < count && rng.one_in(3) {
            let ask = ask(&mut rng, &world, faults);
            let leaves = rng.one_in(6).then(|| turn + rng.below(20));
            let choices = ask.params.len() as u32;
            let stops = rng.one_in(6).then(|| (turn + 2 + rng.below(20), rng.below(choices)));
            manners.push(Manner { leaves, stops });
            world.ask(ask);
        }
        for (caller, manner) in manners.iter().enumerate() {
            if manner.leaves == Some(turn) {
                world.leave(caller);
            }
            if let Some((at, choice)) = manner.stops
                && at == turn
            {
                world.stop_choice(caller, choice);
            }
        }
        world.turn();
        world.engine.check();
        turn += 1;
        assert!(turn < 20_000, "no end: {:?}", world.last);
    }
    world.assert_empty();
    for (caller, manner) in manners.iter().enumerate() {
        judge(&world, caller, *manner, faults);
    }
}

/// Each caller got what it was due.
fn judge(world: &World, caller: usize, manner: Manner, faults: bool) {
    let (ask, got) = (&world.callers[caller].ask, world.got(caller));
    world.assert_prefix_of_alone(caller);
    if manner.leaves.is_some() && got.done.is_none() && got.failed.is_none() {
        return;
    }
    if let Some(message) = &got.failed {
        let nan = (0..ask.params.len()).any(|choice| ask.alone(&world.sim, choice).1.is_none())
            || ask.prompt.contains(&NAN);
        let poisoned = ask.prompt.contains(&POISON);
        let refused = message.contains("KV blocks") && got.started == 0;
        assert!(nan || poisoned || refused || faults, "caller {caller} failed: {message}");
        return;
    }
    let usage = got.done.expect("a request ends");
    assert!(usage.preemptions <= 2, "caller {caller} was preempted too often");
    if ask.deadline.is_none() && manner.stops.is_none() {
        world.assert_as_alone(caller);
        let scored = if ask.score_prompt.is_some() { ask.prompt.len() - 1 } else { 0 };
        assert_eq!(got.scored.len(), scored, "each prompt position is scored once");
    }
}

fn world(rng: &mut Rng, steps_in_flight: u32, faults: bool) -> World {
    let block_size = [1, 2, 4, 4, 8, 16][rng.below(6) as usize];
    let blocks = 4 + rng.below(160 / block_size);
    let mut limits = limits(blocks, block_size, steps_in_flight);
    limits.slots_total = 1 + rng.below(8);
    let mut config = config();
    config.step_rows_max = 1 + rng.below(40);
    config.prefix_caching = !rng.one_in(5);
    config.overtaking_max = Duration::from_millis(u64::from(rng.below(100)));
    config.overtakes_max = rng.below(9);
    let mut sim = sim(limits);
    if faults {
        let step_error_rate = if rng.one_in(2) { 0.05 } else { 0.0 };
        sim.faults = SimFaults {
            seed: rng.next(),
            step_error_rate,
            slow_rate: 0.1,
            slow_factor: 20,
            ..sim.faults
        };
    }
    World::new(config, sim)
}

fn ask(rng: &mut Rng, world: &World, faults: bool) -> Ask {
    let limits = &world.sim.limits;
    // Few names and few lengths, so that prompts share prefixes.
    let shared = rng.below(24);
    let mut tokens = prompt(rng.below(3), shared);
    tokens.extend((0..=rng.below(10)).map(|_| TokenId(rng.below(SAMPLED))));
    if faults && rng.one_in(12) {
        let at = rng.below(tokens.len() as u32) as usize;
        tokens[at] = if rng.one_in(2) { NAN } else { POISON };
    }
    let choices = if rng.one_in(3) { 1 + rng.below(limits.slots_total.min(4)) } else { 1 };
    let history = rng.one_in(4);
    let temperature = if rng.one_in(3) { 0.0 } else { 1.0 };
    let seed = u64::from(rng.below(3));
    let score_prompt = rng.one_in(8).then_some(2);
    let max_tokens = if score_prompt.is_some() { rng.below(12) } else { 1 + rng.below(30) };
    let one = SamplingParams {
        temperature,
        presence_penalty: if history { 0.5 } else { 0.0 },
        logprobs: rng.one_in(4).then_some(2),
        ..SamplingParams::greedy()
    };
    let params = (0..choices)
        .map(|choice| SamplingParams { seed: seed + u64::from(choice), ..one.clone() })
        .collect();
    let stops = Stops {
        eos: if rng.one_in(2) { Arc::from([EOS]) } else { Arc::from([]) },
        tokens: Arc::from([]),
        min_tokens: rng.below(3),
    };
    let deadline =
        rng.one_in(10).then(|| world.later(Duration::from_millis(u64::from(rng.below(200)))));
    Ask {
        tenant: rng.below(3),
        salt: if rng.one_in(4) { "pepper" } else { "" },
        params,
        max_tokens,
        stops,
        score_prompt,
        priority: rng.below(2) as i32,
        deadline,
        ..Ask::new(tokens, 0)
    }
}
