//! One feature at a time.

use super::world::{Ask, World, config, limits, prompt, sim};

#[test]
fn a_request_runs_from_submission_to_done() {
    for steps_in_flight in [1, 2] {
        let mut world = World::small(steps_in_flight);
        let caller = world.ask(Ask::new(prompt(1, 10), 20));
        world.run();
        assert_eq!(world.got(caller).tokens[0].len(), 20);
        world.assert_as_alone(caller);
    }
}

#[test]
fn a_stop_token_ends_a_choice_and_the_token_sampled_after_it_is_thrown_away() {
    let mut world = World::small(2);
    let callers: Vec<_> =
        (0..8).map(|i| world.ask(Ask::new(prompt(i, 5), 60).stopping())).collect();
    let mut discarded = 0;
    while !world.engine.is_idle() {
        discarded += world.turn().discarded_tokens;
    }
    assert!(discarded > 0, "some answer stopped by itself");
    for caller in callers {
        world.assert_as_alone(caller);
    }
}

#[test]
fn long_prompts_are_computed_in_chunks_beside_decodes() {
    let mut world = World::new(config(), sim(limits(128, 4, 1)));
    let short = world.ask(Ask::new(prompt(1, 3), 30));
    world.turns(3);
    let before = world.got(short).tokens[0].len();
    let long = world.ask(Ask::new(prompt(2, 200), 5));
    let mut mixed = 0;
    while world.got(long).tokens[0].is_empty() {
        let step = world.turn().step.expect("there is work");
        mixed += u32::from(step.prefill_rows > 0 && step.decode_rows > 0);
        assert!(step.rows <= 64, "rows within the limit");
    }
    assert!(mixed >= 3, "200 tokens take several steps of 64 rows");
    assert_eq!(world.got(short).tokens[0].len() as u32, before as u32 + mixed, "no decode waits");
    world.run();
    world.assert_as_alone(long);
    world.assert_as_alone(short);
}
