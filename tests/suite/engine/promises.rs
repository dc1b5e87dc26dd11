//! Promised starts: kept at the tenant's cost, or ended in time.

use std::time::Duration;

use weir::engine::{FinishReason, Promise};

use super::world::{Ask, World, config, prompt};

/// One sequence at a time, so that the order of starts can be seen.
fn one_by_one() -> World {
    let mut sim = World::small(1).sim;
    sim.limits.slots_total = 1;
    World::new(config(), sim)
}

#[test]
fn a_promised_request_goes_first_once_it_is_urgent() {
    let (soon, late) = (Duration::from_millis(40), Duration::from_secs(9));
    for (urgent_in, first) in [(soon, true), (late, false)] {
        let mut world = one_by_one();
        // Tenant 1 is served much before tenant 2 comes, so that fair order prefers tenant 2.
        let served = world.ask(Ask { tenant: 1, ..Ask::new(prompt(1, 60), 60) });
        world.turns(3);
        let promise =
            Promise { urgent_from: world.later(urgent_in), start_by: world.later(late * 2) };
        let promised =
            world.ask(Ask { tenant: 1, promise: Some(promise), ..Ask::new(prompt(2, 20), 4) });
        let others: Vec<usize> = (3..6)
            .map(|name| world.ask(Ask { tenant: 2, ..Ask::new(prompt(name, 20), 4) }))
            .collect();
        while world.got(promised).started == 0 {
            world.turn();
        }
        let before = others.iter().filter(|other| world.got(**other).started > 0).count();
        assert_eq!(before == 0, first, "{before} others went before it");
        world.run();
        for caller in others.into_iter().chain([served, promised]) {
            world.assert_as_alone(caller);
        }
    }
}

#[test]
fn a_request_that_cannot_start_in_time_ends_unstarted_and_costs_nothing() {
    let mut world = one_by_one();
    let running = world.ask(Ask::new(prompt(1, 20), 100));
    world.turns(2);
    let start_by = world.later(Duration::from_millis(50));
    let promise = Promise { urgent_from: world.later(Duration::ZERO), start_by };
    let late = world.ask(Ask { promise: Some(promise), ..Ask::new(prompt(2, 20), 5) });
    let mut reported = 0;
    while world.got(late).done.is_none() {
        reported += world.turn().late;
    }
    assert_eq!(reported, 1);
    assert_eq!(world.got(late).finished, [Some(FinishReason::Late)]);
    assert_eq!((world.got(late).started, world.got(late).tokens[0].len()), (0, 0));
    assert_eq!(world.got(late).done.unwrap().generated_tokens, 0);
    world.run();
    world.assert_as_alone(running);
}
