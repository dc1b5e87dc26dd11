//! What steps were predicted to take, and steps that are cut to what they may take.

use std::time::Duration;

use weir::device::DeviceLimits;
use weir::device::sim::{SimConfig, SimFaults};
use weir::engine::EngineConfig;

use super::world::{Ask, World, config, limits, prompt};

fn world(faults: SimFaults) -> World {
    let limits = DeviceLimits {
        step_rows_max: 512,
        slots_total: 24,
        context_tokens_max: 4096,
        ..limits(4096, 16, 1)
    };
    let config = EngineConfig { step_rows_max: 512, check_every_steps: 64, ..config() };
    World::new(config, SimConfig { faults, sampled: 0..900, ..SimConfig::new(limits) })
}

/// Errors of the steps from one step to another, in ascending order.
fn errors(world: &mut World, name: &mut u32, steps: std::ops::Range<u64>) -> Vec<f64> {
    let mut errors = Vec::new();
    loop {
        // Long and short prompts, repeated ones, long and short answers; now crowded, now not.
        if world.last.load.waiting < *name % 7 {
            let tokens = [3, 40, 700, 150, 2000][*name as usize % 5] + *name * 13 % 100;
            world.ask(Ask::new(prompt(*name % 40, tokens), 1 + *name * 37 % 90));
        }
        *name += 1;
        let Some(step) = world.turn().step else { continue };
        if step.step >= steps.end {
            errors.sort_by(f64::total_cmp);
            return errors;
        }
        let error = step.prediction_error.filter(|_| step.step >= steps.start);
        errors.extend(error.map(f64::abs));
    }
}

#[test]
fn step_times_are_predicted_and_followed_when_the_device_slows_down() {
    for seed in 0..4 {
        // One step in fifty is held up besides.
        let mut world = world(SimFaults {
            seed,
            slow_rate: 0.02,
            slow_factor: 5,
            slow_from_step: Some((1000, 2)),
            ..SimFaults::default()
        });
        let mut name = seed as u32;
        for steps in [500..1000, 1500..2000] {
            let found = errors(&mut world, &mut name, steps.clone());
            assert!(found.len() > 450, "the model is warm");
            let (p50, p95) = (found[found.len() / 2], found[found.len() * 95 / 100]);
            assert!(p50 <= 0.10 && p95 <= 0.25, "seed {seed} {steps:?}: {p50:.3} {p95:.3}");
        }
        assert!(world.last.load.cost.is_warm());
    }
}

#[test]
fn a_step_holds_only_the_prefill_that_its_decodes_have_time_for() {
    let mut world = world(SimFaults::default());
    let mut name = 0;
    errors(&mut world, &mut name, 0..200);
    // A step of 512 rows takes 13 ms; 12 ms leave room for some of them.
    let tpot = Duration::from_millis(12);
    world.ask(Ask { tpot: Some(tpot), ..Ask::new(prompt(50, 5), 2000) });
    world.turns(40);
    assert_eq!(world.last.load.step_budget, Some(tpot));
    for i in 0..4 {
        world.ask(Ask::new(prompt(60 + i, 3000), 5));
    }
    let (mut mixed, mut slow) = (0, 0);
    for _ in 0..60 {
        let step = world.turn().step.expect("a step");
        mixed += u32::from(step.prefill_rows >= 64 && step.decode_rows > 0);
        slow += u32::from(step.elapsed > tpot.mul_f64(1.01));
    }
    assert!(mixed >= 30, "{mixed} of 60 steps hold prefill beside decodes");
    assert!(slow <= 1, "{slow} steps took longer than the objective");
    world.run();
    assert_eq!(world.last.load.step_budget, None);
}

#[test]
fn prefill_goes_on_beside_an_objective_that_leaves_it_no_time() {
    let mut world = world(SimFaults::default());
    let mut name = 0;
    errors(&mut world, &mut name, 0..200);
    let tpot = Some(Duration::from_millis(4));
    world.ask(Ask { tpot, ..Ask::new(prompt(50, 5), 3000) });
    world.turns(3);
    let long = world.ask(Ask::new(prompt(60, 3000), 5));
    let mut turns = 0;
    while world.got(long).tokens[0].is_empty() {
        world.turn();
        turns += 1;
    }
    // 128 rows in each fourth step, after those of the requests before it.
    assert!((60..=200).contains(&turns), "{turns} turns");
    world.run();
}
