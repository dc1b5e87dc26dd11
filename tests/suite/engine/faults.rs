//! Devices that fail: one row, one step, for good.

use std::time::Duration;

use weir::device::sim::SimFaults;

use super::world::{Ask, NAN, POISON, World, config, limits, prompt, sim};

/// Much less than the minute in which faults are counted.
const SOON: Duration = Duration::from_secs(50);

#[test]
fn the_one_request_that_makes_steps_fail_is_found_and_fails_alone() {
    for steps_in_flight in [1, 2] {
        for culprit in 0..8 {
            let mut world = World::small(steps_in_flight);
            let callers: Vec<_> = (0..8)
                .map(|i| {
                    let mut tokens = prompt(i, 5);
                    if i == culprit {
                        tokens[3] = POISON;
                    }
                    world.ask(Ask::new(tokens, 10))
                })
                .collect();
            let mut faults = 0;
            while !world.engine.is_idle() {
                faults += world.turn().step_faults;
            }
            world.assert_empty();
            assert!(faults <= 1 + 3, "eight requests are halved three times, not {faults}");
            for (i, &caller) in callers.iter().enumerate() {
                if i == culprit as usize {
                    let message = world.got(caller).failed.as_deref().expect("the culprit fails");
                    assert!(message.contains("simulated fault"), "{message}");
                } else {
                    world.assert_as_alone(caller);
                }
            }
        }
    }
}

#[test]
fn a_fault_that_passes_costs_nobody_anything() {
    for steps_in_flight in [1, 2] {
        for seed in 0..20 {
            let mut sim = sim(limits(64, 4, steps_in_flight));
            sim.faults = SimFaults { seed, step_error_rate: 0.1, ..sim.faults };
            let mut world = World::new(config(), sim);
            // Alone, a request is tried twice; of three, one fault after the other spares two.
            let ask = Ask::new(prompt(1, 7), 10).choices(2);
            let callers = [0, 1, 2, 3].map(|_| world.ask(ask.clone()));
            world.run();
            let done = callers.iter().filter(|&&caller| world.got(caller).done.is_some());
            assert!(done.count() >= 2, "seed {seed}");
            for caller in callers {
                world.assert_prefix_of_alone(caller);
                if world.got(caller).done.is_some() {
                    world.assert_as_alone(caller);
                }
            }
        }
    }
}

#[test]
fn a_device_that_fails_every_step_fails_all_requests_after_few_tries() {
    for steps_in_flight in [1, 2] {
        let mut sim = sim(limits(64, 4, steps_in_flight));
        sim.faults.step_error_rate = 1.0;
        let mut world = World::new(config(), sim);
        let callers: Vec<_> = (0..8).map(|i| world.ask(Ask::new(prompt(i, 5), 10))).collect();
        let mut faults = 0;
        while !world.engine.is_idle() {
            faults += world.turn().step_faults;
        }
        world.assert_empty();
        assert!(faults <= 12, "{faults} steps were tried");
        assert!(callers.iter().all(|&caller| world.got(caller).failed.is_some()));
    }
}

#[test]
fn a_lost_device_fails_every_request_once_and_all_later_ones() {
    for steps_in_flight in [1, 2] {
        let mut sim = sim(limits(64, 4, steps_in_flight));
        sim.faults.lost_at_step = Some(5);
        let mut world = World::new(config(), sim);
        let callers: Vec<_> = (0..12).map(|i| world.ask(Ask::new(prompt(i, 5), 10))).collect();
        world.turns(8);
        assert_eq!(world.engine.lost(), Some("simulated loss"));
        let late = world.ask(Ask::new(prompt(1, 5), 10));
        world.turns(2);
        for caller in callers.into_iter().chain([late]) {
            let message = world.got(caller).failed.as_deref().expect("failed");
            assert!(message.contains("the device is lost"), "{message}");
        }
    }
}

#[test]
fn a_row_that_is_not_finite_ends_its_request_and_leaves_no_block_to_others() {
    for steps_in_flight in [1, 2] {
        let mut world = World::small(steps_in_flight);
        // The first block is clean, the second holds the NaN.
        let mut tokens = prompt(1, 12);
        tokens[6] = NAN;
        let sick = world.ask(Ask::new(tokens.clone(), 10).choices(2));
        let well = world.ask(Ask::new(prompt(2, 12), 10));
        world.run();
        let message = world.got(sick).failed.as_deref().expect("failed");
        assert!(message.contains("not a number"), "{message}");
        world.assert_as_alone(well);
        let again = world.ask(Ask::new(tokens, 10));
        let clean = world.ask(Ask::new(prompt(1, 4), 10));
        world.run();
        assert_eq!(world.got(again).cached_tokens, 0, "no block of the sick one was published");
        assert!(world.got(again).failed.is_some());
        world.assert_as_alone(clean);
    }
}

#[test]
fn a_nan_among_prompt_scores_ends_the_request() {
    let mut world = World::small(1);
    let mut tokens = prompt(1, 12);
    tokens[6] = NAN;
    let caller = world.ask(Ask { score_prompt: Some(1), ..Ask::new(tokens, 0) });
    world.run();
    assert!(world.got(caller).failed.is_some());
}

#[test]
fn blocks_with_a_nan_are_used_after_all_others_and_many_make_the_server_unready() {
    let mut world = World::new(config(), sim(limits(64, 4, 1)));
    let mut tokens = prompt(1, 12);
    tokens[6] = NAN;
    for i in 0..4 {
        assert_eq!(world.last.load.unsound_until, None, "after {i}");
        world.ask(Ask { tenant: i % 2, ..Ask::new(tokens.clone(), 10) });
        world.run();
    }
    assert!(world.last.load.unsound_until.is_some_and(|until| until > world.later(SOON)));
    let quarantined = world.last.load.blocks_quarantined;
    assert!(quarantined >= 2, "the blocks from the NaN on, {quarantined}");
    assert_eq!(world.last.load.blocks_available, 64, "they are there when nothing else is");
    let large = world.ask(Ask::new(prompt(3, 200), 40));
    world.run();
    world.assert_as_alone(large);
    assert!(world.last.load.blocks_quarantined <= quarantined);
    let all = world.ask(Ask::new(prompt(4, 150), 100));
    world.run();
    world.assert_as_alone(all);
}
