//! Callers that leave, in every state that a request can be in.

use weir::engine::FinishReason;

use super::world::{Ask, World, config, limits, prompt, sim};

/// After the caller left, its blocks are back within two steps.
fn leaves_after(turns: u32, ask: &Ask, steps_in_flight: u32) {
    let mut world = World::new(config(), sim(limits(128, 4, steps_in_flight)));
    let other = world.ask(Ask::new(prompt(90, 5), 60));
    world.turns(3);
    let without = World::used_by_others(&mut world);
    let caller = world.ask(ask.clone());
    world.turns(turns);
    world.leave(caller);
    let mut steps = 0;
    loop {
        steps += u32::from(world.turn().step.is_some());
        world.engine.check();
        // The other sequence may have grown by a block meanwhile.
        if world.last.load.blocks_used <= without + turns / 4 + 2 && world.last.load.running <= 1 {
            break;
        }
        assert!(steps < 2, "{:?} after {turns} turns", world.last.load);
    }
    world.run();
    world.assert_as_alone(other);
    world.assert_prefix_of_alone(caller);
}

#[test]
fn blocks_are_back_two_steps_after_a_caller_left() {
    let asks = [
        Ask::new(prompt(1, 7), 40),
        Ask::new(prompt(1, 200), 20),
        Ask::new(prompt(1, 30), 20).choices(4),
        Ask { score_prompt: Some(1), ..Ask::new(prompt(1, 100), 20) },
    ];
    for steps_in_flight in [1, 2] {
        for ask in &asks {
            for turns in 0..12 {
                leaves_after(turns, ask, steps_in_flight);
            }
        }
    }
}

#[test]
fn a_caller_that_left_before_the_engine_saw_its_request_costs_nothing() {
    let mut world = World::small(1);
    let caller = world.ask(Ask::new(prompt(1, 7), 40));
    world.leave(caller);
    let report = world.turn();
    assert_eq!((report.submitted, report.cancelled, report.started), (1, 1, 0));
    world.run();
}

#[test]
fn a_request_that_waits_can_be_given_up() {
    let mut config = config();
    config.running_max = 1;
    let mut world = World::new(config, sim(limits(64, 4, 1)));
    let runs = world.ask(Ask::new(prompt(1, 4), 10));
    let waits = world.ask(Ask::new(prompt(2, 4), 10));
    let next = world.ask(Ask::new(prompt(3, 4), 10));
    world.turns(2);
    world.leave(waits);
    assert_eq!(world.turn().load.waiting, 1);
    world.run();
    assert_eq!(world.got(waits).started, 0);
    world.assert_as_alone(runs);
    world.assert_as_alone(next);
}

#[test]
fn one_choice_can_be_stopped_in_any_state_while_the_others_go_on() {
    for steps_in_flight in [1, 2] {
        for choice in 0..3 {
            // The prompt takes three steps, the answers twelve.
            for turns in 1..14 {
                let mut world = World::new(config(), sim(limits(128, 4, steps_in_flight)));
                let caller = world.ask(Ask::new(prompt(1, 150), 12).choices(3));
                world.turns(turns);
                world.stop_choice(caller, choice);
                world.run();
                world.assert_prefix_of_alone(caller);
                let got = world.got(caller);
                let usage = got.done.expect("done");
                let sent: usize = got.tokens.iter().map(Vec::len).sum();
                assert_eq!(usage.generated_tokens as usize, sent);
                for other in 0..3 {
                    let finished = got.finished[other].expect("each choice ends");
                    if other as u32 == choice {
                        let natural = got.tokens[other].len() == 12;
                        assert!(natural || finished == FinishReason::Stopped);
                    } else {
                        assert_eq!(got.tokens[other].len(), 12, "choice {other} goes on");
                    }
                }
            }
        }
    }
}

#[test]
fn stopping_every_choice_ends_the_request() {
    let mut world = World::small(2);
    let caller = world.ask(Ask::new(prompt(1, 9), 30).choices(2));
    world.turns(4);
    world.stop_choice(caller, 0);
    world.stop_choice(caller, 1);
    world.stop_choice(caller, 1);
    world.stop_choice(caller, 7);
    world.run();
    assert_eq!(world.got(caller).finished, [Some(FinishReason::Stopped); 2]);
    assert!(world.got(caller).done.is_some());
}

impl World {
    fn used_by_others(&mut self) -> u32 {
        self.last.load.blocks_used
    }
}
