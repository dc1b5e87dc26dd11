//! Random worlds: from a seed comes a server of some size, tenants, traffic, faults and mishaps.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use weir::config::{Class, LedgerLimits, QueueLimits, TenantSettings};
use weir::device::DeviceLimits;
use weir::device::sim::{SimConfig, SimCost, SimFaults};
use weir::engine::EngineConfig;

use super::chance::Chance;
use super::setup::{Client, EOS, Mishaps, NAN, POISON, SAMPLED, Setup, VOCAB};
use super::traffic::{Crowd, Habits, Lengths, Phase, Traffic};
use super::world::World;

/// What a seed's run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub steps: u64,
    pub requests: u64,
    pub attempts: u64,
    pub hash: u64,
}

/// Runs one seed to its end.
///
/// # Panics
/// With the seed in the message, when an invariant is broken.
pub fn run(seed: u64) -> Outcome {
    run_checked(seed, 1)
}

/// As [`run`], with counters recomputed after one turn of so many.
///
/// # Panics
/// As [`run`].
pub fn run_checked(seed: u64, check_every: u64) -> Outcome {
    let run = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(Setup { check_every, ..setup(seed) });
        world.run();
        Outcome {
            steps: world.steps,
            requests: world.tally.offered_requests(),
            attempts: world.tally.attempts,
            hash: world.hash,
        }
    }));
    run.unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        panic!("SEED={seed}: {}", text.unwrap_or("a panic without a message"));
    })
}

/// The world of a seed.
pub fn setup(seed: u64) -> Setup {
    let mut chance = Chance::new(seed);
    let chance = &mut chance;
    let limits = limits(chance);
    let lengths = lengths(chance, &limits);
    let tenants = tenants(chance, &lengths);
    let cost = SimCost {
        fixed: Duration::from_micros(chance.between(200, 20_000)),
        per_prefill_row: Duration::from_micros(chance.between(1, 200)),
        per_sequence: Duration::from_micros(chance.between(1, 200)),
        per_1024_context_tokens: Duration::from_micros(chance.between(0, 500)),
    };
    let traffic = traffic(chance, &limits, lengths, &cost, tenants.len() as u32);
    let mut engine = EngineConfig::new([7; 32]);
    engine.step_rows_max = limits.step_rows_max;
    engine.running_max = limits.slots_total;
    engine.prefix_caching = chance.happens(0.8);
    engine.overtakes_max = chance.below(9) as u32;
    engine.overtaking_max = Duration::from_millis(chance.below(200));
    engine.check_every_steps = 0;
    let requests_max = 1 << chance.between(2, 10);
    // A request of n prompts would be n submissions; here each has one.
    engine.waiting_max = requests_max * 2;
    engine.mailbox_max = requests_max as usize * 2 + 16;
    let faults = faults(chance);
    let second = Duration::from_secs(1);
    let mishap = |chance: &mut Chance| {
        let span = traffic.phases.iter().map(|phase| phase.lasts).sum::<Duration>();
        chance.happens(0.3).then(|| (span / chance.between(1, 8) as u32).max(second / 10))
    };
    Setup {
        seed,
        sim: SimConfig {
            cost,
            faults,
            sampled: 0..SAMPLED,
            eos: Some((EOS, 1.0 / chance.between(2, 60) as f64)),
            verify: chance.happens(0.1),
            ..SimConfig::new(limits)
        },
        engine,
        queue: QueueLimits {
            requests_max,
            tokens_max: 1 << chance.between(6, 20),
            ..QueueLimits::default()
        },
        ledger: LedgerLimits {
            snapshot_after_bytes: 1 << chance.between(10, 18),
            ..LedgerLimits::default()
        },
        client: Client {
            retries_max: chance.below(4) as u32,
            patience: Duration::from_millis(chance.between(20, 10_000)),
        },
        mishaps: Mishaps {
            kill_every: mishap(chance),
            reload_every: mishap(chance),
            commit_every: Duration::from_millis(chance.between(1, 500)),
        },
        fifo: false,
        ttft_objective: second,
        tpot_objective: second,
        check_every: 1,
        tenants,
        traffic,
    }
}

fn limits(chance: &mut Chance) -> DeviceLimits {
    let block_size_tokens = [1, 2, 4, 8, 16, 16][chance.below(6) as usize];
    let context_tokens_max = chance.between(24, 256) as u32;
    let context_blocks = u64::from(context_tokens_max.div_ceil(block_size_tokens));
    let contexts = chance.between(1, 8);
    DeviceLimits {
        block_size_tokens,
        blocks_total: (context_blocks * contexts + chance.below(context_blocks)) as u32,
        step_rows_max: chance.between(1, 64) as u32,
        slots_total: chance.between(1, 10) as u32,
        context_tokens_max,
        vocab_size: VOCAB,
        steps_in_flight_max: chance.between(1, 2) as u32,
        computes_in_submit: chance.happens(0.3),
    }
}

fn lengths(chance: &mut Chance, limits: &DeviceLimits) -> Lengths {
    let context = u64::from(limits.context_tokens_max);
    let output_max = chance.between(1, context / 2) as u32;
    Lengths {
        prompt_median: chance.between(1, context / 4) as f64,
        prompt_sigma: chance.unit() * 1.5,
        prompt_max: limits.context_tokens_max - output_max,
        output_max,
    }
}

fn tenants(chance: &mut Chance, lengths: &Lengths) -> Vec<TenantSettings> {
    let count = if chance.happens(0.04) { chance.between(100, 5000) } else { chance.between(1, 8) };
    let most = u64::from(lengths.prompt_max + lengths.output_max);
    let promises = chance.happens(0.7);
    let budgets = chance.happens(0.6);
    let some = |chance: &mut Chance, probability: f64, low: u64, high: u64| {
        chance.happens(probability).then(|| chance.between(low, high))
    };
    (0..count)
        .map(|_| TenantSettings {
            weight: chance.between(1, 8) as u32,
            class: [Class::Interactive, Class::Standard, Class::Standard, Class::Batch]
                [chance.below(4) as usize],
            requests_per_min: some(chance, 0.1, 1, 5000).map(|n| n as u32),
            tokens_per_min: some(chance, 0.1, most, most * 2000),
            concurrent_requests_max: some(chance, 0.2, 1, 20).map(|n| n as u32),
            queued_requests_max: some(chance, 0.2, 1, 20).map(|n| n as u32),
            kv_share: if chance.happens(0.2) { 0.3 + 0.7 * chance.unit() } else { 1.0 },
            tokens_per_hour: some(chance, if budgets { 0.5 } else { 0.0 }, 1, most * 100),
            tokens_per_day: some(chance, if budgets { 0.5 } else { 0.0 }, 1, most * 300),
            tokens_per_month: some(chance, if budgets { 0.3 } else { 0.0 }, 1, most * 1000),
            cached_token_permille: chance.between(0, 1000) as u32,
            ttft: some(chance, if promises { 0.8 } else { 0.0 }, 5, 2000)
                .map(Duration::from_millis),
            tpot: some(chance, 0.5, 1, 200).map(Duration::from_millis),
            ..TenantSettings::default()
        })
        .collect()
}

fn traffic(
    chance: &mut Chance,
    limits: &DeviceLimits,
    lengths: Lengths,
    cost: &SimCost,
    tenants: u32,
) -> Traffic {
    // Roughly what the device can do: each slot's answer takes so many steps.
    let steps = 10.0 + f64::from(lengths.output_max) / 3.0;
    let step_s = cost.fixed.as_secs_f64() + 8.0 * cost.per_prefill_row.as_secs_f64();
    let capacity = f64::from(limits.slots_total) / (steps * step_s);
    let hog = tenants > 1 && chance.happens(0.3);
    let crowds = if hog {
        vec![
            Crowd { tenants: 0..1, rate: capacity * 0.7 },
            Crowd { tenants: 1..tenants, rate: capacity * 0.3 },
        ]
    } else {
        vec![Crowd { tenants: 0..tenants, rate: capacity }]
    };
    let mut phases = Vec::new();
    for _ in 0..chance.between(1, 4) {
        let load = 0.1 * 200f64.powf(chance.unit());
        let requests = chance.between(20, 1200) as f64;
        phases.push(Phase { load, lasts: Duration::from_secs_f64(requests / (capacity * load)) });
    }
    let some = |chance: &mut Chance, most: f64| {
        if chance.happens(0.5) { chance.unit() * most } else { 0.0 }
    };
    let habits = Habits {
        choices: some(chance, 0.5),
        choices_max: limits.slots_total.min(4),
        flex: some(chance, 0.3),
        deadline: some(chance, 0.3),
        leave: some(chance, 0.4),
        horizon: Duration::from_secs_f64(step_s * steps * 4.0),
        shared_prefix: some(chance, 0.9),
        nan: some(chance, 0.03),
        poison: some(chance, 0.02),
        urgent: some(chance, 0.2),
    };
    Traffic { crowds, lengths, habits, phases }
}

fn faults(chance: &mut Chance) -> SimFaults {
    let faulty = chance.happens(0.5);
    let rate = |chance: &mut Chance, most: f64| {
        if faulty && chance.happens(0.5) { chance.unit() * most } else { 0.0 }
    };
    let panics = if faulty && chance.happens(0.3) { chance.between(1, 3) } else { 0 };
    SimFaults {
        seed: chance.bits(),
        step_error_rate: rate(chance, 0.05),
        poison_token: Some(POISON),
        nan_token: Some(NAN),
        slow_rate: rate(chance, 0.2),
        slow_factor: chance.between(2, 100) as u32,
        panic_at_steps: (0..panics).map(|_| chance.between(1, 2000)).collect(),
        ..SimFaults::default()
    }
}
